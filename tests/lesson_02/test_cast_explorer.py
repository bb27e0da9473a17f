"""What a cast does to a tensor, measured; and the panel that shows it, driven by its traits as a learner would."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from harness.pictures import page_pixels, page_size
from PIL import Image

from mpkit import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat, cast, tally
from mpkit.course.lesson_02.cast_effect import CastEffect, effect, largest_error
from mpkit.course.lesson_02.cast_explorer import FORMATS, MOST, CastExplorerPanel, drawn
from mpkit.course.lesson_02.cast_explorer_picture import HIGH, KEYS, LOW, SIZE, CastExplorerFigure
from mpkit.course.lesson_02.cast_explorer_words import HOW, describe, headline
from mpkit.course.pictures.page import described
from mpkit.course.pictures.style import ZONE
from mpkit.rounding import Overflow, Rounding

GRADIENTS = torch.tensor([2.0**-30] * 38 + [2.0**-20] * 60 + [0.1] * 2)
EVERY = "every size, 2⁻⁴⁰ to 2²⁰"


@pytest.fixture(scope="module")
def made_once() -> CastExplorerPanel:
    torch.set_num_threads(1)
    return CastExplorerPanel({"gradients": GRADIENTS})


@pytest.fixture
def panel(made_once: CastExplorerPanel, monkeypatch: pytest.MonkeyPatch) -> CastExplorerPanel:
    """The panel in its first state; its canvas is drawn once for all tests."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    made_once.values, made_once.format, made_once.rounding, made_once.overflow = "gradients", FP16, "nearest", "inf"
    return made_once


# ---- the numbers ----


@pytest.mark.parametrize("fmt", [FP16, BF16, TF32, E5M2, E4M3], ids=str)
@pytest.mark.parametrize("overflow", ["inf", "saturate"])
def test_shares_of_rounding_to_nearest_are_tally_s(fmt: FloatFormat, overflow: Overflow) -> None:
    for x in (drawn()[EVERY], torch.tensor([65519.0, 65520.0, -65520.0, 464.0, 465.0, 61439.0, 61440.0, 1.0])):
        found, counted = effect(x, fmt, overflow=overflow), tally(x, fmt)
        assert found.flushed == pytest.approx(counted.flushed, abs=1e-12)
        assert found.subnormal == pytest.approx(counted.subnormal, abs=1e-12)
        assert found.overflowed == pytest.approx(counted.overflowed, abs=1e-12)


def test_zeros_inf_and_nan_are_left_out() -> None:
    found = effect(torch.tensor([0.0, -0.0, math.inf, math.nan, 2.0**-30, 1.0]), FP16)
    assert found.before.tolist() == [2.0**-30, 1.0]
    assert found.after.tolist() == [0.0, 1.0]
    assert found.flushed == 0.5


def test_errors_of_a_few_values_worked_by_hand() -> None:
    """1 + 2^-11 + 2^-12 is three quarters of a spacing above 1."""
    x = torch.tensor([1 + 2.0**-11 + 2.0**-12, -1.0, 2.0**-30])
    off = 2.0**-12
    found = effect(x, FP16)
    assert found.rms == pytest.approx(math.sqrt((off / float(x[0])) ** 2 / 2), rel=1e-6)
    mean_size = (float(x[0]) + 1 + 2.0**-30) / 3
    assert found.drift == pytest.approx((off - 2.0**-30) / 3 / mean_size, rel=1e-6)
    assert found.growth == pytest.approx((off - 2.0**-30) / 3 / mean_size, rel=1e-6)


@pytest.mark.parametrize(
    ("rounding", "drift", "growth"), [("up", 1, 0), ("down", -1, 0), ("zero", 0, -1), ("nearest", 0, 0)]
)
def test_directed_rounding_drifts(rounding: Rounding, drift: int, growth: int) -> None:
    """The sign of both, over numbers of both signs; a tenth of what a drift would be counts as none."""
    found = effect(drawn()["normal: mean 0, sd 1"], BF16, rounding)
    size = 2.0**-9
    assert round(found.drift / size, 0) == pytest.approx(drift, abs=0.5) if drift else abs(found.drift) < size / 5
    assert round(found.growth / size, 0) == pytest.approx(growth, abs=0.5) if growth else abs(found.growth) < size / 5


def test_zero_never_overflows_and_up_never_flushes_what_is_positive() -> None:
    x = drawn()[EVERY].abs()
    assert effect(x, FP16, "zero").overflowed == float((x > 65504).double().mean()), "cut to 65504 counts as lost"
    assert effect(x, FP16, "zero").after.max() == 65504
    assert effect(x, FP16, "zero").nonfinite == 0
    assert effect(x, FP16, "up").flushed == 0


@pytest.mark.parametrize("fmt", [FP16, E4M3], ids=str)
@pytest.mark.parametrize("rounding", HOW)
def test_what_is_too_large_is_counted_as_what_it_became(fmt: FloatFormat, rounding: Rounding) -> None:
    x = drawn()[EVERY]
    after = cast(x, fmt, rounding, "inf", generator=torch.Generator().manual_seed(0))
    found = effect(x, fmt, rounding)
    assert found.nonfinite == pytest.approx(float((~after.isfinite()).double().mean()), abs=2e-4)
    by_chance = torch.where(after.isfinite(), x.abs(), 0)  # between the edge and the value there would be next
    stay = {"zero": x.abs(), "up": -x, "down": x, "stochastic": by_chance}
    towards_zero = stay.get(rounding, -x.abs()) > fmt.overflow_at
    assert found.cut == pytest.approx(float(towards_zero.double().mean()), abs=1e-12)
    assert found.overflowed == found.nonfinite + found.cut


def test_a_value_that_rounds_back_to_the_largest_has_not_overflowed() -> None:
    assert effect(torch.tensor([65510.0]), FP16).overflowed == 0
    assert effect(torch.tensor([464.0]), E4M3, overflow="saturate").overflowed == 0
    assert effect(torch.tensor([464.5]), E4M3, overflow="saturate").overflowed == 1
    assert effect(torch.tensor([464.5]), E4M3, overflow="inf").after.isnan().all()


def test_stochastic_rounding_is_repeatable_and_right_on_average() -> None:
    x = 1 + torch.rand(10_000)
    one, two = effect(x, BF16, "stochastic"), effect(x, BF16, "stochastic")
    assert torch.equal(one.after, two.after)
    assert abs(one.drift) < 2.0**-13
    assert one.rms > effect(x, BF16).rms


@pytest.mark.parametrize("rounding", HOW)
@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
def test_no_error_passes_the_bound_that_is_drawn(fmt: FloatFormat, rounding: Rounding) -> None:
    found = effect(drawn()[EVERY], fmt, rounding, "inf")
    for before, after in zip(found.before.tolist()[:2000], found.after.tolist()[:2000], strict=True):
        if abs(before) <= fmt.max:
            assert abs(after - before) / abs(before) <= largest_error(fmt, rounding, abs(before)) * (1 + 1e-12)


def test_what_cannot_be_cast_is_refused() -> None:
    with pytest.raises(ValueError, match="3 values came, and none of them is finite and not zero; there is nothing"):
        effect(torch.tensor([0.0, math.inf, math.nan]), FP16)
    with pytest.raises(TypeError, match=r"a format is asked for, but 'FP16' \(str\) came"):
        effect(torch.ones(2), "FP16")  # type: ignore[arg-type]


# ---- the words ----


def view(
    values: list[float], fmt: FloatFormat, rounding: Rounding = "nearest", overflow: Overflow = "inf"
) -> CastEffect:
    return effect(torch.tensor(values), fmt, rounding, overflow)


@pytest.mark.parametrize(
    ("shown", "title"),
    [
        (view([2.0**-30, 1.0], FP16), "FP16 turns 50% of these values into 0"),
        (view([1e6, 1.0], FP16), "FP16 turns 50% of these values into Inf"),
        (view([1e6, 1.0], E4M3), "E4M3 turns 50% of these values into NaN"),
        (view([1e6, 2.0**-30, 1.0, 1.0], FP16), "FP16 turns 25% of these values into 0 and 25% into Inf"),
        (view([1e6, 1.0], FP16, overflow="saturate"), "FP16 cuts 50% to 65504"),
        (view([1e6, -1e6, 1.0, 1.0], FP16, "zero"), "FP16 cuts 50% to 65504"),
        (view([1e6, -1e6, 1.0, 1.0], FP16, "up"), "FP16 turns 25% of these values into Inf and cuts 25% to 65504"),
        (view([1e6, -1e6, 1.0, 1.0], E4M3, "down"), "E4M3 turns 25% of these values into NaN and cuts 25% to 448"),
        (view([1e6, -1e6, -(2.0**-30), 1.0], FP16, "up"),
         "FP16 turns 25% of these values into 0, 25% into Inf, and cuts 25% to 65504"),
        (view([1e6, 2.0**-30], E4M3, overflow="saturate"), "E4M3 turns 50% of these values into 0 and cuts 50% to 448"),
        (view([1.1, 1.3], BF16, "up"), "Nothing leaves BF16, but this rounding moves the mean up"),
        (view([1.1, 1.3], BF16, "down"), "Nothing leaves BF16, but this rounding moves the mean down"),
        (view([1.1, -1.3], BF16, "zero"), "Nothing leaves BF16, but cutting off makes the values smaller"),
        (view([2.0**-20, 1.0], FP16), "FP16 keeps these values, but 50% of them with fewer bits"),
        (view([1.1, 1.3], FP16), "FP16 keeps these values, with relative errors of up to 2⁻¹¹"),
        (view([1.1, 1.3], E5M2, "stochastic"), "E5M2 keeps these values, with relative errors of up to 2⁻²"),
    ],
)  # fmt: skip
def test_the_title_is_the_finding(shown: CastEffect, title: str) -> None:
    assert headline(shown) == title


def test_the_description_has_settings_and_whole_percents() -> None:
    assert describe("x", view([2.0**-30, 2.0**-20, 1.0, 1e6], FP16)) == (
        "x, cast to FP16, rounding nearest: 25% become 0, 25% subnormal, 25% become Inf. "
        "Normal values are off by up to half a spacing, 2⁻¹¹ of the value."
    )
    assert describe("x", view([1e6] + [1.0] * 399, E4M3, "zero")).endswith(
        "0% become 0, 0% subnormal, <1% cut to 448. Normal values are off by up to a whole spacing, 2⁻³ of the value."
    ), "what is said about E4M3 under directed rounding"
    assert describe("x", view([1e6] + [1.0] * 399, E4M3, "up")).endswith(
        "0% become 0, 0% subnormal, <1% become NaN. Normal values are off by up to a whole spacing, 2⁻³ of the value. "
        "E4M3 has no Inf: what is beyond 448 can only become NaN."
    )
    assert "25% become Inf, 50% cut to 65504." in describe("x", view([1e6, -1e6, -1e6, 1.0], FP16, "up"))
    assert "0% subnormal, 75% cut to 65504." in describe("x", view([1e6, -1e6, -1e6, 1.0], FP16, "zero"))
    assert "No value stays normal." in describe("x", view([2.0**-30], FP16))


# ---- the panel ----


def rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def test_the_first_view_makes_the_point(panel: CastExplorerPanel) -> None:
    assert headline(panel.view) == "FP16 turns 38% of these values into 0"
    assert repr(panel).startswith("gradients, cast to FP16, rounding nearest: 38% become 0, 60% subnormal, 0% become")
    assert panel.picture.tooltip == headline(panel.view)
    assert 'role="status"' in panel.words.value
    assert panel.summary() in panel.words.value


def test_every_combination_can_be_shown(panel: CastExplorerPanel) -> None:
    for name in panel.tensors:
        panel.values = name
        for fmt in FORMATS.values():
            panel.format = fmt
            assert f"cast to {fmt}" in repr(panel)
    for rounding in HOW:
        panel.rounding = rounding
        assert f"rounding {rounding}" in repr(panel)
    panel.overflow = "saturate"
    assert "cut to" in repr(panel)
    assert panel.message.value == ""


def test_the_widgets_drive_it_as_the_properties_do(panel: CastExplorerPanel) -> None:
    panel.controls["format"].value = "BF16"
    panel.controls["rounding"].value = "up"
    panel.controls["overflow"].value = "saturate"
    assert (panel.format, panel.rounding, panel.overflow) == (BF16, "up", "saturate")
    assert panel.view.format == BF16
    controls = [control for row in panel.box.children[:2] for control in row.children]
    assert len(controls) == 4, "at most four controls"
    assert all(control.description and control.tooltip for control in controls)


def test_the_picture_is_a_palette_png_with_the_zones_of_the_format(panel: CastExplorerPanel) -> None:
    image = Image.open(io.BytesIO(panel.png()))
    assert image.mode == "P"
    assert page_size(panel.png()) == SIZE
    pixels = np.asarray(image.convert("RGB"))
    shares = {zone: int((pixels == rgb(ZONE[zone])).all(axis=2).sum()) for zone in ("flushed", "subnormal", "overflow")}
    widths = {"flushed": -25 - LOW, "subnormal": 11, "overflow": HIGH - 16}
    for zone, width in widths.items():
        assert shares[zone] / shares["subnormal"] == pytest.approx(width / 11, rel=0.25), zone
    assert panel.controls["format"].value == "FP16"


def test_the_colours_of_later_views_survive_the_first_view_s_palette() -> None:
    figure = CastExplorerFigure()
    for fmt in (BF16, FP16):  # BF16's window has no zones inside the picture
        shown = effect(GRADIENTS, fmt)
        frame = figure.show(shown, "", "")
        last = page_pixels(frame.png())
    assert tuple(last[300, 120]) == rgb(ZONE["flushed"])


def test_another_setting_is_another_picture_and_back_again(panel: CastExplorerPanel) -> None:
    first = panel.png()
    panel.format = E5M2
    second = panel.png()
    panel.format = FP16
    assert first != second
    assert panel.png() == first


def test_it_shows_itself_without_a_front_end(panel: CastExplorerPanel) -> None:
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.summary()
    assert base64.b64decode(data["image/png"]) == described(panel.png(), panel.alt())
    assert metadata["image/png"] == {"alt": panel.alt(), "width": SIZE[0], "height": SIZE[1]}
    assert panel.alt().startswith("FP16 turns 38% of these values into 0. Above: histograms")


def test_a_period_of_a_large_tensor_is_not_met_by_the_choice() -> None:
    shown = CastExplorerPanel({"columns": torch.tensor([1.0, 2.0**-30, 2.0**-30, 2.0**-30, 2.0**-30]).repeat(20_000)})
    assert shown.view.flushed == pytest.approx(0.8, abs=0.01)


def test_zeros_take_no_part_in_the_choice_and_float64_is_kept() -> None:
    x = torch.zeros(100_000, dtype=torch.float64)
    x[::1000] = 1e-50
    x[500::1000] = 1.0
    shown = CastExplorerPanel({"x": x})
    assert len(shown.view.before) == 200
    assert shown.view.flushed == 0.5
    assert headline(shown.view) == "FP16 turns 50% of these values into 0"


def test_names_are_escaped() -> None:
    assert "&lt;b&gt;x&lt;/b&gt;, cast to" in CastExplorerPanel({"<b>x</b>": torch.ones(3)}).words.value


def test_marks_of_the_legend_are_distinct() -> None:
    assert len({mark for mark, _, _ in KEYS}) == len(KEYS)


def test_large_tensors_are_thinned_evenly() -> None:
    shown = CastExplorerPanel({"large": torch.linspace(1, 2, 100_000)})
    used = shown.view.before
    assert len(used) <= MOST
    assert float(used.mean()) == pytest.approx(1.5, abs=5e-3)


def test_bad_settings_are_refused_and_change_nothing(panel: CastExplorerPanel) -> None:
    before = (panel.png(), repr(panel))
    bad: list[tuple[str, Any, type[Exception], str]] = [
        ("values", "weights", ValueError, "values 'weights' is not in this panel; use one of 'gradients', 'nor"),
        (
            "format",
            FP32,
            ValueError,
            "format FP32 is not in this panel; use one of FP16, BF16, TF32, E5M2, E4M3",
        ),
        ("format", "BF16", TypeError, r"'BF16' \(str\) came; write mpkit\.BF16"),
        ("rounding", "even", ValueError, "rounding 'even' is not in this panel; use one of 'nearest', 'zero'"),
        ("overflow", "raise", ValueError, "overflow 'raise' is not in this panel; use one of 'inf', 'saturate'"),
    ]
    for name, value, error, match in bad:
        with pytest.raises(error, match=match):
            setattr(panel, name, value)
        assert (panel.png(), repr(panel)) == before


def test_a_panel_is_not_made_of_what_is_no_tensor() -> None:
    with pytest.raises(TypeError, match="'x': a floating-point tensor is asked for, but list came"):
        CastExplorerPanel({"x": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(
        TypeError, match=r"'x': a floating-point tensor is asked for, but a tensor of torch\.int64 came"
    ):
        CastExplorerPanel({"x": torch.ones(3).long()})
    with pytest.raises(ValueError, match="'x' has no finite value but zero; there is nothing to cast"):
        CastExplorerPanel({"x": torch.zeros(3)})


def test_the_words_about_a_rounding_are_true() -> None:
    x = drawn()["normal: mean 0, sd 1"]
    assert bool((cast(x, FP16, "up") >= x).all())
    assert bool((cast(x, FP16, "down") <= x).all())
    assert bool((cast(x, FP16, "zero").abs() <= x.abs()).all())
