"""One rank of many: what happens to gradients on their way into the mean over the ranks.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m mpkit.course.ranks.sums
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

import mpkit
from mpkit.course.ranks.rank import Rank, answer
from mpkit.course.ranks.replicas import beside_rank_0, local, net

MICRO, BATCH = 4, 16
VALUES = {"40000": 40000.0, "2^-24": 2.0**-24}
LARGE = 40000.0


def batch(rank: Rank, number: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A batch of this rank's own."""
    draw = torch.Generator().manual_seed(1000 * number + rank.number)
    x, y = torch.randn(BATCH, 64, generator=draw), torch.randint(10, (BATCH,), generator=draw)
    return x.to(rank.device, dtype), y.to(rank.device)


def gradients(model: nn.Module) -> Tensor:
    """All of them in one row, whole."""
    grads = [p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for p in model.parameters()]
    return torch.cat([grad.flatten() for grad in grads])  # type: ignore[union-attr]


def finite(model: nn.Module) -> bool:
    """Whether all gradients that this rank holds are."""
    grads = [local(p.grad) for p in model.parameters()]
    return all(bool(grad.isfinite().all()) for grad in grads if grad is not None)


# ---- accumulation ----


def accumulation(rank: Rank) -> dict[str, Any]:
    """Four micro-batches with a sum over the ranks after each, and with one after the last, by DDP and by FSDP2."""
    found: dict[str, Any] = {}
    for name in ("DDP", "FSDP2"):
        each, once = (_accumulated(rank, name, last) for last in (False, True))
        found[name] = {
            "sums": [each["sums"], once["sums"]],
            "difference": ((each["gradients"] - once["gradients"]).norm() / each["gradients"].norm()).item(),
        }
    return {**found, "Inf in the first": _seen_late(rank)}


def _accumulated(rank: Rank, name: str, last_only: bool) -> dict[str, Any]:
    model: Any = net(rank)
    sums, counter = 0, count()
    if name == "DDP":
        model = DistributedDataParallel(model)
        model.register_comm_hook(None, lambda state, bucket: (next(counter), allreduce_hook(state, bucket))[1])
    else:
        fully_shard(model, mesh=rank.mesh, reshard_after_forward=False)
    for number in range(MICRO):
        x, y = batch(rank, number)
        quiet = last_only and number < MICRO - 1
        if name == "FSDP2":
            model.set_requires_gradient_sync(not quiet)
        seen: Any = CommDebugMode()  # type: ignore[no-untyped-call]
        with model.no_sync() if quiet and name == "DDP" else nullcontext(), seen:
            (F.cross_entropy(model(x), y) / MICRO).backward()  # type: ignore[no-untyped-call]
        sums += sum(n for op, n in seen.get_comm_counts().items() if "reduce_scatter" in str(op))
    return {"sums": sums if name == "FSDP2" else next(counter), "gradients": gradients(model)}


def _seen_late(rank: Rank) -> dict[str, Any]:
    """An Inf in the last rank's first micro-batch, under no_sync: after which does this rank see it? And who skips?"""
    model = DistributedDataParallel(net(rank))
    scaler, optimizer = mpkit.LossScaler(rank.device.type), torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for number in range(MICRO):
        x, y = batch(rank, number)
        if number == 0 and rank.number == rank.size - 1:
            x[0, 0] = math.inf
        with model.no_sync() if number < MICRO - 1 else nullcontext():
            scaler.scale(F.cross_entropy(model(x), y) / MICRO).backward()
        seen.append(finite(model))
    stepped = scaler.step(optimizer).stepped
    scaler.update()
    return {"finite": seen, "stepped": stepped, "scale": scaler.get_scale()}


# ---- uneven inputs ----


def uneven(rank: Rank) -> dict[str, Any]:
    """Each rank has a batch more than the one before it; `join` lets those that are done answer for the others' sums.

    The scaler comes as it is: a group would wait for ranks that have left. The Inf is on rank 0 in its second batch.
    """
    model = DistributedDataParallel(net(rank))
    scaler, optimizer = mpkit.LossScaler(rank.device.type), torch.optim.SGD(model.parameters(), lr=0.1)
    stepped = []
    with model.join():
        for number in range(3 + rank.number):
            x, y = batch(rank, number)
            if (rank.number, number) == (0, 1):
                x[0, 0] = math.inf
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            stepped.append(scaler.step(optimizer).stepped)
            scaler.update()
    mine, first = beside_rank_0(model.parameters())
    return {"stepped": stepped, "scale": scaler.get_scale(), "same weights": torch.equal(first, mine)}


# ---- where to divide ----


def division(rank: Rank) -> dict[str, Any]:
    """The mean over ranks that all have the same value: what comes out, by format and by when it is divided."""
    n = rank.size
    before = {"before": float(n), "√N and √N": math.sqrt(n), "after": 1.0}
    found: dict[str, Any] = {}
    for fmt, dtype in (("FP16", torch.float16), ("BF16", torch.bfloat16)):
        for name, value in VALUES.items():
            for when, factor in before.items():
                t = torch.full((4,), value, dtype=dtype, device=rank.device) / factor
                dist.all_reduce(t)
                found[f"{fmt}, {name}, {when}"] = (t / (n / factor))[0].item()
    return {"mean": found, "FSDP2": fsdp_division(rank)}


def fsdp_division(rank: Rank) -> dict[str, bool]:
    """Whether FSDP2's gradients of 40000 on each rank, summed in FP16, stay finite: as it comes, and undivided."""
    found = {}
    for name, factor in (("as it comes", None), ("not divided", 1.0)):
        torch.manual_seed(0)
        model: Any = nn.Linear(4, 4, bias=False, device=rank.device)
        fully_shard(model, mesh=rank.mesh, mp_policy=MixedPrecisionPolicy(torch.float16, torch.float16))
        if factor is not None:
            model.set_gradient_divide_factor(factor)
            model.set_force_sum_reduction_for_comms(True)
        (model(torch.ones(1, 4, device=rank.device)).float() * LARGE).sum().backward()
        found[name] = finite(model)
    return found


# ---- the format of the sum ----


def format_of_the_sum(rank: Rank) -> dict[str, float]:
    """Relative error of FSDP2's mean of BF16 gradients, summed in FP32 and in BF16; judged by the mean in FP64."""
    x, y = batch(rank, 0, torch.bfloat16)
    alone = net(rank, torch.bfloat16)
    F.cross_entropy(alone(x), y).backward()  # type: ignore[no-untyped-call]
    exact = gradients(alone).double().cpu()
    if rank.device.type == "cuda":
        exact = exact.to(rank.device)
    dist.all_reduce(exact)
    exact /= rank.size
    found = {}
    for name, dtype in (("FP32", torch.float32), ("BF16", torch.bfloat16)):
        model: Any = net(rank)
        fully_shard(model, mesh=rank.mesh, mp_policy=MixedPrecisionPolicy(torch.bfloat16, dtype))
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        found[name] = ((gradients(model).double() - exact).norm() / exact.norm()).item()
    return found


def work(rank: Rank) -> dict[str, Any]:
    """All four."""
    return {
        "accumulation": accumulation(rank), "uneven": uneven(rank), "division": division(rank),
        "format": format_of_the_sum(rank),
    }  # fmt: skip


if __name__ == "__main__":
    answer(work)
