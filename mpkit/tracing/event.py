"""What a trace reports, and how it tells a cause from its consequences."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpkit.formats import FP32, FloatFormat
from mpkit.overflow import tally
from mpkit.trees import is_gone

# Bad values went in, so bad values came out: nobody's fault, not recorded.
CONSEQUENCE = "consequence"


@dataclass
class Where:
    """One operation of the forward pass: what is needed to name it again when its gradient is computed."""

    module: str
    operation: str
    line: str
    is_cast: bool = False  # to a format of its own, so that no other is asked of the result
    causes: frozenset[Any] = frozenset()  # findings from which its bad forward result comes, and so its bad gradient


@dataclass(frozen=True)
class TraceEvent:
    """One place where values left the format.

    kind:
        "overflow": finite in, Inf out (or, with a format, too large for it). "invalid": no NaN in, NaN out.
        "saturated": too large for a format without Inf. "underflow": every non-zero value would become 0.
        "input": the data, a parameter or a buffer was bad already; `operation` names it.
        "propagated": an Inf that was reported before became NaN.
    phase: "forward" or "backward". In the backward pass `module`, `operation` and `line` are those of the forward
        operation whose gradient it is.
    module: path as in `model.named_modules()`, "(model)" for the model itself, "(outside the model)" for the rest.
    line: "file name:line" of the user's code that asked for the operation.
    shape, dtype: of the first bad result. `count`: how many of its elements the event is about.
    inf_count, nan_count: Inf and NaN in it now, not predicted ones.
    input_amax, output_amax: largest magnitude that went in (0.0 without tensors) and came out; may be Inf or NaN.
    format: name of the format whose limits were asked for, or None.
    """

    kind: str
    phase: str
    module: str
    operation: str
    line: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    inf_count: int
    nan_count: int
    input_amax: float
    output_amax: float
    format: str | None

    def __str__(self) -> str:
        what = f"{self.operation} in {self.module}"
        if self.phase == "backward":
            what = f"the gradient of {what}"
        predicted = self.kind == "overflow" and not self.inf_count and not self.nan_count
        kind = "would overflow" if predicted else self.kind
        return f"{kind} in the {self.phase} pass: {what} ({self.line}) {self._finding()}"

    def _finding(self) -> str:
        total = math.prod(self.shape)
        made = {
            "underflow": f"turns all {self.count:,} non-zero of {total:,} values into 0",
            "saturated": f"cuts {self.count:,} of {total:,} values",
            "input": f"holds {self.count:,} bad of {total:,} values",
        }
        parts = [f"{n:,} {name}" for n, name in ((self.inf_count, "Inf"), (self.nan_count, "NaN")) if n]
        finding = made.get(self.kind, f"makes {self.count:,} of {total:,} values too large")
        if parts and self.kind != "input":
            finding = f"makes {' and '.join(parts)} of {total:,} values"
        fmt = f" for {self.format}" if self.format and not parts else ""
        sizes = f"largest input {self.input_amax:.3g}, largest output {self.output_amax:.3g}"
        if self.kind == "input":
            sizes = f"largest value {self.output_amax:.3g}"
        return f"{finding}{fmt}; {self.dtype} {self.shape}, {sizes}."


def describe(
    kind: str, phase: str, where: Where, results: list[tuple[Tensor, float]], input_amax: float, fmt: FloatFormat | None
) -> TraceEvent:
    """The event that the worst of these results, given with their amax, is the sign of. Waits for the device."""
    tensor, amax = min(results, key=lambda pair: WORST_FIRST.index(condition(pair[1], fmt)))
    # Of memory that was given back since, one value is known.
    there = torch.full((1,), amax, dtype=tensor.dtype) if is_gone(tensor) else tensor
    counts = tally(there, fmt or FP32)
    wild = counts.inf_count + counts.nan_count
    beyond = counts.flushed_count if kind == "underflow" else wild + counts.overflowed_count
    return TraceEvent(
        kind=kind,
        phase=phase,
        module=where.module,
        operation=where.operation,
        line=where.line,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        count=beyond if fmt else wild,
        inf_count=counts.inf_count,
        nan_count=counts.nan_count,
        input_amax=input_amax,
        output_amax=amax,
        format=fmt.name if fmt else None,
    )


WORST_FIRST = ("nan", "inf", "over", "under", "fine")  # what `condition` says
# What masks are filled with; FP16's own end is an ordinary number elsewhere, and fits.
ENDS = frozenset(torch.finfo(dtype).max for dtype in (torch.bfloat16, torch.float32, torch.float64))
LARGE = frozenset({"nan", "inf", "over"})


def condition(amax: float, fmt: FloatFormat | None) -> str:
    """One word for a tensor with this largest magnitude: nan, inf, over, under or fine."""
    if math.isnan(amax):
        return "nan"
    if math.isinf(amax):
        return "inf"
    if fmt and (amax > fmt.overflow_at or (fmt.midpoint_overflows and amax == fmt.overflow_at)):
        return "over"
    return "under" if fmt and 0 < amax <= fmt.flush_at else "fine"


def judge(outputs: Iterable[float], inputs: Iterable[float], fmt: FloatFormat | None, known: bool) -> str | None:
    """The kind of event in an operation with these largest magnitudes, CONSEQUENCE, or None if all is well.

    `known` says that an earlier event explains an Inf among the inputs.
    """
    after = {condition(amax, fmt) for amax in outputs}
    before = {condition(amax, fmt) for amax in inputs}
    if "nan" in after:
        if "nan" in before:
            return CONSEQUENCE
        return "propagated" if "inf" in before and known else "invalid"
    if "inf" in after:
        return CONSEQUENCE if before & {"nan", "inf"} else "overflow"
    if "over" in after and fmt:
        if before & {"nan", "inf", "over"}:
            return CONSEQUENCE
        return "overflow" if fmt.has_inf else "saturated"
    if "under" in after:
        return CONSEQUENCE if "under" in before else "underflow"
    return None


def deliberate(scalars: Iterable[float]) -> bool:
    """True if one of the scalars among the arguments is Inf, NaN or a format's end: the code asked for the result."""
    return any(not math.isfinite(scalar) or abs(scalar) in ENDS for scalar in scalars)
