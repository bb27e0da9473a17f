"""The panel of lesson 09: what one outlier does to its neighbours, under a format, its groups and its scales."""

from typing import Any, ClassVar

from mpkit import FloatFormat
from mpkit.course import markup
from mpkit.course.lesson_09.delayed_words import UNSEEN
from mpkit.course.lesson_09.granularity_data import CHOICES, GAINS, SMALL
from mpkit.course.lesson_09.granularity_picture import GranularityFigure
from mpkit.course.lesson_09.granularity_view import FORMATS, GROUPS, SCALES, View, scaled_format, view_of
from mpkit.course.lesson_09.granularity_words import about, describe, headline, table
from mpkit.course.panels.controls import buttons
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting
from mpkit.scaled import IntFormat

Small = FloatFormat | IntFormat


class _SmallFormat(Setting[Small]):
    """A format of at most 8 bits; the control holds its name."""

    def _held(self, panel: Any, value: Any) -> Any:
        if not isinstance(value, Small):
            raise TypeError(
                f"{self.name} is a format, such as mpkit.scaled.INT8, but {value!r} ({type(value).__name__}) came."
            )
        return super()._held(panel, value).name

    def _meant(self, panel: Any, held: Any) -> Any:
        return FORMATS[held]


class GranularityPanel(PicturePanel):
    """A picture and a matrix of weights before and after a scaled format. `view` holds the numbers.

    Args:
        start: first values of some settings, by name. ValueError, TypeError: the panel does not offer them.
    """

    values = Setting(CHOICES, buttons("values", "100%", 96, button="auto"), "outlier ×1000", doc="What is cast.")
    format = _SmallFormat(FORMATS.values(), buttons("format", 460, 96, button=64), doc="The format of the values.")
    groups = Setting(
        GROUPS, buttons("one scale for", "100%", 96, "which values share a scale", button="auto"),
        text=lambda name: f"a {name}" if name in ("row", "column") else "all" if name == "tensor" else name,
        doc="Which values share a scale: the tensor, a row, a column, or a block.",
    )  # fmt: skip
    scales = Setting(
        SCALES, buttons("scales", "100%", 96, "how a scale is chosen and kept", button="auto"), text=SCALES.__getitem__,
        doc='How a scale is chosen: "exact", "up", "floor", or "two-level" as NVFP4 keeps it.',
    )  # fmt: skip
    rows, drawn_by = (("presets",), ("values",), ("format",), ("groups",), ("scales",)), GranularityFigure
    jumps_called, jumps_room = "examples", 96
    jumps: ClassVar = {
        name: {"values": values, "format": FORMATS[fmt], "groups": groups, "scales": scales}
        for name, values, fmt, groups, scales in (
            ("an outlier in INT8", "outlier ×1000", "INT8", "tensor", "exact"),
            ("MX, floor or up", "no outlier", "E2M1", "1×32", "floor"),
            ("layer-norm gains collapse", GAINS, "E4M3", "1×32", "up"),
            ("nearest or stochastic", SMALL, "E2M1", "1×16", "two-level"),
        )
    }

    def __init__(self, **start: Any) -> None:
        self._views: dict[tuple[str, str], View] = {}
        super().__init__(**start)

    def look(self) -> None:
        """Cast, unless these settings were seen before."""
        fmt = scaled_format(self.format.name, self.groups, self.scales)
        chosen = (self.values, fmt.name)
        if chosen not in self._views:
            self._views[chosen] = view_of(self.values, fmt)
        self.view = self._views[chosen]

    def draw(self) -> Any:
        """Before and after, and the numbers."""
        return self.figure.show(self.view, self.headline(), about(self.view), table(self.view))

    def show(self) -> None:
        """Show it; the line of words is for screen readers, for the picture has it as its title."""
        super().show()
        self.words.value = markup.status(self.said(), aria_live=self.announce, style=UNSEEN)

    def headline(self) -> str:
        """What became of the values beside the outlier."""
        return headline(self.view)

    def summary(self) -> str:
        """The picture in words."""
        return describe(self.view)

    def said(self) -> str:
        """The finding alone: the numbers stand in the picture."""
        return f"{self.headline()}."

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        shown = "a picture before and after, and the values of a matrix before and after, as colours"
        if self.view.compares:
            shown = (
                "a picture before and after, and how the largest weight of each group changes, by floor and rounded up"
            )
        elif self.view.rounded:
            shown = "a picture before and after rounding three ways"
        return f"{self.headline()}. Left to right: {shown}. {about(self.view)} {self.summary().partition('. ')[2]}"
