"""The panel of lesson 04, driven by its traits as a learner would drive it."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
import torch
from harness.pictures import page_size

from mpkit import BF16, E4M3, E5M2, FP16, FP32, FloatFormat, tally
from mpkit.course import markup
from mpkit.course.lesson_04.gradient_histogram import GradientHistogramPanel
from mpkit.course.lesson_04.gradient_histogram_picture import SIZE
from mpkit.course.lesson_04.gradient_histogram_words import consequence, describe, headline
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import Autoencoder
from mpkit.course.pictures.page import described
from mpkit.course.runs.snapshots import GradientSnapshots, WhatIf, record_gradients


@pytest.fixture(scope="module")
def recording() -> GradientSnapshots:
    torch.set_num_threads(1)
    model = Autoencoder(seeds=[0])
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    return record_gradients(model, digits().reconstruction(), adam, at=(0, 10, 60))


@pytest.fixture(scope="module")
def made_once(recording: GradientSnapshots) -> GradientHistogramPanel:
    return GradientHistogramPanel(recording, step=60)


@pytest.fixture
def panel(
    made_once: GradientHistogramPanel, recording: GradientSnapshots, monkeypatch: pytest.MonkeyPatch
) -> GradientHistogramPanel:
    """The lesson's panel in its first state; its figures are drawn once for all tests."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    made_once.recording = recording
    made_once.log2_scale, made_once.step, made_once.format = 1, 60, FP16
    made_once.log2_scale = 0
    return made_once


# ---- the words, from gradients made by hand ----


def view(values: list[float], fmt: FloatFormat, log2_scale: int, cosines: tuple[float | None, ...]) -> WhatIf:
    """One layer's worth of values per quarter; the counts come from `tally`."""
    report = tally(torch.tensor(values) * 2.0**log2_scale, fmt)
    return WhatIf(7, fmt, log2_scale, (report,) * len(cosines), cosines, report, None)


VANISH = view([2.0**-30, 2.0**-28, 2.0**-20, 2.0**-3], FP16, 0, (None, 0.5, 0.98, 0.999))
FIT = view([2.0**-30, 2.0**-28, 2.0**-20, 2.0**-3], FP16, 16, (0.999, 1.0, 1.0, 1.0))
OVERFLOW = view([2.0**-30, 2.0**-28, 2.0**-20, 2.0**-3], FP16, 20, (1.0, 1.0, 1.0, None))
BLUR = view([2.0**-3] * 4, E5M2, 0, (1.0, 0.98))
CUT = view([2.0**-30, 2.0**-28, 2.0**-20, 2.0**-3], E4M3, 20, (None, 1.0, 1.0, 0.7))


@pytest.mark.parametrize(
    ("shown", "title", "then"),
    [
        (
            VANISH,
            "At loss scale 2⁰, 50% of all gradients vanish in FP16",
            "Training in FP16: layer 1 gets no gradient at all; layers 2 and 3 get a bent one (cosine below 0.99).",
        ),
        (
            FIT,
            "At loss scale 2¹⁶ the gradients fit into FP16",
            "Every layer keeps its direction (cosine to FP32 above 0.99). Room to the top: 2 doublings.",
        ),
        (
            OVERFLOW,
            "At loss scale 2²⁰, 25% of all gradients overflow in FP16",
            "A gradient is Inf, and Inf travels back to the layers before. This step has to be skipped.",
        ),
        (
            CUT,
            "At loss scale 2²⁰, 25% of all gradients are cut to 448 in E4M3",
            "Training in E4M3: layer 1 gets no gradient at all; layer 4 gets a bent one (cosine below 0.99).",
        ),
        (
            BLUR,
            "At loss scale 2⁰ nothing leaves E5M2, but its 2 mantissa bits blur the gradients",
            "Training in E5M2: layer 2 gets a bent one (cosine below 0.99).",
        ),
    ],
    ids=["vanish", "fit", "overflow", "cut", "blur"],
)
def test_title_and_consequence(shown: WhatIf, title: str, then: str) -> None:
    assert headline(shown) == title
    assert consequence(shown) == then
    assert describe(shown).endswith(then)


def test_the_description_has_scale_step_format_and_shares() -> None:
    start = "Loss scale 2⁰, step 7, FP16: 50% flushed to zero, 25% subnormal, 0% overflowed. Training in FP16"
    assert describe(VANISH).startswith(start)
    assert describe(OVERFLOW).startswith(
        "Loss scale 2²⁰, step 7, FP16: 0% flushed to zero, 0% subnormal, 25% overflowed."
    )


def test_a_little_is_not_called_nothing() -> None:
    little = view([1.0] * 399 + [2.0**-30], FP16, 0, (1.0,))
    assert describe(little).startswith("Loss scale 2⁰, step 7, FP16: <1% flushed to zero, 0% subnormal, 0% overflowed.")
    one = view([2.0**-3], FP16, 17, (1.0,))
    assert consequence(one).endswith("Room to the top: 1 doubling.")


def test_several_layers_are_listed_with_commas() -> None:
    lost = view([1.0], FP16, 0, (None, None, None, 1.0))
    assert consequence(lost) == "Training in FP16: layers 1, 2 and 3 get no gradient at all."


def test_a_few_flushed_values_among_many_are_a_fit() -> None:
    many = view([1.0] * 399 + [2.0**-30], FP16, 0, (1.0,))
    assert headline(many) == "At loss scale 2⁰ the gradients fit into FP16"


# ---- the controls ----


def test_the_lesson_s_first_view_makes_the_point(panel: GradientHistogramPanel) -> None:
    assert (panel.log2_scale, panel.step, panel.format) == (0, 60, FP16)
    assert panel.view == panel.recording.what_if(60, FP16, 0)
    assert 0.3 < panel.view.total.flushed < 0.5
    assert headline(panel.view).endswith("of all gradients vanish in FP16")
    assert "layer 1 gets no gradient at all" in repr(panel)


def test_the_picture_and_the_words_follow_every_control(panel: GradientHistogramPanel) -> None:
    seen = {panel.png()}
    settings: list[tuple[str, Any]] = [
        ("log2_scale", 8),
        ("log2_scale", 30),
        ("step", 0),
        ("format", BF16),
        ("format", E4M3),
    ]
    for name, value in settings:
        setattr(panel, name, value)
        assert getattr(panel, name) == value
        assert panel.view == panel.recording.what_if(panel.step, panel.format, panel.log2_scale)
        assert panel.picture.tooltip == headline(panel.view)
        assert markup.escape(describe(panel.view)) in panel.words.value
        seen.add(panel.png())
    assert len(seen) == 6, "six settings, six pictures"
    assert page_size(panel.png()) == SIZE
    panel.log2_scale, panel.step, panel.format = 0, 60, FP16
    assert panel.png() in seen, "back at the start, the same picture"


def test_the_widgets_themselves_drive_it(panel: GradientHistogramPanel) -> None:
    panel.controls["log2_scale"].value = 16
    assert "2¹⁶" in repr(panel)
    panel.controls["step"].value = 10
    assert "step 10" in repr(panel)
    panel.controls["format"].value = "E5M2"
    assert panel.format == E5M2
    assert "E5M2" in panel.picture.tooltip


def test_preset_buttons_move_the_slider(panel: GradientHistogramPanel) -> None:
    assert [button.description for button in panel.presets.values()] == [
        "no scaling: 2⁰", "torch starts here: 2¹⁶", "too large: 2²⁸",
    ]  # fmt: skip
    findings = []
    for button, value in reversed(list(zip(panel.presets.values(), (0, 16, 28), strict=True))):
        button.click()
        assert (panel.log2_scale, panel.controls["log2_scale"].value) == (value, value)
        findings.append(headline(panel.view))
    assert ["overflow" in findings[0], "fit" in findings[1], "vanish" in findings[2]] == [True] * 3


def test_the_words_are_announced(panel: GradientHistogramPanel) -> None:
    assert 'role="status" aria-live="polite"' in panel.words.value


def test_the_alt_text_has_the_finding_and_every_layer(panel: GradientHistogramPanel) -> None:
    alt = panel.alt()
    assert alt.startswith(headline(panel.view))
    for name in ("layer 1 (input)", "layer 2", "layer 3", "layer 4", "layer 5", "layer 6 (output)"):
        assert f"{name}: " in alt
    assert alt.count("to zero") == alt.count("subnormal") == alt.count("too large") == 6
    panel.log2_scale = 16
    assert panel.alt() != alt


def test_the_stored_twin(panel: GradientHistogramPanel) -> None:
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.summary() == describe(panel.view)
    assert base64.b64decode(data["image/png"]) == described(panel.png(), panel.alt())
    assert metadata["image/png"] == {"alt": panel.alt(), "width": SIZE[0], "height": SIZE[1]}
    assert "text/html" not in data


def test_the_default_step_is_the_middle_one(recording: GradientSnapshots) -> None:
    assert GradientHistogramPanel(recording).step == 10
    assert GradientHistogramPanel(recording, log2_scale=36).log2_scale == 36


# ---- what goes wrong ----


def test_bad_settings_are_refused_and_change_nothing(panel: GradientHistogramPanel) -> None:
    before = (panel.png(), repr(panel))
    bad: list[tuple[str, Any, type[Exception], str]] = [
        ("log2_scale", 99, ValueError, "log2_scale 99 is not in this panel; use a whole number from 0 to 36"),
        ("log2_scale", -1, ValueError, "log2_scale -1 is not in this panel"),
        ("log2_scale", 2.5, ValueError, "log2_scale 2.5 is not in this panel"),
        ("log2_scale", "16", ValueError, "log2_scale '16' is not in this panel"),
        ("step", 7, ValueError, "step 7 is not in this panel; use one of 0, 10, 60"),
        ("format", FP32, ValueError, "format FP32 is not in this panel; use one of FP16, BF16, E5M2, E4M3"),
        ("format", FloatFormat("FP16", 6, 9), ValueError, "format FP16 is not in this panel"),
        ("format", "BF16", TypeError, r"'BF16' \(str\) came; write mpkit\.BF16"),
    ]
    for name, value, error, match in bad:
        with pytest.raises(error, match=match):
            setattr(panel, name, value)
        assert (panel.png(), repr(panel)) == before


def test_a_panel_is_not_made_with_bad_settings(recording: GradientSnapshots) -> None:
    cure = "make one: from mpkit.course.lesson_04 import record_gradients, then record_gradients("
    with pytest.raises(TypeError, match=re.escape(f"a GradientSnapshots is asked for, but a dict came; {cure}")):
        GradientHistogramPanel({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step 7 is not in this panel; use one of 0, 10, 60"):
        GradientHistogramPanel(recording, step=7)
    with pytest.raises(ValueError, match="log2_scale 99 is not in this panel"):
        GradientHistogramPanel(recording, log2_scale=99)


class Broken:
    """A recording that has lost its numbers."""

    def at(self, step: int) -> None:
        """Every step is there."""

    def what_if(self, *_: Any) -> WhatIf:
        raise ArithmeticError("the numbers are <gone>")


def test_an_error_while_drawing_is_shown_and_kept(
    panel: GradientHistogramPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPKIT_STRICT")
    good = panel.recording
    panel.recording = Broken()  # type: ignore[assignment]
    panel.log2_scale = 3
    assert "ArithmeticError: the numbers are &lt;gone&gt;" in panel.message.value
    assert isinstance(panel.last_error, ArithmeticError)
    panel.recording = good
    panel.log2_scale = 4
    assert panel.message.value == ""
    assert "2⁴" in repr(panel)


def test_in_strict_mode_it_is_raised(panel: GradientHistogramPanel) -> None:
    panel.recording = Broken()  # type: ignore[assignment]
    with pytest.raises(ArithmeticError, match="gone"):
        panel.log2_scale = 3
