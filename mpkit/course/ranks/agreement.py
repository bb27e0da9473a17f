"""One rank of many: an Inf is born somewhere at step 2. Who skips?

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m mpkit.course.ranks.agreement

Names of scalers as arguments: only these.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import mpkit
from mpkit.course.nets.digits import digits
from mpkit.course.ranks.rank import Rank, answer
from mpkit.course.ranks.replicas import beside_rank_0, local, net

STEPS, BAD, BATCH, LIMIT = 5, 2, 16, 100.0

# ---- who decides ----


def scalers(rank: Rank) -> dict[str, Callable[[], Any]]:
    """PyTorch's, ours as it comes, and ours with a group."""
    return {
        "GradScaler": lambda: torch.amp.GradScaler(rank.device.type),
        "LossScaler": lambda: mpkit.LossScaler(rank.device.type),
        "LossScaler, group": lambda: mpkit.LossScaler(rank.device.type, process_group=dist.group.WORLD),
    }


# ---- models ----


class Gain(nn.Module):
    """One factor for each of 64 inputs, a replicated DTensor: every rank has all of it and averages its gradient."""

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self.weight = nn.Parameter(distribute_tensor(torch.ones(64, device=rank.device), rank.mesh, [Replicate()]))
        self.weight.register_post_accumulate_grad_hook(self._average)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """The inputs times the factors."""
        return x * self.weight.to_local()  # type: ignore[no-any-return,attr-defined]

    @staticmethod
    def _average(weight: Tensor) -> None:
        dist.all_reduce(local(weight.grad.div_(dist.get_world_size())))  # type: ignore[union-attr]


def ddp(rank: Rank) -> nn.Module:
    """Every rank has all weights; gradients are averaged."""
    return DistributedDataParallel(net(rank))


def fsdp2(rank: Rank) -> nn.Module:
    """Every rank has a part of each weight and of each gradient."""
    model = net(rank)
    fully_shard(model, mesh=rank.mesh)
    return model


def mixed(rank: Rank) -> nn.Module:
    """A replicated parameter in front of a sharded rest, as beside tensor parallelism."""
    return nn.Sequential(Gain(rank), fsdp2(rank))


# ---- where the Inf is born: each is called on the last rank alone, at step BAD ----


def in_the_data(x: Tensor, y: Tensor) -> None:
    """A pixel is Inf."""
    x[0, 0] = math.inf


def no_labels(x: Tensor, y: Tensor) -> None:
    """Every label is to be ignored."""
    y.fill_(-100)


def after_the_sum(parameters: list[nn.Parameter]) -> None:
    """What a hook might do to this rank's copy, or to its part, of the last gradient."""
    local(parameters[-1].grad).view(-1)[0] = math.inf


def clip_by_own_loss(parameters: list[nn.Parameter], own: Tensor) -> None:
    """Scale the gradients down where this rank's own loss is above a limit. Without any label it is 0/0."""
    for p in parameters:
        local(p.grad).mul_((LIMIT / own).clamp(max=1))


# Arguments of `train`.
CASES: dict[str, dict[str, Any]] = {
    "in the data": {"model": ddp, "data": in_the_data},
    "after the sum": {"model": ddp, "gradients": after_the_sum},
    "local clipping": {"model": ddp, "data": no_labels, "clip": True},
    "clipping after unscale_": {"model": ddp, "data": no_labels, "clip": True, "unscale": True},
    "sharded": {"model": fsdp2, "gradients": after_the_sum},
    "replicated first": {"model": mixed, "gradients": after_the_sum},
    "sharded first": {"model": mixed, "gradients": after_the_sum, "turned": True},
}  # fmt: skip


def train(rank: Rank, images: Tensor, labels: Tensor, scaler: Any, *, model: Callable[[Rank], nn.Module],
          data: Any = None, gradients: Any = None, clip: bool = False, unscale: bool = False,
          turned: bool = False) -> dict[str, Any]:  # fmt: skip
    """Train for STEPS steps; which of them the optimizer took, the scale, and how far the ranks' weights are apart."""
    net = model(rank)
    parameters = list(net.parameters())
    sharded = [p for p in parameters if isinstance(p, DTensor) and p.placements[0].is_shard()]
    optimizer = torch.optim.SGD(parameters[::-1] if turned else parameters, lr=0.1)
    taken: list[bool] = []
    optimizer.register_step_post_hook(lambda *_: taken.append(True))
    for step in range(STEPS):
        x, y = (part[(step * rank.size + rank.number) * BATCH :][:BATCH].clone() for part in (images, labels))
        bad = step == BAD and rank.number == rank.size - 1
        if bad and data:
            data(x, y)
        optimizer.zero_grad()
        losses = F.cross_entropy(net(x), y, reduction="none")
        scaler.scale(losses.sum() / BATCH).backward()
        if bad and gradients:
            gradients(sharded or parameters)
        if unscale:
            scaler.unscale_(optimizer)
        if clip:
            clip_by_own_loss(parameters, losses.detach().sum() / (y >= 0).sum())
        scaler.step(optimizer)
        scaler.update()
        taken += [False] * (step + 1 - len(taken))
    return {
        "taken": taken,
        "scale": scaler.get_scale(),
        "apart": apart([p for p in parameters if p not in set(sharded)]),
    }


def apart(parameters: list[nn.Parameter]) -> float | None:
    """Largest difference to rank 0's weights, Inf for NaN; of those that every rank has; None if there are none."""
    if not parameters:
        return None
    mine, first = beside_rank_0(parameters)
    return (mine - first).abs().max().nan_to_num(nan=math.inf).item()


def work(rank: Rank) -> dict[str, Any]:
    """Each case with each scaler."""
    data, only = digits(rank.device), sys.argv[1:]
    return {
        case: {
            name: train(rank, data.train_images, data.train_labels, make(), **how)
            for name, make in scalers(rank).items()
            if not only or name in only
        }
        for case, how in CASES.items()
    }


if __name__ == "__main__":
    answer(work)
