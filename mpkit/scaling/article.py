"""The update rule that the article prints, built literally."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import ScaleRule, ScaleState, as_float32, require_scale, require_seen


@dataclass(frozen=True)
class ArticleRule(ScaleRule):
    """s becomes s/2 if g > 1/(2s) or g < -1/(2s), else it stays: the article's section 4.2, claim C14.

    There g is "the current gradient's norm". The article does not say whether before or after unscaling, so `norm`
    chooses. A norm is never negative, so the second condition never holds, and no condition lets the scale grow.
    A step with Inf or NaN counts as an infinite norm. ValueError: a norm of NaN, or below 0, in a finite step.
    """

    reads: ClassVar[str] = "norm"
    init_scale: float = 2.0**16
    norm: Literal["unscaled", "scaled"] = "unscaled"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scale("init_scale", self.init_scale)
        if self.norm not in ("unscaled", "scaled"):
            raise ValueError(f"norm must be 'unscaled' or 'scaled', got {self.norm!r}.")

    def init(self) -> ScaleState:
        """Return the first scale, rounded to float32."""
        return ScaleState(as_float32(self.init_scale))

    def update(self, state: ScaleState, found_inf: bool, seen: GradientStats | None = None) -> ScaleState:
        """Return the state after one step; `seen.norm` is the unscaled norm."""
        norm = math.inf if found_inf else require_seen(self, seen).norm
        if math.isnan(norm) or norm < 0:
            raise ValueError(
                f"a gradient norm must be at least 0, got {norm!r} in a step with found_inf=False. "
                "Pass found_inf=True for a step with Inf or NaN."
            )
        s = state.scale
        g = norm * s if self.norm == "scaled" else norm
        limit = 1 / (2 * s) if s else math.inf  # a scale that was halved to 0 stays there
        return ScaleState(as_float32(s / 2) if g > limit or g < -limit else s)
