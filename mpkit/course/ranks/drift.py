"""One rank of several under DDP: one of them skips a step that the others take. How far apart are the weights then?

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m mpkit.course.ranks.drift

GradScaler as it comes; the Inf is put into the last rank's gradients after the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit.course.nets.digits import digits
from mpkit.course.ranks.agreement import after_the_sum, ddp
from mpkit.course.ranks.rank import Rank, answer
from mpkit.course.ranks.replicas import beside_rank_0

SKIPPED, LATER, BATCHES = 30, (0, 8, 100), (16, 512)  # the step, counted from 0; when to look; images of a rank

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.1),
    "SGD, momentum": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=1e-3),
}


def train(rank: Rank, images: Tensor, labels: Tensor, make: Any, batch: int) -> dict[int, float]:
    """The largest distance to rank 0's weights, relative to their length: after the skipped step, and LATER steps."""
    net = ddp(rank)
    weights = list(net.parameters())
    optimizer, scaler = make(weights), torch.amp.GradScaler(rank.device.type)
    found = {}
    for step in range(SKIPPED + max(LATER) + 1):
        places = (torch.arange(batch, device=rank.device) + (step * rank.size + rank.number) * batch) % len(labels)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images[places]), labels[places])
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if step == SKIPPED and rank.number == rank.size - 1:
            after_the_sum(weights)
        scaler.step(optimizer)
        scaler.update()
        if step - SKIPPED in LATER:
            found[step - SKIPPED] = distance(weights)
    return found


def distance(weights: list[nn.Parameter]) -> float:
    """Of the rank that is farthest from rank 0, relative to the length of rank 0's weights."""
    mine, first = beside_rank_0(weights)
    far = (mine - first).norm() / first.norm()
    dist.all_reduce(far, dist.ReduceOp.MAX)
    return float(far)


def work(rank: Rank) -> dict[str, Any]:
    """Each optimizer, with small batches and with large ones."""
    data = digits(rank.device)
    return {
        name: {batch: train(rank, data.train_images, data.train_labels, make, batch) for batch in BATCHES}
        for name, make in OPTIMIZERS.items()
    }


if __name__ == "__main__":
    answer(work)
