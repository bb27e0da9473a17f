"""The panel of lesson 04: a loss-scale slider under the histogram of recorded gradients."""

from typing import Any, ClassVar

from mpkit import BF16, E4M3, E5M2, FP16
from mpkit.course.lesson_04.gradient_histogram_picture import GradientHistogramFigure, Histograms, histograms
from mpkit.course.lesson_04.gradient_histogram_words import consequence, describe, headline
from mpkit.course.panels.controls import buttons, slider, whole_slider
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import FormatSetting, Setting
from mpkit.course.pictures.style import percent, power
from mpkit.course.runs.snapshots import GradientSnapshots

FORMATS = {fmt.name: fmt for fmt in (FP16, BF16, E5M2, E4M3)}
PRESETS = (("no scaling", 0), ("torch starts here", 16), ("too large", 28))
MAX_LOG2_SCALE = 36


class GradientHistogramPanel(PicturePanel):
    """Recorded gradients under a format's window; one slider sets the loss scale. `view` holds the numbers.

    Args:
        recording: from `record_gradients`.
        step: the recorded step shown first (default: the middle one).
        log2_scale: 0 to 36.

    Raises:
        ValueError: a step that was not recorded, or a scale off the slider.
        TypeError: `recording` is something else.
    """

    log2_scale = Setting(
        range(MAX_LOG2_SCALE + 1), whole_slider("log2 loss scale", 640, 110, "log2 of the loss scale"),
        use=f"a whole number from 0 to {MAX_LOG2_SCALE} (the loss scale is 2 to that power)",
        doc="Power of two of the loss scale.",
    )  # fmt: skip
    step = Setting[int](
        lambda panel: panel.recording.steps, slider("training step", 380, 110, "training step"),
        doc="The recorded training step.",
    )  # fmt: skip
    format = FormatSetting(
        FORMATS.values(),
        buttons("format", 400, 80, "number format", 72),
        doc="The format that the gradients are cast to.",
    )
    words_room = 52  # one line or two
    rows = ("log2_scale", "presets"), ("step", "format")
    jumps: ClassVar = {f"{name}: {power(value)}": {"log2_scale": value} for name, value in PRESETS}

    def __init__(self, recording: GradientSnapshots, step: int | None = None, log2_scale: int = 0) -> None:
        if not isinstance(recording, GradientSnapshots):
            raise TypeError(
                f"a GradientSnapshots is asked for, but a {type(recording).__name__} came; make one: "
                "from mpkit.course.lesson_04 import record_gradients, then "
                "record_gradients(model, data, optimizer, at=(0, 60))."
            )
        self.recording = recording
        self._histograms: dict[int, Histograms] = {}
        self._figure = GradientHistogramFigure(recording.names)
        middle = recording.steps[len(recording.steps) // 2]
        super().__init__(step=middle if step is None else step, log2_scale=log2_scale)

    def look(self) -> None:
        """Scale, cast and count."""
        self.view = self.recording.what_if(self.step, self.format, self.log2_scale)

    def draw(self) -> Any:
        """The histograms where the scale puts them."""
        step = self.view.step
        if step not in self._histograms:
            self._histograms[step] = histograms(self.recording.at(step).layers)
        return self._figure.show(self.view, self._histograms[step], self.headline(), consequence(self.view))

    def headline(self) -> str:
        """What becomes of the gradients."""
        return headline(self.view)

    def summary(self) -> str:
        """The picture in words, rounded so that it is the same on every machine."""
        return describe(self.view)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        layers = "; ".join(
            f"{name}: {percent(report.flushed)} to zero, {percent(report.subnormal)} subnormal, "
            f"{percent(report.overflowed)} too large"
            for name, report in zip(self.recording.names, self.view.layers, strict=True)
        )
        return f"{self.headline()}. Histograms of gradient magnitudes, one row a layer. {layers}."
