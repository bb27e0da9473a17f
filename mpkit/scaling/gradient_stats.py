"""The gradients of a step in a few numbers: what statistics-driven scaling rules look at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from mpkit.histogram import ExponentHistogram
from mpkit.scaling.agreement import reduce
from mpkit.unwatched import unwatched

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class GradientStats:
    """Numbers of the unscaled gradients of one step.

    `amax`: the largest magnitude. `norm`: the Euclidean norm of all values together, in float32. Both are Inf or NaN if
    a gradient is, and the norm is Inf too where it leaves float32. `histogram`: counts per binade, or None where nobody
    asked for it.
    """

    amax: float
    norm: float
    histogram: ExponentHistogram | None = None

    @classmethod
    @unwatched
    def of(cls, tensors: Iterable[Tensor], histogram: bool = False) -> GradientStats:
        """Measure `tensors` (floating-point, any shapes) as one; reads them on the host. Nothing in: all zero."""
        values = [t.detach().coalesce().values() if t.is_sparse else t.detach() for t in tensors]
        values = [t.float() for t in values if t.numel()]
        if not values:
            return cls(0.0, 0.0, ExponentHistogram.of(torch.zeros(0)) if histogram else None)
        largest = torch.stack([t.abs().amax() for t in values]).amax()
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in values]))
        counts = [ExponentHistogram.of(t) for t in values] if histogram else []
        return cls(float(largest), float(norm), sum(counts[1:], counts[0]) if counts else None)

    def share_from(self, limit: float) -> float:
        """Share (0 to 1) of the non-zero values that are Inf, NaN or at least `limit` (> 0) in magnitude.

        Whole binades: a binade counts if its lower edge is at least `limit`. ValueError: no histogram was measured.
        """
        if self.histogram is None:
            raise ValueError("the histogram is missing; measure GradientStats.of(gradients, histogram=True).")
        lower = math.ceil(math.log2(limit))
        above = int(self.histogram.counts[self.histogram.log2_edges >= lower].sum())
        return (above + self.histogram.inf + self.histogram.nan) / max(self.histogram.nonzero, 1)

    def over_ranks(self, device: torch.device, groups: list[ProcessGroup]) -> GradientStats:
        """The same on every process of the groups: the largest amax and norm, and the counts of all.

        `device`: where this process keeps such numbers. The norm is that of one process, the one with the largest part
        under sharding.
        """
        if not groups:
            return self
        largest = torch.tensor([self.amax, self.norm], dtype=torch.float64, device=device)
        largest = largest.nan_to_num(nan=math.inf, posinf=math.inf)  # MAX over ranks may lose a NaN, never an Inf
        reduce(largest, groups)
        histogram = self.histogram
        if histogram is not None:
            counts = histogram.counts.to(device).clone()
            others = torch.tensor([histogram.zeros, histogram.inf, histogram.nan], dtype=torch.int64, device=device)
            reduce(counts, groups, dist.ReduceOp.SUM)
            reduce(others, groups, dist.ReduceOp.SUM)
            histogram = ExponentHistogram(counts.cpu(), *map(int, others.tolist()))
        amax, norm = largest.tolist()
        return GradientStats(amax, norm, histogram)

    def with_more(self, other: GradientStats) -> GradientStats:
        """The numbers of both sets of gradients together."""
        both = self.histogram is not None and other.histogram is not None
        amax = math.nan if math.isnan(self.amax) or math.isnan(other.amax) else max(self.amax, other.amax)
        histogram = self.histogram + other.histogram if both else None  # type: ignore[operator]
        return GradientStats(amax, math.hypot(self.norm, other.norm), histogram)
