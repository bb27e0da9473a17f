"""What the owner's curves show, as facts that speak against a diagnosis. Everybody sees them: they need no test."""

from functools import cached_property

from mpkit.course.lesson_10.clinic_words import LEVEL, bad_steps, course, skipped
from mpkit.course.lesson_10.waiting_room import Curves

STILL = 3  # steps that are skipped one after another: no probe


class CurveFacts:
    """Facts of these curves. `changing`: every step has a batch of its own."""

    def __init__(self, curves: Curves, changing: bool) -> None:
        self.curves, self.changing = curves, changing

    @cached_property
    def stays_bad(self) -> str:
        """Which curve is Inf or NaN, in words."""
        return next(
            (
                course("the loss" if name == "loss" else name, values)
                for name, values in self.curves.items()
                if bad_steps(values)
            ),
            "",
        )

    @cached_property
    def skips_on(self) -> bool:
        """Is every step at the end, or at the beginning, skipped?"""
        taken = self.curves.get("stepped", [1.0])
        return not any(taken[-STILL:]) or not any(taken[:STILL])

    @cached_property
    def flat(self) -> str:
        """That the loss stays where it is, in words; "" if it moves."""
        loss = self.curves["loss"]
        still = not bad_steps(loss) and max(loss) - min(loss) <= LEVEL * abs(loss[0])
        return f"{course('the loss', loss).replace(' at every step', '')} for {len(loss)} steps" if still else ""

    @cached_property
    def learns(self) -> bool:
        """Does the loss of one and the same batch change, or that of many fall?"""
        loss = self.curves["loss"]
        return not bad_steps(loss) and (loss[-1] < 0.7 * loss[0] if self.changing else not self.flat)

    @cached_property
    def rate_moves_at_skips(self) -> bool:
        """Does the learning rate change at steps that are skipped?"""
        rate = self.curves.get("learning rate", [])
        return any(k + 1 < len(rate) and rate[k] != rate[k - 1] for k in skipped(self.curves) if rate and k)
