"""Numbers and events in the words of a diagnosis."""

import math

from mpkit.formats import FP16
from mpkit.tracing.event import TraceEvent


def source(event: TraceEvent | None) -> str:
    """Where an event is: operation, module and line."""
    if event is None:
        return ""
    what = f"{event.operation} in {event.module} ({event.line})"
    return f"gradient of {what}" if event.phase == "backward" else what


def short(event: TraceEvent | None) -> str:
    """What an event is, in a sentence with its numbers."""
    if event is None:
        return "values leave the format"
    what = f"the gradient of {event.operation}" if event.phase == "backward" else event.operation
    if event.kind == "input":
        return f"{event.operation} of {event.module} holds {event.count:,} values that are Inf or NaN"
    if event.dtype == "float16" and FP16.max < event.input_amax < math.inf:
        return f"{told(event.input_amax)} goes into {what}, and FP16 ends at 65,504"
    found = " and ".join(f"{n:,} {name}" for n, name in ((event.inf_count, "Inf"), (event.nan_count, "NaN")) if n)
    return f"{what} makes {found or 'values too large'} in {event.dtype} of inputs up to {told(event.input_amax)}"


def told(value: float) -> str:
    """A number in a sentence."""
    return f"{value:,.0f}" if 10 <= abs(value) < 1e7 else f"{value:.3g}"
