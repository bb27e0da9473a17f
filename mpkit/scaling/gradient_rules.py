"""Rules that look at the gradients themselves instead of waiting for an overflow."""

import math
from dataclasses import dataclass
from typing import ClassVar

from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import (
    ScaleRule,
    ScaleState,
    as_float32,
    require_count,
    require_number,
    require_scale,
    require_seen,
)

UPPER_END = 2.0**13  # of FP16, for HistogramScale: an eighth of its largest value, at the nearest binade


@dataclass(frozen=True)
class LogMaxState(ScaleState):
    """Running averages of x = log2(largest gradient): fast, slow, of squares; and over how many steps."""

    mean: float = 0.0
    slow_mean: float = 0.0
    mean_square: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class LogMaxScale(ScaleRule):
    """Put mean + 3.09 standard deviations of log2(amax) at 2^16: OpenSeq2Seq's LogMax (automatic_loss_scaler.py).

    x = log2(amax) of the unscaled gradients. The mean is an exponential average with `beta1`, the variance one with
    `beta2`, both with Adam's bias correction. 3.09 is the 99.9th percentile of a normal distribution, so about one step
    in a thousand overflows. The scale is 2^(16 - (mean + 3.09 sd)) within the limits; that 16 is fixed in the source.

    A step with Inf or NaN counts x = 2^log_max: 65,536 by default, although x is a logarithm (`tf.pow(2., log_max)`,
    line 161 at 8681d381). So one overflow holds the scale at `min_scale` for thousands of steps. Probably x = 16 was
    meant; `log_max=4` gives that, and the rule then follows the gradients.

    A step whose gradients are all zero has no logarithm. The source lets -Inf into its averages and never recovers;
    here such a step changes nothing. ValueError: limits or factors that make no sense, 2^log_max beyond float32's.
    """

    reads: ClassVar[str] = "amax"
    init_scale: float = 1.0
    min_scale: float = 1.0
    max_scale: float = 2.0**14
    log_max: float = 16.0
    beta1: float = 0.99
    beta2: float = 0.999
    deviations: float = 3.09

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("init_scale", "min_scale", "max_scale"):
            require_scale(name, getattr(self, name))
        require_number("log_max", self.log_max, -127.0, 128.0, "between -127 and 128: 2**log_max is a float32", "16.0")
        require_number("deviations", self.deviations, -1024.0, 1024.0, "a number between -1024 and 1024", "3.09")
        for name in ("beta1", "beta2"):
            require_number(name, getattr(self, name), 0.0, 1.0, "above 0 and below 1", "0.99")
        if not self.min_scale <= self.init_scale <= self.max_scale:
            got = f"{self.min_scale!r}, {self.init_scale!r} and {self.max_scale!r}"
            raise ValueError(f"LogMaxScale needs min_scale <= init_scale <= max_scale, got {got}. Move one of them.")

    @property
    def floor(self) -> float | None:
        """The smallest scale that this rule can reach: `min_scale`."""
        return self.min_scale

    @property
    def ceiling(self) -> float | None:
        """The largest scale that this rule can reach: `max_scale`."""
        return self.max_scale

    def init(self) -> ScaleState:
        """Return `init_scale` and empty averages."""
        return LogMaxState(as_float32(self.init_scale))

    def update(self, state: ScaleState, found_inf: bool, seen: GradientStats | None = None) -> ScaleState:
        """Return the state after one step; `seen.amax` is the largest unscaled gradient."""
        if not isinstance(state, LogMaxState):
            raise TypeError(f"LogMaxScale continues from a LogMaxState, got {state!r}. Start from rule.init().")
        amax = math.inf if found_inf else require_seen(self, seen).amax
        if math.isnan(amax) or amax < 0:
            raise ValueError(
                f"a largest gradient must be at least 0, got {amax!r} in a step with found_inf=False. "
                "Pass found_inf=True for a step with Inf or NaN."
            )
        if amax == 0:
            return state
        x = 2.0**self.log_max if math.isinf(amax) else math.log2(amax)
        n = state.steps + 1
        mean = self.beta1 * state.mean + (1 - self.beta1) * x
        slow = self.beta2 * state.slow_mean + (1 - self.beta2) * x
        square = self.beta2 * state.mean_square + (1 - self.beta2) * x * x
        center, slow_center = mean / (1 - self.beta1**n), slow / (1 - self.beta2**n)
        spread = math.sqrt(max(square / (1 - self.beta2**n) - slow_center**2, 0.0))
        # Within float32's exponents, where 2.0**exponent cannot raise an OverflowError.
        exponent = min(max(16 - (center + self.deviations * spread), -149.0), 127.0)
        scale = min(max(2.0**exponent, self.min_scale), self.max_scale)
        return LogMaxState(as_float32(scale), 0, mean, slow, square, n)


@dataclass(frozen=True)
class HistogramScale(ScaleRule):
    """Halve if more than `share` of the gradients lie in FP16's upper end, else double: Graphcore's popart.

    Source: willow/src/popx/op/lossscaleupdatex.cpp. The upper end starts at an eighth of the format's largest value;
    here, where counts are kept by binade, at 2^13 = 8192 instead of 8188. It decides anew every `period` steps, has no
    dead zone, so it swings between two scales, and no limits but float32's. It tests nothing for Inf and skips nothing.
    """

    skips: ClassVar[bool] = False
    reads: ClassVar[str] = "histogram"
    init_scale: float = 1.0
    share: float = 1e-7
    period: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scale("init_scale", self.init_scale)
        require_number("share", self.share, 0.0, 1.0, "above 0 and below 1", "1e-7")
        require_count("period", self.period, "1")

    def init(self) -> ScaleState:
        """Return `init_scale`, rounded to float32."""
        return ScaleState(as_float32(self.init_scale))

    def update(self, state: ScaleState, found_inf: bool, seen: GradientStats | None = None) -> ScaleState:
        """Return the state after one step; `seen.histogram` counts the unscaled gradients."""
        seen = require_seen(self, seen)
        if state.growth_tracker + 1 < self.period:
            return ScaleState(state.scale, state.growth_tracker + 1)
        crowded = found_inf or seen.share_from(UPPER_END / state.scale) > self.share
        scale = as_float32(state.scale * (0.5 if crowded else 2.0))
        return ScaleState(scale if 0 < scale < math.inf else state.scale)
