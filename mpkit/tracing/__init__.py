"""Where did the first Inf or NaN come from? `trace(model)` watches a training step and names the cause."""

from mpkit.tracing.event import TraceEvent as TraceEvent
from mpkit.tracing.watch import Trace as Trace
from mpkit.tracing.watch import trace as trace
