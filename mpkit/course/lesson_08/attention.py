"""The attention panel of lesson 08: head size, growth, where the scores are scaled, and who computes the softmax."""

from typing import Any

from mpkit import BF16, FP16
from mpkit.course.lesson_08.attention_picture import AttentionFigure, count, headline
from mpkit.course.lesson_08.trial import SCALINGS, SOFTMAXES, Scaling, Softmax, attention_trial
from mpkit.course.panels.controls import buttons, slider
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting
from mpkit.course.pictures.style import percent

HEAD_SIZES = (16, 32, 64, 128, 256)
DEVIATIONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 45.0, 64.0, 128.0, 256.0)


class AttentionPanel(PicturePanel):
    """What FP16 and BF16 make of one attention, in `trials` by format; see `attention_trial`."""

    head_size = Setting(HEAD_SIZES, slider("head size d", 430, 150), 64, doc="Numbers in a query and in a key.")
    deviation = Setting(
        DEVIATIONS, slider("spread of q and k", 430, 150), 45.0, text="{:g}".format,
        doc="Standard deviation of queries and keys.",
    )  # fmt: skip
    scaling = Setting[Scaling](
        SCALINGS, buttons("divide by √d", 330, 90, button="auto"), "after", doc="Where scores are divided by √d."
    )
    softmax = Setting[Softmax](
        SOFTMAXES, buttons("softmax", 420, 62, button="auto"), doc="Where the softmax is computed."
    )
    rows, drawn_by = (("head_size", "deviation"), ("scaling", "softmax")), AttentionFigure

    def __init__(
        self, head_size: int = 64, deviation: float = 45.0, scaling: Scaling = "after", softmax: Softmax = "in FP32"
    ) -> None:
        super().__init__(head_size=head_size, deviation=deviation, scaling=scaling, softmax=softmax)

    def look(self) -> None:
        """Attend in both formats."""
        self.trials = {
            fmt.name: attention_trial(self.head_size, self.deviation, self.scaling, self.softmax, fmt)
            for fmt in (FP16, BF16)
        }

    def draw(self) -> Any:
        """Scores, weights and a table."""
        return self.figure.show(self.trials, self.scaling)

    def headline(self) -> str:
        """What happened in FP16."""
        return headline(self.trials)

    def summary(self) -> str:
        """The picture in words."""
        rows = (
            f"{name}: largest score {count(t.stored.max().item())}, {percent(t.overflowed)} overflow, {t.lost} lost"
            for name, t in self.trials.items()
        )
        return f"{self.headline()}. {headline(self.trials, 'BF16')}. {'. '.join(rows)}."
