"""Divide an optimizer's gradients by the scale and test them for Inf and NaN, in one pass over the memory.

The same kernel as in `torch.amp.GradScaler`. What costs there is the Python around it: here the parameters are sorted
once.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpkit import overflow
from mpkit.scaling.bucket import Bucket, Gathered, local
from mpkit.scaling.evidence import Evidence
from mpkit.scaling.gradient_marks import GradientMarks
from mpkit.scaling.gradient_stats import GradientStats
from mpkit.trees import is_distributed, to_device
from mpkit.unwatched import unwatched

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_grad_of, _dtype_of, _device_of = map(operator.attrgetter, ("grad", "dtype", "device"))


class Stage(Enum):
    """How far one optimizer is in the current iteration."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


class GradientPlan:
    """One optimizer's parameters, sorted once, and the stage that the optimizer is in.

    `found_inf`: 0-dim float32 on `device`, 1 once a check found Inf or NaN, else 0. It is one tensor for good,
    zeroed between iterations: a step captured in a CUDA graph writes to it in every replay.
    `groups`: those whose processes agree on it.
    """

    def __init__(self, params: list[Tensor], device: torch.device, groups: Sequence[ProcessGroup] = ()) -> None:
        self.stage = Stage.READY
        self.captured = False  # a CUDA graph writes to found_inf, so this plan must stay
        self.found_inf = torch.zeros((), dtype=torch.float32, device=device)
        self.gathered: Gathered = []
        self.evidence = Evidence([], [])
        self.marks, self.scaled_since = GradientMarks(), False
        self.optimizer: Callable[[], object] = lambda: None  # a weak reference to the one that stepped
        self.params, self.groups = params, list(groups)
        self.buckets: list[Bucket] = []
        for kind in dict.fromkeys((p.device, p.dtype) for p in params):
            part = [p for p in params if (p.device, p.dtype) == kind]
            self.buckets.append(Bucket(*kind, part, plain=not any(map(is_distributed, part))))

    def is_for(self, params: list[Tensor]) -> bool:
        """Tell whether these are the plan's own parameters, in its order."""
        return len(params) == len(self.params) and all(map(operator.is_, params, self.params))

    def fits(self) -> bool:
        """Tell whether the parameters still have the device and the dtype by which they were sorted."""
        return all(
            [*map(_dtype_of, b.params)].count(b.dtype) == [*map(_device_of, b.params)].count(b.device) == len(b.params)
            for b in self.buckets
        )  # counted in C: a loop in Python takes four times as long

    def first_float16(self) -> Tensor | None:
        """Return a float16 parameter that has a gradient, if there is one."""
        narrow = (p for bucket in self.buckets if bucket.dtype == torch.float16 for p in bucket.params)
        return next((p for p in narrow if p.grad is not None), None)

    def mark(self) -> None:
        """Note that the gradients are divided as they stand now, and tell `evidence` of what they had in them."""
        self.marks, self.scaled_since = GradientMarks(self.params), False
        self.evidence.marks = self.marks

    def first_divided(self, by: GradientPlan) -> Tensor | None:
        """Return a parameter whose gradient was divided as `by`'s and was not zeroed, replaced or written anew since.

        Only a write that followed a `scale` counts: clipping writes too, and leaves a gradient divided.
        """
        standing = by.marks.standing()
        for p in self.params:
            version = standing.get(id(p.grad))  # of None there is none
            if version is not None and (not by.scaled_since or p.grad._version == version):  # type: ignore[union-attr]
                return p
        return None

    def is_over(self, optimizer: object) -> bool:
        """Has another optimizer stepped by this plan, and are the gradients new since? Then this one needs its own."""
        if self.stage is not Stage.STEPPED or self.optimizer() in (None, optimizer):
            return False
        return self.first_divided(self) is None and any(p.grad is not None for p in self.params)

    def reset(self) -> None:
        """Be ready for the next iteration, and let go of this one's gradients."""
        self.stage, self.gathered, self.evidence, self.marks = Stage.READY, [], Evidence([], []), GradientMarks()
        self.found_inf.zero_()

    @unwatched
    @torch.no_grad()
    def check_and_unscale(self, inv_scale: Tensor) -> bool:
        """Multiply the gradients by `inv_scale` in place; set `found_inf` if one was not finite before that.

        `inv_scale`: 0-dim float32 on `found_inf`'s device. Returns whether there was any gradient. No wait for the
        device, except to coalesce sparse gradients.
        """
        self.gathered = []
        if self.found_inf.is_cuda and torch.cuda.is_current_stream_capturing():
            self.captured = True
        for bucket in self.buckets:
            grads = list(map(_grad_of, bucket.params))
            self.gathered.append((bucket, grads))
            _check_bucket(bucket, grads, inv_scale, self.found_inf)
        return any(grad is not None for _, grads in self.gathered for grad in grads)

    def stats(self, histogram: bool) -> GradientStats:
        """Measure this process's gradients of the last `check_and_unscale`. Waits for the device."""
        return GradientStats.of((local(g) for _, found in self.gathered for g in found if g is not None), histogram)


def _check_bucket(bucket: Bucket, grads: list[Tensor | None], inv_scale: Tensor, found_inf: Tensor) -> None:
    if bucket.plain and bucket.device == found_inf.device:
        try:
            torch._amp_foreach_non_finite_check_and_unscale_(grads, found_inf, inv_scale)  # type: ignore[arg-type]
            return
        except (TypeError, NotImplementedError):  # a None, a sparse gradient, a dtype: refused before any work
            bucket.plain = False
    values = [local(g) for g in grads if g is not None and not g.is_sparse] + _coalesced_values(bucket, grads)
    if not values:
        return
    if bucket.device == found_inf.device:
        _check_and_unscale(values, found_inf, inv_scale)
        return
    elsewhere = torch.zeros((), dtype=torch.float32, device=bucket.device)
    _check_and_unscale(values, elsewhere, to_device(inv_scale, bucket.device))
    found_inf.copy_(torch.maximum(found_inf, to_device(elsewhere, found_inf.device)))


def _coalesced_values(bucket: Bucket, grads: list[Tensor | None]) -> list[Tensor]:
    """Sum the duplicates of sparse gradients, because that sum may overflow; return the values to test."""
    values = []
    for index, grad in enumerate(grads):
        if grad is not None and grad.is_sparse:
            grads[index] = bucket.params[index].grad = coalesced = grad.coalesce()
            values.append(coalesced._values())
    return values


def _check_and_unscale(grads: list[Tensor], found_inf: Tensor, inv_scale: Tensor) -> None:
    if _kernel_supports(grads[0].device.type, grads[0].dtype):
        torch._amp_foreach_non_finite_check_and_unscale_(grads, found_inf, inv_scale)
        return
    found_inf.copy_(torch.maximum(found_inf, overflow.found_inf(grads)))
    for grad in grads:  # the product in float32: inv_scale itself may not fit the narrow dtype
        grad.copy_(grad.float() * inv_scale)


@functools.cache
def _kernel_supports(device_type: str, dtype: torch.dtype) -> bool:
    """Try torch's kernel on one value: some builds have it for bfloat16 on a GPU, some do not."""
    try:
        probe = torch.zeros(1, dtype=dtype, device=device_type)
        flag, one = torch.tensor([0.0, 1.0], dtype=torch.float32, device=device_type).unbind()
        torch._amp_foreach_non_finite_check_and_unscale_([probe], flag, one)
    except (NotImplementedError, RuntimeError):
        return False
    return True


@unwatched
def reciprocal(scale: Tensor) -> Tensor:
    """Return 1 / scale. One correctly rounded division gives the bits of torch's way, which goes through float64."""
    return scale.reciprocal()
