"""The panel of lesson 04: a loss-scale slider under the histogram of recorded gradients."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets as widgets
import numpy as np
from torch import Tensor

from mpkit.course.lesson_04.gradient_histogram_picture import GradientHistogramFigure
from mpkit.course.panels.panel import Panel, Picture, guarded
from mpkit.course.pictures.style import percent, power
from mpkit.course.runs.snapshots import GradientRecording, WhatIf
from mpkit.formats import BF16, E4M3, E5M2, FP16, FloatFormat, require_format

FORMATS = {fmt.name: fmt for fmt in (FP16, BF16, E5M2, E4M3)}
PRESETS = (("no scaling", 0), ("torch starts here", 16), ("too large", 28))
MAX_LOG2_SCALE = 36


class GradientHistogramPanel(Panel):
    """Recorded gradients under a format's window; one slider sets the loss scale.

    `log2_scale`, `step` and `format` can be read and set; the picture follows. `view` holds the numbers.

    Args:
        recording: from `mpkit.course.runs.snapshots.record_gradients`.
        step: the recorded step shown first (default: the middle one).
        log2_scale: 0 to 36.

    Raises:
        ValueError: a step that was not recorded, a scale off the slider, a format that is not in the menu.
        TypeError: `format` is set to something that is not a format.
    """

    def __init__(self, recording: GradientRecording, step: int | None = None, log2_scale: int = 0) -> None:
        if not isinstance(recording, GradientRecording):
            raise TypeError(
                f"a GradientRecording is asked for, but a {type(recording).__name__} came; "
                "make one with mpkit.course.runs.snapshots.record_gradients(model, data, optimizer, at=(0, 60))."
            )
        self.recording = recording
        steps = recording.steps
        step = steps[len(steps) // 2] if step is None else step
        recording.at(step)
        wide = {"description_width": "110px"}
        self.scale_slider = widgets.IntSlider(
            _on_slider(log2_scale), 0, MAX_LOG2_SCALE, description="log2 loss scale", style=wide,
            tooltip="log2 of the loss scale", layout=widgets.Layout(width="640px"),
        )  # fmt: skip
        self.presets = [widgets.Button(description=f"{name}: {power(value)}", layout=widgets.Layout(width="auto"))
                        for name, value in PRESETS]  # fmt: skip
        for button, (_, value) in zip(self.presets, PRESETS, strict=True):
            button.on_click(lambda _, value=value: setattr(self, "log2_scale", value))
        self.step_slider = widgets.SelectionSlider(
            options=steps, value=step, description="training step", tooltip="training step", style=wide,
            layout=widgets.Layout(width="380px"),
        )  # fmt: skip
        self.format_menu = widgets.Dropdown(
            options=list(FORMATS),
            value="FP16",
            description="format",
            tooltip="number format",
            layout=widgets.Layout(width="200px"),
        )
        self.picture = Picture()
        self.words = widgets.HTML(layout=widgets.Layout(min_height="52px"))  # one line or two: what follows stays put
        self._figures: dict[tuple[int, FloatFormat], GradientHistogramFigure] = {}
        first = widgets.HBox([self.scale_slider, *self.presets], layout=widgets.Layout(flex_flow="row wrap"))
        second = widgets.HBox([self.step_slider, self.format_menu], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__(first, second, self.picture, self.words)
        for control in (self.scale_slider, self.step_slider, self.format_menu):
            control.observe(self._redraw, names="value")
        self._redraw()

    @property
    def log2_scale(self) -> int:
        """Power of two of the loss scale."""
        return int(self.scale_slider.value)

    @log2_scale.setter
    def log2_scale(self, value: int) -> None:
        self.scale_slider.value = _on_slider(value)

    @property
    def step(self) -> int:
        """The recorded training step."""
        return int(self.step_slider.value)

    @step.setter
    def step(self, value: int) -> None:
        self.recording.at(value)
        self.step_slider.value = value

    @property
    def format(self) -> FloatFormat:
        """The format that the gradients are cast to."""
        return FORMATS[self.format_menu.value]

    @format.setter
    def format(self, value: FloatFormat) -> None:
        if FORMATS.get(require_format(value).name) != value:
            raise ValueError(f"format {value} is not in this panel's menu; use one of {', '.join(FORMATS)}.")
        self.format_menu.value = value.name

    def summary(self) -> str:
        """The picture in words, rounded so that it is the same on every machine."""
        return describe(self.view)

    def png(self) -> bytes:
        """The picture shown now."""
        return bytes(self.picture.value)

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        layers = "; ".join(
            f"{name}: {percent(report.flushed)} to zero, {percent(report.subnormal)} subnormal, "
            f"{percent(report.overflowed)} too large"
            for name, report in zip(self.recording.names, self.view.layers, strict=True)
        )
        return f"{headline(self.view)}. Histograms of gradient magnitudes, one row a layer. {layers}."

    @guarded
    def _redraw(self, _change: Any = None) -> None:
        self.view = self.recording.what_if(self.step, self.format, self.log2_scale)
        window = (self.step, self.format)
        if window not in self._figures:
            self.words.value = "drawing …"  # the first picture of a window takes a moment
            self._figures[window] = self._new_figure(*window)
        figure, title = self._figures[window], headline(self.view)
        self.picture.value = figure.show(self.view, title, consequence(self.view)).png()
        self.picture.tooltip = title
        self.words.value = f'<div role="status" aria-live="polite">{self.summary()}</div>'

    def _new_figure(self, step: int, fmt: FloatFormat) -> GradientHistogramFigure:
        layers = self.recording.at(step).layers
        signals, weights = [_log2(layer.signal) for layer in layers], [_log2(layer.weight) for layer in layers]
        return GradientHistogramFigure(self.recording.names, fmt, signals, weights)


def headline(view: WhatIf) -> str:
    """The finding in one line."""
    scale, total = f"At loss scale {power(view.log2_scale)}", view.total
    if total.overflowed_count:
        lost = "overflow" if view.format.has_inf else f"are cut to {view.format.max:.0f}"
        return f"{scale}, {percent(total.overflowed)} of all gradients {lost} in {view.format}"
    if total.flushed > 0.005:
        return f"{scale}, {percent(total.flushed)} of all gradients vanish in {view.format}"
    if any(value is None or value < 0.99 for value in view.cosines):
        bits = view.format.mantissa_bits
        return f"{scale} nothing leaves {view.format}, but its {bits} mantissa bits blur the gradients"
    return f"{scale} the gradients fit into {view.format}"


def consequence(view: WhatIf) -> str:
    """What training would do with these gradients, in one line."""
    if view.total.overflowed_count and view.format.has_inf:
        return "A gradient is Inf, and Inf travels back to the layers before. This step has to be skipped."
    lost = [number for number, value in enumerate(view.cosines, 1) if value is None]
    bent = [number for number, value in enumerate(view.cosines, 1) if value is not None and value < 0.99]
    if lost or bent:
        parts = [f"{_layers(lost)} get{'s' if len(lost) == 1 else ''} no gradient at all"] if lost else []
        parts += [f"{_layers(bent)} get{'s' if len(bent) == 1 else ''} a bent one (cosine below 0.99)"] if bent else []
        return f"Training in {view.format}: {'; '.join(parts)}."
    room = math.floor(view.total.headroom_bits)
    doublings = "1 doubling" if room == 1 else f"{room} doublings"
    return f"Every layer keeps its direction (cosine to FP32 above 0.99). Room to the top: {doublings}."


def describe(view: WhatIf) -> str:
    """Scale, step, format and the three shares, in whole percents."""
    t = view.total
    return (
        f"Loss scale {power(view.log2_scale)}, step {view.step}, {view.format}: {_whole(t.flushed)} flushed to zero, "
        f"{_whole(t.subnormal)} subnormal, {_whole(t.overflowed)} overflowed. {consequence(view)}"
    )


def _whole(share: float) -> str:
    """Whole percents, the same on every machine; something is never called 0 %."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _on_slider(log2_scale: int) -> int:
    if log2_scale not in range(MAX_LOG2_SCALE + 1):
        raise ValueError(
            f"log2_scale={log2_scale!r} is not on the slider; use a whole number from 0 to {MAX_LOG2_SCALE} "
            f"(the loss scale is 2 to that power)."
        )
    return log2_scale


def _layers(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    return f"layers {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _log2(values: Tensor) -> np.ndarray:
    log2: np.ndarray = np.log2(values[values != 0].abs().numpy())
    return log2
