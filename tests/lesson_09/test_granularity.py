"""The granularity panel: its numbers are numpy's and ml_dtypes', its titles say them, and it refuses what is junk."""

from __future__ import annotations

import itertools
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from harness.pictures import page_pixels, page_size

from mpkit import E2M1, E2M3, E4M3, FP16
from mpkit.course.lesson_09.granularity import GranularityPanel
from mpkit.course.lesson_09.granularity_data import CHOICES, COLUMN, FACTORS, GAINS, SMALL, data, picture
from mpkit.course.lesson_09.granularity_effect import about, cast_repeatably, effect, mean_of_draws
from mpkit.course.lesson_09.granularity_picture import PANES, SIZE, TOP
from mpkit.course.lesson_09.granularity_view import FORMATS, GROUPS, SCALES, scaled_format, view_of
from mpkit.course.lesson_09.granularity_words import headline
from mpkit.course.pictures.canvas import _fitting
from mpkit.scaled import INT8, MXFP4, MXFP8, NVFP4, ScaledFormat, report

START: dict[str, Any] = {"values": "outlier ×1000", "format": INT8, "groups": "tensor", "scales": "exact"}
PEER = {"E4M3": ml_dtypes.float8_e4m3fn, "E2M1": ml_dtypes.float4_e2m1fn, "E2M3": ml_dtypes.float6_e2m3fn}
TITLES = {
    "an outlier in INT8": "INT8, one scale for all: beside the outlier weights are off by 100%, all become 0",
    "MX, floor or up": "MXFP4 by OCP's floor: in 20% of groups a value is cut off, the largest moves −6.6%; "
    "rounded up: 0%, −1.4%",
    "layer-norm gains collapse": "MXFP8: 32 gains of 1 ± 0.02 become 1.9 different values; what sets them apart is off "
    "by 92%",
    "nearest or stochastic": "NVFP4: 0.2 beside 6.0 becomes 0.000 by nearest, 0.200 on average by stochastic",
}


@pytest.fixture(scope="module")
def made_once() -> GranularityPanel:
    torch.set_num_threads(1)
    return GranularityPanel()


@pytest.fixture
def panel(made_once: GranularityPanel, monkeypatch: pytest.MonkeyPatch) -> GranularityPanel:
    """The panel in its first state; its canvas is drawn once for all tests."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    made_once.choose(**START)
    return made_once


# ---- the numbers ----


def by_hand(x: np.ndarray, fmt: ScaledFormat, outlier: tuple[int, ...]) -> dict[str, float]:
    """Every number of an `Effect`, group by group, in numpy and ml_dtypes."""
    largest, after = fmt.values.max, np.empty_like(x)
    step = 0.5 if fmt.values.name.startswith("INT") else {"E4M3": 16, "E2M1": 1, "E2M3": 0.25}[fmt.values.name]
    high, wide = fmt.block[0] or x.shape[0], fmt.block[1] or x.shape[1]
    whole = np.float32(np.abs(x).max() / (largest * 448))
    beyond, peaks, levels, groups = 0, [], [], 0
    others = [column for column in range(x.shape[1]) if column not in outlier]
    for top, left in itertools.product(range(0, x.shape[0], high), range(0, x.shape[1], wide)):
        place = slice(top, top + high), slice(left, left + wide)
        block, amax = x[place], np.abs(x[place]).max()
        if fmt.two_level:
            scale = np.float32(np.float32(amax / np.float32(largest)) / whole).astype(PEER["E4M3"]).astype("f4") * whole
        elif fmt.rule == "exact":
            scale = amax / np.float32(largest)
        elif fmt.rule == "floor":
            scale = np.float32(2.0 ** (math.floor(math.log2(amax)) - math.floor(math.log2(largest))))
        else:
            scale = np.float32(2.0 ** math.ceil(math.log2(float(amax)) - math.log2(largest)))
        small = np.clip(block / scale, -largest, largest)
        small = np.round(small) if fmt.values.name.startswith("INT") else small.astype(PEER[fmt.values.name])
        after[place] = small.astype("f4") * scale
        cut = int((np.abs(block / scale) > largest + step).sum())
        beyond, groups = beyond + cut, groups + (cut > 0)
        at = np.unravel_index(np.abs(block).argmax(), block.shape)
        peaks.append(abs(float(after[place][at])) / float(amax) - 1)
        inside = [column - left for column in others if left <= column < left + wide]
        if inside:
            levels.append(len(np.unique(after[place][:, inside])))
    kept, found = x[:, others].astype("f8"), after[:, others].astype("f8")
    off = np.linalg.norm(found - kept)
    return {
        "error": off / np.linalg.norm(kept), "spread_error": off / np.linalg.norm(kept - kept.mean()),
        "flushed": np.mean((found == 0) & (kept != 0)), "saturated": beyond / x.size,
        "groups_saturated": groups / len(peaks), "peak": np.mean(peaks), "levels": np.mean(levels),
        "bits": fmt.bits_per_value(*x.shape),
    }  # fmt: skip


@pytest.mark.parametrize("values", [name for name in CHOICES if name != SMALL])
@pytest.mark.parametrize(
    "fmt",
    [scaled_format(*names) for names in (
        ("INT8", "tensor", "exact"), ("INT8", "column", "exact"), ("E4M3", "tensor", "exact"), ("E4M3", "1×32", "up"),
        ("E2M1", "1×32", "floor"), ("E2M1", "1×16", "two-level"), ("INT4", "16×16", "up"), ("E2M3", "row", "floor"),
    )],
    ids=str,
)  # fmt: skip
def test_the_numbers_are_numpy_s(values: str, fmt: ScaledFormat) -> None:
    chosen, view = data()[values], view_of(values, fmt)
    for x, found in ((chosen.picture, view.picture), (chosen.matrix, view.matrix)):
        for name, number in by_hand(x.numpy(), fmt, chosen.outlier).items():
            assert getattr(found, name) == pytest.approx(number, rel=2e-6, abs=1e-7), name


@pytest.mark.parametrize("name", GranularityPanel.jumps)
def test_every_preset_shows_what_mpkit_scaled_reports(panel: GranularityPanel, name: str) -> None:
    panel.presets[name].click()
    jump, view = GranularityPanel.jumps[name], panel.view
    assert {key: getattr(panel, key) for key in jump} == jump
    matrix = data()[jump["values"]].matrix
    told = report(matrix, view.fmt)
    assert (view.matrix.saturated, view.matrix.groups_saturated) == (told.saturated, told.blocks_saturated)
    assert view.matrix.bits == told.bits
    assert panel.headline() == TITLES[name]
    assert panel.picture.tooltip == TITLES[name]
    assert TITLES[name] in panel.words.value.replace("&#x27;", "'")
    assert panel.message.value == ""


def test_the_named_formats_are_the_library_s(panel: GranularityPanel) -> None:
    for fmt, groups, scales in ((MXFP8, "1×32", "up"), (MXFP4, "1×32", "up"), (NVFP4, "1×16", "two-level")):
        panel.choose(values="no outlier", format=fmt.values, groups=groups, scales=scales)
        assert panel.headline().startswith(f"{fmt.name}: weights are off by")
        matrix = data()["no outlier"].matrix
        assert panel.view.matrix.after.tolist() == cast_repeatably(matrix, fmt, "nearest").tolist()


def test_the_story_of_the_issue() -> None:
    """Integers need a scale of their own for the outlier, a float does not before ×10⁴."""
    off = {
        (fmt, groups, values): view_of(values, scaled_format(fmt, groups, "exact")).matrix.error
        for fmt, groups, values in itertools.product(("INT8", "E4M3"), ("tensor", "column"), FACTORS)
    }
    assert all(off["INT8", "column", values] < 0.01 for values in FACTORS)
    assert [round(off["INT8", "tensor", values], 2) for values in FACTORS] == [0.01, 0.17, 1, 1]
    assert [round(off["E4M3", "tensor", values], 3) for values in FACTORS] == [0.027, 0.026, 0.025, 0.095]


def test_stochastic_rounding_keeps_the_mean_and_torch_s_random_numbers(panel: GranularityPanel) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    view_of(SMALL, NVFP4)
    assert torch.equal(torch.get_rng_state(), before)
    panel.choose(**GranularityPanel.jumps["nearest or stochastic"])
    rounded = panel.view.rounded
    assert rounded["nearest"].constant == 0
    # A draw is 0.5 with probability 0.4: its spread is 0.245; 64 x 60 values of 64 draws, four standard errors.
    assert rounded["mean"].constant == pytest.approx(0.2, abs=4 * 0.245 / (64 * 60 * 64) ** 0.5)
    assert rounded["once"].picture.error > rounded["nearest"].picture.error > 5 * rounded["mean"].picture.error
    assert set(rounded["once"].picture.after.unique().tolist()) <= {0.0, 0.5, 1.0, 6.0}


@pytest.mark.parametrize("block", GROUPS.values())
def test_the_draws_have_the_scales_of_one_matrix(block: tuple[int | None, int | None]) -> None:
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    fmt = ScaledFormat("x", E2M1, block)
    near = (mean_of_draws(x, fmt) - x).abs().max() / x.abs().max()
    assert near < 0.16, "a third of the largest step, 2 of 6; the mean of 64 draws lies well within"
    with pytest.raises(ValueError, match="30 rows do not fit blocks of 16; their copies would share scales"):
        mean_of_draws(x[:30], ScaledFormat("x", E2M1, (16, 16)))


def test_what_is_not_counted_and_what_has_no_spread() -> None:
    x = torch.full((2, 4), 2.0)
    x[:, 1] = 100
    fmt = ScaledFormat("x", INT8)
    found = effect(x, fmt, outlier=(1, 9))
    assert (found.levels, found.members) == (1, 6)
    assert math.isnan(found.spread_error)
    assert about(x, torch.zeros_like(x), fmt, (1,)).flushed == 1
    assert about(x, x, fmt, (1,)).error == 0


# ---- the data ----


def test_the_data_are_what_they_are_called() -> None:
    light = picture()
    assert light.shape == (128, 128)
    assert 0 < float(light.min()) < 0.04 < 0.99 < float(light.max()) <= 1
    assert light.unique().numel() > 5000, "a picture of all greys"
    for name, factor in FACTORS.items():
        chosen = data()[name]
        for x, plain in ((chosen.picture, light), (chosen.matrix, data()["no outlier"].matrix)):
            assert torch.equal(x[:, COLUMN], plain[:, COLUMN] * factor)
            assert torch.equal(x[:, :COLUMN], plain[:, :COLUMN])
    assert float(data()[GAINS].matrix.std()) == pytest.approx(0.02, rel=0.05)
    assert float(data()[GAINS].picture.std()) == pytest.approx(0.02, rel=1e-3)
    small = data()[SMALL]
    assert small.matrix.unique().tolist() == pytest.approx([0.2, 6.0])
    assert [int((block == 6).sum()) for block in small.picture[0].split(16)] == [1] * 8, "one a block"


# ---- the picture and the words ----


def pane(panel: GranularityPanel, number: int) -> np.ndarray:
    (left, side), pixels = PANES[number], page_pixels(panel.png())
    return pixels[TOP + 4 : TOP + side - 4, left + 4 : left + side - 4]


def test_the_first_picture_makes_the_point(panel: GranularityPanel) -> None:
    assert panel.headline() == TITLES["an outlier in INT8"]
    assert page_size(panel.png()) == SIZE
    assert len(np.unique(pane(panel, 0))) > 20
    assert np.mean(pane(panel, 1) == 0) > 0.98, "the picture is gone"
    assert len(np.unique(pane(panel, 2).reshape(-1, 3), axis=0)) > 20
    assert np.mean(pane(panel, 3) == 255) > 0.95
    assert tuple(page_pixels(panel.png())[2, 2]) == (255, 255, 255)
    panel.format = E4M3
    assert np.abs(pane(panel, 1) - pane(panel, 0)).mean() < 8, "and is there again"
    assert panel.view.matrix.error < 0.03


def test_the_title_leaves_the_other_sharings_to_the_learner(panel: GranularityPanel) -> None:
    """It said "one scale a column: 0.6%" before anybody had tried: the answer to the first question below it."""
    for groups in ("tensor", "row", "column"):
        panel.groups = groups
        assert panel.headline().count("one scale") == 1
    panel.format = E4M3
    assert panel.headline() == "E4M3, one scale a column: beside the outlier weights are off by 2.5%"


def test_the_example_that_is_shown_looks_pressed(panel: GranularityPanel) -> None:
    def pressed() -> list[str]:
        return [name for name, one in panel.presets.items() if "mod-active" in one._dom_classes]

    assert pressed() == ["an outlier in INT8"]
    panel.presets["layer-norm gains collapse"].click()
    assert pressed() == ["layer-norm gains collapse"]
    panel.scales = "floor"
    assert pressed() == []
    assert panel.box.children[0].children[0].value == "examples"


def test_blocks_keep_the_damage_local(panel: GranularityPanel) -> None:
    panel.groups = "1×32"
    side = PANES[1][1]
    before, after = (pane(panel, number).mean(axis=(0, 2)) for number in (0, 1))
    dark = [round((place + 4) * 128 / side) for place in np.flatnonzero(after < before / 2)]
    assert (min(dark), max(dark)) == pytest.approx((32, 63), abs=1)


def test_each_control_changes_the_picture_and_comes_back(panel: GranularityPanel) -> None:
    first = panel.png()
    for name, offers in (("values", CHOICES), ("format", FORMATS.values()), ("groups", GROUPS), ("scales", SCALES)):
        seen = {first}
        for value in offers:
            setattr(panel, name, value)
            assert page_size(panel.png()) == SIZE
            seen.add(panel.png())
        assert len(seen) == len(list(offers)), name
        setattr(panel, name, START[name])
        assert panel.png() == first
    assert len(panel.controls) == 4, "at most four controls"
    assert all(control.description for control in panel.controls.values())


def test_every_title_fits_and_every_state_has_words() -> None:
    for values, fmt, groups, scales in itertools.product(CHOICES[2:], FORMATS, ("tensor", "1×32", "16×16"), SCALES):
        if values == SMALL and fmt not in ("E2M1", "INT8"):
            continue
        title = headline(view_of(values, scaled_format(fmt, groups, scales)))
        assert _fitting(title, 19, True, SIZE[0] - 12) >= 14, title
        assert "nan" not in title, title


def test_it_tells_those_who_cannot_see_it(panel: GranularityPanel) -> None:
    data_, metadata = panel._repr_mimebundle_()
    assert data_["text/plain"] == panel.summary()
    assert metadata["image/png"]["alt"] == panel.alt()
    assert panel.alt().startswith(f"{panel.headline()}. Left to right: a picture before and after, and the values of")
    assert "bits a value, scales included 8.01" in panel.alt()
    assert "different values in a group 1 of 4,032" in panel.alt()
    panel.choose(**GranularityPanel.jumps["nearest or stochastic"])
    assert "a picture before and after rounding three ways" in panel.alt()
    assert "mean of 64: 0.2 becomes, on average 0.200" in panel.alt()
    panel.choose(**GranularityPanel.jumps["MX, floor or up"])
    assert "how the largest weight of each group changes, by floor and rounded up" in panel.alt()


def test_floor_and_up_are_shown_side_by_side(panel: GranularityPanel) -> None:
    """A group has one colour, for its largest: by the floor a fifth lies beyond, and shrinks; up they move less."""
    panel.choose(**GranularityPanel.jumps["MX, floor or up"])
    floor, up = panel.view.peaks
    assert floor.shape == (64, 64)
    assert torch.equal(floor[:, :1].expand(64, 32), floor[:, :32])
    assert float(floor.mean()) == pytest.approx(panel.view.matrix.peak, rel=1e-5)
    assert float(up.mean()) == pytest.approx(panel.view.reference.peak, rel=1e-5)
    assert float((floor < -0.14).double().mean()) > 0.15 > float((up < -0.14).double().mean())
    blue = [(pane(panel, number)[..., 2].astype(int) - pane(panel, number)[..., 0]).mean() for number in (2, 3)]
    assert blue[0] > blue[1] + 20


def test_gains_of_which_nothing_is_left_are_said_so() -> None:
    gone = headline(view_of(GAINS, NVFP4))
    assert gone == "NVFP4: 16 gains of 1 ± 0.02 become 1 value; nothing of what sets them apart is left"
    more = headline(view_of(GAINS, scaled_format("INT4", "tensor", "exact")))
    assert more.endswith("become 2.0 different values; the error is 3.1× what sets them apart")


# ---- what is junk ----


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        (
            "values",
            "outlier",
            ValueError,
            "values 'outlier' is not in this panel; use one of 'no outlier', 'outlier ×30'",
        ),
        ("values", None, ValueError, "values None is not in this panel"),
        ("format", FP16, ValueError, "format FP16 is not in this panel"),
        ("format", "INT8", TypeError, r"format is a format, such as mpkit.scaled.INT8, but 'INT8' \(str\) came"),
        ("groups", "block", ValueError, "groups 'block' is not in this panel; use one of 'tensor', 'row'"),
        ("groups", (1, 32), ValueError, r"groups \(1, 32\) is not in this panel"),
        ("scales", "ceil", ValueError, "scales 'ceil' is not in this panel; use one of 'exact', 'up', 'floor', 'two-"),
    ],
)
def test_junk_is_refused_and_changes_nothing(
    panel: GranularityPanel, name: str, value: Any, error: type[Exception], text: str
) -> None:
    before = panel.png(), panel.summary()
    with pytest.raises(error, match=text):
        setattr(panel, name, value)
    assert (panel.png(), panel.summary()) == before


def test_it_starts_where_it_is_told_and_nowhere_else() -> None:
    plain = GranularityPanel()
    assert {name: getattr(plain, name) for name in plain.controls} == START
    made = GranularityPanel(values="no outlier", format=E2M3, groups="1×32", scales="up")
    assert made.headline().startswith("MXFP6: weights are off by")
    assert (made.format, made.groups) == (E2M3, "1×32")
    with pytest.raises(
        TypeError, match="GranularityPanel has no setting 'rule'; it has values, format, groups, scales"
    ):
        GranularityPanel(rule="up")
    with pytest.raises(ValueError, match="groups 'cell' is not in this panel"):
        GranularityPanel(groups="cell")
