"""The panel of lesson 11: ranks that train together, who of them skips, and how far their weights drift apart."""

from typing import Any

from mpkit import BF16, FP16, FP32
from mpkit.course import markup
from mpkit.course.lesson_11.rank_simulator_picture import RankSimulatorFigure
from mpkit.course.lesson_11.rank_simulator_words import (
    UNSEEN,
    about,
    by_rank,
    describe,
    headline,
    how_the_mean_is_made,
    numbers,
)
from mpkit.course.lesson_11.simulated_ranks import AGREEMENTS, BIRTHS, DIVISIONS, MOST, Run, Setup, simulate
from mpkit.course.panels.controls import buttons, whole_slider
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import FormatSetting, Setting


class RankSimulatorPanel(PicturePanel):
    """Two to eight ranks over 24 steps: who skips, and what becomes of the weights. `run` holds the numbers.

    Args:
        start: first values of some settings, by name. ValueError, TypeError: the panel does not offer them.
    """

    agreement = Setting(
        AGREEMENTS, buttons("how they agree", "100%", 118, "how a rank learns that it must skip", button="auto"),
        doc="How the ranks agree on a skip.",
    )  # fmt: skip
    born = Setting(
        BIRTHS, buttons("Inf is born", "100%", 118, "where the Inf comes from, at steps 6 and 15", button="auto"),
        doc="Where the Inf comes from.",
    )  # fmt: skip
    ranks = Setting(range(2, MOST + 1), whole_slider("ranks", 352, 118), 4, doc="How many ranks train together.")
    divide = Setting(
        DIVISIONS, buttons("divide", 300, 60, "when the sum becomes a mean", button=64),
        doc="Whether each rank divides before the sum, after it, or by √N at both.",
    )  # fmt: skip
    reduce = FormatSetting(
        (FP32, FP16, BF16), buttons("sum in", 300, 60, "the format in which gradients are sent and added", button=64),
        doc="The format in which gradients are sent and added.",
    )  # fmt: skip
    rows, drawn_by = (("agreement",), ("born",), ("ranks", "divide", "reduce")), RankSimulatorFigure

    def __init__(self, **start: Any) -> None:
        self._runs: dict[Setup, Run] = {}
        super().__init__(**start)

    def look(self) -> None:
        """Train, unless these settings were seen before."""
        setup = Setup(self.ranks, self.agreement, self.born, self.divide, self.reduce)
        if setup not in self._runs:
            self._runs[setup] = simulate(setup)
        self.run = self._runs[setup]

    def draw(self) -> Any:
        """Ranks by steps, the distance, and the numbers."""
        words = by_rank(self.run), how_the_mean_is_made(self.run.setup), numbers(self.run)
        return self.figure.show(self.run, self.headline(), about(self.run.setup), *words)

    def show(self) -> None:
        """Show it; the line of words is for screen readers, for the picture has it as its title."""
        super().show()
        self.words.value = markup.status(self.said(), aria_live=self.announce, style=UNSEEN)

    def headline(self) -> str:
        """Who skips, and what becomes of the weights."""
        return headline(self.run)

    def summary(self) -> str:
        """The picture in words."""
        return describe(self.run)

    def said(self) -> str:
        """The finding alone: the numbers stand in the picture."""
        return f"{self.headline()}."

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        finding, _, rest = self.summary().partition(". ")
        return (
            f"{finding}. Above: a row for each rank and a column for each of 24 steps, stepped or skipped. Below: the "
            f"largest distance between two ranks' weights after each step. {rest}"
        )
