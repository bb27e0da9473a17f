"""A training to take away: mixed precision with DistributedDataParallel, a loss scaler whose ranks agree, and a guard.

    torchrun --standalone --nproc-per-node 2 examples/train_ddp.py --checkpoint run --steps 200
    torchrun --standalone --nproc-per-node 2 examples/train_ddp.py --checkpoint run --steps 400 --resume
    torchrun --standalone --nproc-per-node 2 examples/train_ddp.py --model resnet50 --synthetic --batch 256 --json

Every rank has all weights and a batch of its own; DDP averages the gradients. It runs on GPUs over NCCL, on CPUs over
gloo. `--inf 3 1` plants an Inf on rank 1 at step 3: all ranks skip that step, and the guard names the cause.
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
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

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
    whole = [path for path in place.glob("*.pt") if path.stem.isdecimal()]  # a best.pt is somebody else's
    return max(whole, key=lambda path: int(path.stem), default=None)


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


def save(state, path):
    """Under its name only when it is whole: a run may die while it writes."""
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def load(path):
    """What was saved, on the CPU: every rank reads the same file."""
    try:
        saved = torch.load(path, map_location="cpu")
        return {part: saved[part] for part in ("asked", "model", "optimizer", "scaler", "done")}
    except Exception as error:  # of many kinds
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        cure = "Move it away, and the one before it is taken."
        raise SystemExit(f"{path} is damaged, or no checkpoint of this training ({words}). {cure}") from None


@record  # so that torchrun can tell which rank failed first, and how
def main():
    """What every rank does."""
    chosen = options()
    device = join(chosen.deterministic)
    rank, size = dist.get_rank(), dist.get_world_size()
    asked = {name: getattr(chosen, name) for name in SAME} | {"batch": size * chosen.batch}
    torch.manual_seed(0)
    net = resnet50() if chosen.model == "resnet50" else nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model = DistributedDataParallel(net.to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=chosen.rate, momentum=0.9)
    # An Inf in the data reaches all ranks through DDP's sum. With a group they also agree on one that is born after it.
    rule = mpkit.DynamicScale() if chosen.format == "fp16" else mpkit.NoScaling()
    scaler = mpkit.LossScaler(rule, process_group=dist.group.WORLD)
    skipped = []

    def step(x, y, plant):
        optimizer.zero_grad()
        with torch.autocast(device.type, FORMATS[chosen.format], enabled=chosen.format != "fp32"):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if plant:
            next(model.parameters()).grad.view(-1)[0] = torch.inf
        result = scaler.step(optimizer)
        scaler.update()
        return result

    start = 0
    if chosen.resume:  # every rank reads the same file
        saved = load(newest(chosen.checkpoint))
        same(saved["asked"], chosen, size)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
        start = saved["done"]

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
        done = number + 1
        if chosen.checkpoint and (done % chosen.every == 0 or done == chosen.steps) and rank == 0:  # all have the same
            state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
            save({**state, "asked": asked, "done": done}, chosen.checkpoint / f"{done:08}.pt")
    wait(device)
    seconds = time.perf_counter() - began

    weights = b"".join(p.detach().cpu().numpy().tobytes() for p in net.parameters())
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
