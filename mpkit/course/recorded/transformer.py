"""Figures that `python -m mpkit record-transformer` measured on a named GPU: speed, memory, energy and final losses."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mpkit.course.recorded.machine import MachineRecord


@dataclass(frozen=True)
class TransformerRecord(MachineRecord):
    """One machine's figures.

    `speed[model][way]`: tokens_per_s, ms (median of a step), joules_per_million (tokens; None without a counter),
    peak_GiB. `sizes[model]`: parameters, layers, width, heads, context, batch. `losses[model][run][seed]`: held-out
    loss in nats of the character models after `steps` steps, to be compared within `margin` nats. `curves`: the same,
    training loss every 20 steps, mean over seeds.
    """

    KIND: ClassVar[str] = "transformer"
    MACHINE: ClassVar[str] = "nvidia_h100_80gb_hbm3"
    steps: int
    margin: float
    sizes: dict[str, dict[str, int]]
    speed: dict[str, dict[str, dict[str, Any]]]
    losses: dict[str, dict[str, list[float]]]
    curves: dict[str, dict[str, list[float]]]

    def speedup(self, model: str, way: str, over: str = "fp32") -> float:
        """How many times as many tokens a second as another way."""
        rows = self.speed[model]
        return float(rows[way]["tokens_per_s"] / rows[over]["tokens_per_s"])
