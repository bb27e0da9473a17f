"""The second panel of lesson 09: scales from the steps before against the scale of now, on a recorded training."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from mpkit.course import markup
from mpkit.course.lesson_09.delayed_race_picture import DelayedRaceFigure
from mpkit.course.lesson_09.delayed_view import Race, race, trace
from mpkit.course.lesson_09.delayed_words import UNSEEN, about, describe, headline, table
from mpkit.course.lesson_09.layer_trace import record_layer
from mpkit.course.panels.controls import buttons, slider
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting
from mpkit.course.pictures.style import power

LENGTHS, JUMPS, MARGINS = (1, 4, 16, 1024), (1, 4, 16, 64), (0, 1, 2, 3, 4, 6, 8, 10, 12, 14)


class DelayedRacePanel(PicturePanel):
    """What delayed scaling clips when a tensor jumps up, and what it loses on the way down. `view` holds the numbers.

    Args:
        tensors: name → one tensor a step, all of one size. None: a training is recorded, in about a second.
        device: where that training runs.
        start: first values of some settings, by name. ValueError, TypeError: the panel does not offer them.

    Raises:
        TypeError, ValueError: `tensors` is empty or has something that cannot be scaled; the text says what.
    """

    tensor = Setting[str](
        lambda panel: panel.traces, buttons("tensor", 400, 80, button="auto"), doc="Name of the tensor that is cast."
    )
    jump = Setting(
        JUMPS, buttons("planted jump", 420, 110, "how much larger the tensor is for a third of the steps", 64), 16,
        text=lambda factor: f"×{factor}" if factor > 1 else "none", doc="Factor of the planted jump; 1 is none.",
    )  # fmt: skip
    length = Setting(
        LENGTHS, buttons("history", 400, 80, "how many steps before are remembered", 64), 16, text="{:,}".format,
        doc="How many steps the history has.",
    )  # fmt: skip
    margin = Setting(
        MARGINS, slider("margin", 420, 110, "room above the largest magnitude that was seen"), text=power,
        doc="Exponent of the room above the history's largest magnitude.",
    )  # fmt: skip
    rows, drawn_by = (("presets",), ("tensor", "jump"), ("length", "margin")), DelayedRaceFigure
    jumps_called = "examples"
    jumps: ClassVar = {
        "one step is clipped": {"jump": 16, "length": 16, "margin": 0},
        "a margin takes the jump": {"jump": 16, "length": 16, "margin": 4},
        "never forgets": {"jump": 64, "length": 1024, "margin": 0},
        "no jump, short memory": {"jump": 1, "length": 1, "margin": 0},
        "too much room": {"jump": 1, "length": 16, "margin": 14},
    }

    def __init__(
        self, tensors: Mapping[str, Sequence[Tensor]] | None = None, device: str = "cpu", **start: Any
    ) -> None:
        if tensors is not None and not isinstance(tensors, Mapping):
            raise TypeError(f"tensors by name are asked for, but {type(tensors).__name__} came; "
                            'write {"gradients": [one tensor a step]}.')  # fmt: skip
        recorded = record_layer(device=device) if tensors is None else tensors
        self.traces = {name: trace(name, given) for name, given in recorded.items()}
        if not self.traces:
            raise ValueError("no tensors came; give at least one name with a tensor for each step.")
        self._views: dict[tuple[Any, ...], Race] = {}
        super().__init__(**start)

    def look(self) -> None:
        """Cast every step both ways, unless these settings were seen before."""
        chosen = (self.tensor, self.length, self.margin, self.jump)
        if chosen not in self._views:
            self._views[chosen] = race(self.traces[self.tensor], self.length, self.margin, self.jump)
        self.view = self._views[chosen]

    def draw(self) -> Any:
        """The window of the format over the steps, and the error."""
        return self.figure.show(self.view, self.tensor, self.headline(), self._about(), table(self.view))

    def show(self) -> None:
        """Show it; the line of words is for screen readers, for the picture has it as its title."""
        super().show()
        self.words.value = markup.status(self.said(), aria_live=self.announce, style=UNSEEN)

    def headline(self) -> str:
        """What the jump cost, up and down."""
        return headline(self.view, self.length, self.margin)

    def summary(self) -> str:
        """The picture in words."""
        return describe(self.view, self.length, self.margin)

    def said(self) -> str:
        """The finding alone: the numbers stand in the picture."""
        return f"{self.headline()}."

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        return (
            f"{self.headline()}. Above: magnitudes of the {self.tensor} over the training steps, in the window that "
            f"delayed scaling gives E4M3. Below: the relative error of each step. {self._about()} "
            f"{self.summary().partition('. ')[2]}"
        )

    def _about(self) -> str:
        return about(self.view, len(self.view.amax))
