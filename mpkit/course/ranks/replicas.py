"""What the ranks of several scripts have in common: a small network, and a look at how far its copies are apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mpkit.course.ranks.rank import Rank


def net(rank: Rank, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    """64-32-10, the same on every rank."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).to(rank.device, dtype)


def local(tensor: Any) -> Tensor:
    """This rank's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def beside_rank_0(parameters: Iterable[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """This rank's values of these parameters in one row, and rank 0's. Every rank must call this."""
    mine = torch.cat([local(p).flatten() for p in parameters])
    first = mine.clone()
    dist.broadcast(first, 0)
    return mine, first
