"""What the scaler race says in words: the finding, and one line a rule."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mpkit.plots.style import percent, power
from mpkit.race import Lap

FEW_STEPS, FEW_LOST = 0.01, 0.05  # of all steps; of the gradients: below both, a rule counts as doing well


def finding(laps: Mapping[str, Lap]) -> str:
    """The title: who skips most, who flushes most, who does neither."""
    if not laps:
        return "Choose a rule to race"
    steps = len(next(iter(laps.values())).scales)
    skips = max(laps, key=lambda name: laps[name].lost_steps)
    taken = {name: lap for name, lap in laps.items() if lap.lost_steps < steps}
    flushes = max(taken, key=lambda name: taken[name].mean_flushed, default=None)
    parts = []
    if laps[skips].lost_steps > FEW_STEPS * steps:
        lost = laps[skips].lost_steps
        parts.append(f"{skips} loses {'every step' if lost == steps else _steps(lost)}")
    if flushes is not None and laps[flushes].mean_flushed > FEW_LOST:
        parts.append(f"{flushes} flushes {percent(laps[flushes].mean_flushed)} of the gradients")
    well = [name for name, lap in laps.items() if lap.lost_steps <= FEW_STEPS * steps and lap.mean_flushed <= FEW_LOST]
    if not parts:
        return "Every rule here loses few steps and flushes little"
    return "; ".join([*parts, f"{' and '.join(well)} do well" if len(well) == 2 else _well(well)]).removesuffix("; ")


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def _well(names: list[str]) -> str:
    if not names:
        return "nobody does well"
    return f"{names[0]} does well" if len(names) == 1 else f"{len(names)} rules do well"


def log2_text(scale: float) -> str:
    """A scale as a power of two: 2¹⁶, or 2⁷·⁵ rounded to a tenth; 0 and ∞ as they are."""
    if scale == 0 or math.isinf(scale):
        return "0" if scale == 0 else "∞"
    exponent = math.log2(scale)
    return power(int(exponent)) if exponent == int(exponent) else f"2^{exponent:.1f}"


def row(name: str, lap: Lap) -> str:
    """One rule in a line: steps lost, share flushed, the last scale."""
    gave_up = "" if lap.gave_up is None else f", gives up at step {lap.gave_up}"
    flushed = "–" if lap.lost_steps == len(lap.scales) else f"{100 * lap.mean_flushed:.0f}%"
    return f"{name}: {_steps(lap.lost_steps)} lost, {flushed} flushed, ends at {log2_text(lap.scales[-1])}{gave_up}"
