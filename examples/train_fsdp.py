"""A training to take away: mixed precision with FSDP2, a loss scaler whose ranks agree, a guard, a sharded checkpoint.

    torchrun --standalone --nproc-per-node 2 examples/train_fsdp.py --checkpoint run --steps 200
    torchrun --standalone --nproc-per-node 2 examples/train_fsdp.py --checkpoint run --steps 400 --resume
    torchrun --standalone --nproc-per-node 2 examples/train_fsdp.py --model resnet50 --synthetic --batch 256 --json

Every rank has a part of each weight and a batch of its own; FSDP2 gathers the weights of a layer when it is computed,
and averages the gradients. It runs on GPUs over NCCL, on CPUs over gloo. `--inf 3 1` plants an Inf on rank 1 at step 3:
all ranks skip that step, and the guard names the cause. Another number of ranks can resume a checkpoint,
with the --batch that keeps the images of a step.
"""

import argparse
import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.elastic.multiprocessing.errors import record
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F

import mpkit
from mpkit.course.nets.digits import digits
from mpkit.course.nets.resnet import resnet50

FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
SAME = ("model", "format", "rate")  # what a run that goes on must be asked for again
WARM = 10  # steps that are not timed, at most half of them


def above_zero(kind):
    """What argparse makes of a text: an int or a float above 0."""

    def number(text):
        with contextlib.suppress(ValueError):
            if 0 < kind(text) < float("inf"):
                return kind(text)
        raise argparse.ArgumentTypeError(f"give a {'whole ' * (kind is int)}number above 0, not {text}.")

    return number


def options():
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, count = parser.add_argument, above_zero(int)
    add("--model", choices=("mlp", "resnet50"), default="mlp", help="mlp learns the digits; resnet50 needs --synthetic")
    add("--synthetic", action="store_true", help="random images, the same at each step: for timing")
    add("--size", type=count, default=224, help="height and width of resnet50's images")
    add("--batch", type=count, default=64, help="images a step on each rank")
    add("--steps", type=count, default=200, help="in all, those before --resume included")
    add("--rate", type=above_zero(float), default=0.05)
    add("--format", choices=FORMATS, default="fp16")
    add("--checkpoint", type=Path, help="folder of this run alone; saved at the end and every --every steps")
    add("--every", type=count, default=100)
    add("--resume", action="store_true", help="go on from the checkpoint")
    add("--no-guard", action="store_true")
    add("--deterministic", action="store_true", help="slower; a run that is resumed then ends bit for bit the same")
    add("--inf", type=int, nargs=2, metavar=("STEP", "RANK"), help="plant an Inf in an image there")
    add("--inf-gradient", type=int, nargs=2, metavar=("STEP", "RANK"), help="or in a gradient, after the ranks' sum")
    add("--json", action="store_true", help="print one line with what was measured")
    chosen = parser.parse_args()
    if "RANK" not in os.environ:
        parser.error("start this script with torchrun; --help shows how.")
    if chosen.model == "resnet50" and not chosen.synthetic:
        parser.error("--model resnet50 has no images of its own here; add --synthetic, or put your data set in.")
    last = chosen.steps - 1, int(os.environ.get("WORLD_SIZE", "1")) - 1  # torchrun tells how many ranks there are
    for step, rank in filter(None, (chosen.inf, chosen.inf_gradient)):
        if not (0 <= step <= last[0] and 0 <= rank <= last[1]):
            parser.error(f"no Inf for step {step} on rank {rank}: steps end with {last[0]}, ranks with {last[1]}.")
    if chosen.resume and not chosen.checkpoint:
        parser.error("--resume needs --checkpoint, the folder of the run that is to go on.")
    if chosen.checkpoint:
        check_folder(chosen, parser)
    return chosen


def check_folder(chosen, parser):
    """It has the checkpoints of one run alone: a run that begins finds none there, a run that goes on its own."""
    found = newest(chosen.checkpoint)
    if chosen.resume and not found:
        parser.error(f"--resume: there is no checkpoint in {chosen.checkpoint} yet; start without --resume.")
    if chosen.resume and int(found.stem) >= chosen.steps:
        parser.exit(0, f"{found} is there already, and --steps is {chosen.steps}: nothing is left to train.\n")
    if found and not chosen.resume:
        there = f"{chosen.checkpoint} has checkpoints up to step {int(found.stem)}"
        parser.error(f"{there}; add --resume, or name another folder.")
    try:
        chosen.checkpoint.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--checkpoint: {chosen.checkpoint} cannot be a folder ({error.strerror}); name another.")


def newest(place):
    """The last whole checkpoint, which has the number of its steps for a name; None: there is none."""
    whole = [path.parent for path in place.glob("*/.metadata")]  # it is written last
    return max((path for path in whole if path.name.isdecimal()), key=lambda path: int(path.name), default=None)


def same(before, chosen, ranks):
    """Refuse to go on with another model, format, rate or batch than the checkpoint had."""
    for name in SAME:
        if (now := getattr(chosen, name)) != (had := before[name]):
            cure = f"pass --{name} {had}, or train anew in another folder"
            raise SystemExit(f"The checkpoint has --{name} {had}, not {now}: {cure}.")
    same_batch(before["batch"], ranks, chosen.batch)


def same_batch(before, ranks, each):
    """Refuse to go on with another number of images a step, over all ranks, than the checkpoint had."""
    if ranks * each != before:
        cure = "start another number of ranks" if before % ranks else f"pass --batch {before // ranks}"
        raise SystemExit(f"The checkpoint has {before} images a step, not {ranks} times --batch {each}: {cure}.")


def join(deterministic):
    """Meet the other ranks, each with a device of its own; torchrun has told us who we are."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    return device


def batches(chosen, device, start):
    """This rank's images and labels for each step from `start` on, which the step alone decides: a resume goes on."""
    rank, size, n = dist.get_rank(), dist.get_world_size(), chosen.batch
    if chosen.synthetic:
        draw = torch.Generator().manual_seed(rank)
        shape, classes = ((3, chosen.size, chosen.size), 1000) if chosen.model == "resnet50" else ((64,), 10)
        x, y = torch.randn(n, *shape, generator=draw), torch.randint(classes, (n,), generator=draw)
        x, y = x.to(device), y.to(device)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
    else:
        data = digits(device)
        x, y = data.train_images, data.train_labels
    for step in range(start, chosen.steps):
        mine = (torch.arange(n) + (step * size + rank) * n) % len(y)
        part_x, part_y = (x, y) if chosen.synthetic else (x[mine], y[mine])
        if chosen.inf == [step, rank]:
            part_x = part_x.clone()
            part_x[(0,) * part_x.dim()] = torch.inf
        yield part_x, part_y, chosen.inf_gradient == [step, rank]


def shard(model, dtype, mesh):
    """FP32 weights in parts; gathered and computed in `dtype`, summed in FP32. Batch norm stays in FP32."""
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    for block in getattr(model, "blocks", ()):  # what is gathered together; of a transformer, a layer
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return fully_shard(model, mesh=mesh, mp_policy=policy)


class Training:
    """What torch.distributed.checkpoint saves and loads: each rank writes its own part, and reads what it needs."""

    def __init__(self, model, optimizer, scaler):
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        self.done = 0  # steps

    def state_dict(self):
        """This rank's part of model and optimizer, and what all share."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "scaler": self.scaler.state_dict(), "done": self.done}

    def load_state_dict(self, state):
        """Go on from there."""
        model, optimizer = state["model"], state["optimizer"]
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        self.scaler.load_state_dict(state["scaler"])
        self.done = state["done"]


def load(state, path):
    """Fill `state` with what was saved under the same names; each rank reads what it needs."""
    try:
        dcp.load(state, checkpoint_id=path)
    except CheckpointException as failed:
        error, _ = next(iter(failed.failures.values()))
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        cure = "Move it away, and the one before it is taken."
        raise SystemExit(f"{path} is damaged, or no checkpoint of this training ({words}). {cure}") from None
    return state


@record  # so that torchrun can tell which rank failed first, and how
def main():
    """What every rank does."""
    chosen = options()
    device = join(chosen.deterministic)
    rank, size = dist.get_rank(), dist.get_world_size()
    asked = {name: getattr(chosen, name) for name in SAME} | {"batch": size * chosen.batch}
    torch.manual_seed(0)
    net = resnet50() if chosen.model == "resnet50" else nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model = shard(net.to(device), FORMATS[chosen.format], init_device_mesh(device.type, (size,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=chosen.rate, momentum=0.9)
    # Ranks that share DTensors agree by themselves: one that finds Inf in its part makes all skip.
    scaler = mpkit.LossScaler(mpkit.DynamicScale() if chosen.format == "fp16" else mpkit.NoScaling())
    skipped = []

    def step(x, y, plant):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).float(), y)
        scaler.scale(loss).backward()
        if plant:
            next(model.parameters()).grad.to_local().view(-1)[0] = torch.inf  # in this rank's part alone
        result = scaler.step(optimizer)
        scaler.update()
        return result

    training = Training(model, optimizer, scaler)
    if chosen.resume:
        path = newest(chosen.checkpoint)
        same(load({"asked": dict(asked)}, path)["asked"], chosen, size)
        load({"training": training}, path)
    start = training.done

    # The guard runs a bad step again, on all ranks, and says which operation of the model made the Inf or NaN, on which
    # rank. Of one that was born after the backward pass it can only say that the model made none when it ran again.
    tell = lambda event: print(f"rank {rank}: {event}\n", end="", flush=True)  # noqa: E731 (one write: a whole line)
    guarded = step
    if not chosen.no_guard:
        guarded = mpkit.guard(step, model, optimizer, scaler, tell=tell)
        guarded.steps = start  # it numbers the steps as this training does

    warm, began = min(WARM, (chosen.steps - start) // 2), time.perf_counter()
    for number, batch in enumerate(batches(chosen, device, start), start):
        if number == start + warm:
            wait(device)
            began = time.perf_counter()
        if not guarded(*batch).stepped:
            skipped.append(number)
        training.done = number + 1
        if chosen.checkpoint and (training.done % chosen.every == 0 or training.done == chosen.steps):
            saved = {"training": training, "asked": asked}
            dcp.save(saved, checkpoint_id=chosen.checkpoint / f"{training.done:08}")  # on every rank
    wait(device)
    seconds = time.perf_counter() - began

    weights = b"".join(p.detach().full_tensor().cpu().numpy().tobytes() for p in model.parameters())
    mine = {"skipped": skipped, "scale": scaler.get_scale(), "checksum": hashlib.sha256(weights).hexdigest()[:16]}
    ranks = [None] * size
    dist.all_gather_object(ranks, mine)
    if rank == 0 and chosen.json:
        speed = size * chosen.batch * (chosen.steps - start - warm) / seconds
        print(json.dumps({"images_per_second": round(speed, 1), "steps": chosen.steps, "ranks": ranks}))
    dist.destroy_process_group()


def wait(device):
    """Until this rank's GPU is done, and the other ranks are here."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    dist.barrier()


if __name__ == "__main__":
    main()
