"""Numbers and events in the words of a diagnosis."""

import math
from collections.abc import Sequence

from mpkit.diagnosis.turn import SCALER
from mpkit.formats import FP16
from mpkit.tracing.event import TraceEvent
from mpkit.tracing.names import OUTSIDE

MOST = 12  # calls


def source(event: TraceEvent | None) -> str:
    """Where an event is: operation, module and line."""
    if event is None:
        return ""
    what = f"{event.operation} {_inside(event)} ({event.line})"
    return f"gradient of {what}" if event.phase == "backward" else what


def short(event: TraceEvent | None) -> str:
    """What an event is, in a sentence with its numbers."""
    if event is None:
        return "values leave the format"
    what = f"the gradient of {event.operation}" if event.phase == "backward" else event.operation
    if event.kind == "input":
        return f"{event.operation} of {event.module} holds {counted(event.count)} Inf or NaN"
    if event.dtype == "float16" and FP16.max < event.input_amax < math.inf:
        return f"{told(event.input_amax)} goes into {what}, and FP16 ends at 65,504"
    found = " and ".join(f"{n:,} {name}" for n, name in ((event.inf_count, "Inf"), (event.nan_count, "NaN")) if n)
    found = found or "values too large"
    return f"{what} makes {found} in {event.dtype}{_end(event)} from inputs up to {told(event.input_amax)}"


def _inside(event: TraceEvent) -> str:
    return "outside of the model" if event.module == OUTSIDE else f"in {event.module}"


def _end(event: TraceEvent) -> str:
    return ", which ends at 65,504," if event.dtype == "float16" and event.inf_count else ""


def held(what: str) -> str:
    """One of `Run.bad`, in a sentence."""
    kind, _, name = what.partition(" ")
    return f"the gradient of {name}" if kind == "gradient" else f"the {what}"


def begun(text: str) -> str:
    """The beginning of a sentence."""
    return text[:1].upper() + text[1:]


def counted(values: int) -> str:
    """So many values that are …"""
    return f"{values:,} values that are" if values != 1 else "1 value that is"


def told(value: float) -> str:
    """A number in a sentence."""
    return f"{value:,.0f}" if 10 <= abs(value) < 1e7 else f"{value:.3g}"


def called(calls: Sequence[str]) -> str:
    """The calls of a script, in a line; of a long one the last."""
    shown = [f"scaler.{call}" if call in SCALER else call for call in calls[-MOST:]]
    return "… → " * (len(calls) > MOST) + " → ".join(shown) or "none"


def listing(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence; of many the first, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
