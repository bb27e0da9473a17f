"""Pictures: colours that everyone can tell apart, exact zones, and numbers that round honestly."""

from __future__ import annotations

import base64
import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from harness.colours import XYZ, contrast, linear
from harness.pictures import page_pixels, page_size
from matplotlib import rc_params_from_file, rcParams
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from mpkit import BF16, E4M3, FP16, FloatFormat, Policy, StepRecord, tally
from mpkit.course.lesson_01.bit_table import BIT
from mpkit.course.lesson_04.gradient_histogram_picture import (
    COLUMN_X,
    HIGH,
    LOW,
    SIZE,
    GradientHistogramFigure,
    Histograms,
    histograms,
)
from mpkit.course.pictures import page, still
from mpkit.course.pictures.comparison import RUNS, _smooth, _styles, comparison
from mpkit.course.pictures.page import HIDE, TELL
from mpkit.course.pictures.still import StillPicture
from mpkit.course.pictures.style import FAINT, GRADIENT, INK, PRECISION, SHEET, ZONE, ZONE_TEXT, look, percent, power
from mpkit.course.pictures.words_fit import refuse_cut, refuse_smeared
from mpkit.course.runs.equivalence import equivalence
from mpkit.course.runs.experiments import Outcome, Variant
from mpkit.course.runs.snapshots import LayerGradients, WhatIf
from mpkit.course.start import STYLE_SHEET

# ---- colours ----

# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency",
# table 1 at severity 1.0, for linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(color: str, vision: str) -> np.ndarray:
    seen = np.clip(VISION[vision] @ linear(color), 0, 1)
    t = XYZ @ seen / XYZ.sum(1)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(a: str, b: str, vision: str) -> float:
    """CIE 1976 colour difference; 2.3 is just noticeable."""
    return float(np.linalg.norm(lab(a, vision) - lab(b, vision)))


PALETTES = {
    "precision": [(s["color"], s["linestyle"], s["marker"]) for s in PRECISION.values()],
    "runs": [(INK, "-", "o"), *RUNS],  # the reference and the others
}


def test_the_colour_arithmetic_knows_black_white_and_grey() -> None:
    for vision in VISION:
        assert lab("white", vision) == pytest.approx([100, 0, 0], abs=0.05)
        assert lab("black", vision) == pytest.approx([0, 0, 0], abs=1e-9)
    assert lab("#ff0000", "usual") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert apart("#ff0000", "#8f7e00", "deuteranopia") < 25 < 80 < apart("#ff0000", "#8f7e00", "usual")
    assert contrast("white", "black") == pytest.approx(21.0)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_stay_apart_with_every_colour_vision(palette: str, vision: str) -> None:
    colors = [color for color, _, _ in PALETTES[palette]]
    distances = {(a, b): apart(a, b, vision) for a, b in itertools.combinations(colors, 2)}
    assert min(distances.values()) > 12, min(distances, key=lambda pair: distances[pair])


@pytest.mark.parametrize("vision", VISION)
def test_pale_areas_that_touch_can_be_told_apart(vision: str) -> None:
    """Zones are pale, so that heaps stand out on them; a line and a name at their border repeat the message."""
    zones = list(ZONE.values())
    assert min(apart(a, b, vision) for a, b in itertools.pairwise(zones)) > 2 * 2.3


@pytest.mark.parametrize("vision", VISION)
def test_groups_of_bits_and_their_zeros_and_ones_can_be_told_apart(vision: str) -> None:
    for bit in (0, 1):
        fills = [BIT[group][bit][0] for group in BIT]
        assert min(apart(a, b, vision) for a, b in itertools.combinations(fills, 2)) > 12
    assert min(apart(zero[0], one[0], vision) for zero, one in BIT.values()) > 40
    assert min(contrast(*look) for looks in BIT.values() for look in looks) > 4.5


@pytest.mark.parametrize("palette", PALETTES)
def test_marker_and_dash_say_it_without_colour(palette: str) -> None:
    _, dashes, markers = zip(*PALETTES[palette], strict=True)
    assert len(set(dashes)) == len(dashes)
    assert len(set(markers)) == len(markers)


def test_text_can_be_read_on_its_ground() -> None:
    pairs = [(ZONE_TEXT[zone], ZONE[zone]) for zone in ZONE] + [
        (text, "white") for text in (*ZONE_TEXT.values(), FAINT)
    ]
    assert [pair for pair in pairs if contrast(*pair) < 4.5] == []


# ---- numbers ----


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"), (1.0, "100%"), (0.00004, "<0.1%"), (1e-12, "<0.1%"), (0.00099, "<0.1%"), (0.001, "0.1%"),
        (0.0123, "1.2%"), (0.0994, "9.9%"), (0.0995, "10%"), (0.09951, "10%"), (0.1, "10%"), (0.384, "38%"),
        (0.994, "99%"), (0.995, "99.5%"), (0.9951, "99.5%"), (0.999, "99.9%"), (0.99901, ">99.9%"), (0.99999, ">99.9%"),
    ],
)  # fmt: skip
def test_percent_never_rounds_to_nothing_or_to_all(share: float, text: str) -> None:
    assert percent(share) == text


def test_only_nothing_is_0_percent_and_only_all_is_100_percent() -> None:
    shares = [k / 10_000 for k in range(10_001)]
    assert [s for s in shares if percent(s) == "0%"] == [0.0]
    assert [s for s in shares if percent(s) == "100%"] == [1.0]
    numbers = [float(percent(s).strip("<>%")) for s in shares]
    assert all(abs(100 * s - n) <= 0.501 for s, n in zip(shares, numbers, strict=True))
    assert numbers == sorted(numbers)


def test_power_writes_superscripts() -> None:
    assert (power(0), power(16), power(-24)) == ("2⁰", "2¹⁶", "2⁻²⁴")
    assert power(-1234567890) == "2⁻¹²³⁴⁵⁶⁷⁸⁹⁰"


def test_the_look_is_borrowed_and_given_back() -> None:
    before = dict(rcParams)
    with look():
        assert rcParams["axes.titleweight"] == "bold"
    assert dict(rcParams) == before


def test_the_style_sheet_is_legible_and_known_to_matplotlib() -> None:
    """Ten points at 100 pixels an inch are 14 pixels. A line that matplotlib does not know would only be logged."""
    sheet = rc_params_from_file(SHEET, use_default_template=False)
    lines = [line for line in SHEET.read_text().splitlines() if line and not line.startswith("#")]
    assert len(sheet) == len(lines)
    assert min(value for key, value in sheet.items() if key.endswith("size") and key != "figure.figsize") >= 10
    assert sheet["figure.dpi"] == 100
    assert STYLE_SHEET == SHEET


# ---- a figure that shows itself ----


def test_a_picture_needs_alt_text_and_has_a_plain_text_that_never_changes() -> None:
    with pytest.raises(ValueError, match="a picture needs alt text that says what it shows; pass alt="):
        StillPicture(Figure(), "  ")
    picture = StillPicture(Figure(figsize=(2, 1)), "an empty frame")
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == repr(picture) == "picture"
    assert metadata["image/png"] == {"alt": "an empty frame", "width": 200, "height": 100}
    assert Image.open(io.BytesIO(picture.png())).size == (400, 200), "sharp on a screen with two dots a pixel"


def test_a_picture_carries_its_description_and_stays_the_same_picture() -> None:
    picture = StillPicture(Figure(figsize=(2, 1)), "2⁻²⁴ → 0")
    data, _ = picture._repr_mimebundle_()
    kept: Any = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    kept.load()
    assert kept.text["Description"] == "2⁻²⁴ → 0"
    assert kept.tobytes() == Image.open(io.BytesIO(picture.png())).tobytes()


def test_before_a_picture_comes_what_gives_it_its_name_in_jupyterlab(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(still, "display", lambda data, **_: shown.append(data))
    picture = StillPicture(Figure(figsize=(2, 1)), "an empty frame")
    for shell in (None, type("Shell", (), {"user_ns": {"__vsc_ipynb_file__": "a.ipynb"}})()):
        monkeypatch.setattr(page, "get_ipython", lambda shell=shell: shell)
        picture._ipython_display_()
    assert shown[0] == {"text/html": HIDE + TELL}, "in JupyterLab; the same on every machine, for nbval compares it"
    assert [set(data) for data in shown[1:]] == [{"image/png", "text/plain"}] * 2


# ---- histograms under a window ----


def known_layers() -> list[torch.Tensor]:
    """Two layers with known gradients: around 2^-30 and around 2^-5."""
    draw = torch.Generator().manual_seed(0)
    return [2.0 ** (torch.randn(400, generator=draw) * 2 + centre) for centre in (-30, -5)]


def of(*layers: torch.Tensor) -> Histograms:
    return histograms([LayerGradients(values, values) for values in layers])


def view_of(log2_scale: int, fmt: FloatFormat = FP16) -> tuple[GradientHistogramFigure, WhatIf]:
    scaled = [x * 2.0**log2_scale for x in known_layers()]
    figure = GradientHistogramFigure(("layer 1 (input)", "layer 2 (output)"))
    reports = tuple(tally(x, fmt) for x in scaled)
    return figure, WhatIf(0, fmt, log2_scale, reports, (None, 0.998), tally(torch.cat(scaled), fmt), 0.9)


def shown(
    figure: GradientHistogramFigure, view: WhatIf, words: str = "", drawn: Histograms | None = None
) -> np.ndarray:
    """The pixels, (height, width, RGB)."""
    return page_pixels(figure.show(view, drawn or of(*known_layers()), words, words).png())


def rgb(color: str) -> list[int]:
    return [round(255 * c) for c in to_rgb(color)]


def at(figure: GradientHistogramFigure, log2_value: float, height: float) -> tuple[int, int]:
    """Row and column of a point of the axes."""
    x, y = figure.canvas.place(figure.axes, (log2_value, height))
    return int(y), int(x)


def test_the_png_is_valid_and_has_its_size() -> None:
    figure, view = view_of(0)
    png = figure.show(view, of(*known_layers()), "title", "subtitle").png()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert page_size(png) == SIZE
    assert len(png) < 200_000


def test_zones_have_exactly_their_colours_at_the_format_s_edges() -> None:
    for fmt in (FP16, E4M3):
        figure, view = view_of(0, fmt)
        picture = shown(figure, view)
        flush, normal, over = (math.log2(v) for v in (fmt.flush_at, fmt.smallest_normal, fmt.overflow_at))
        clear = 0.92  # above the histograms, below the zones' names
        for low, high, zone in ((LOW, flush, "flushed"), (flush, normal, "subnormal"), (normal, over, "normal"),
                                (over, HIGH, "overflow")):  # fmt: skip
            for place in (low + 0.4, high - 0.4):
                assert picture[at(figure, place, clear)].tolist() == rgb(ZONE[zone]), (fmt.name, zone, place)


def test_formats_without_a_zone_leave_it_out() -> None:
    """BF16's limits lie beyond both ends of the axis: all of it is normal."""
    figure, view = view_of(0, BF16)
    picture = shown(figure, view)
    for place in (LOW + 1, -20, 0, HIGH - 1):
        assert picture[at(figure, place, 0.92)].tolist() == rgb(ZONE["normal"])


def test_the_histogram_moves_with_the_scale() -> None:
    figure, view = view_of(0)
    before = shown(figure, view, "same")
    inside = (-5.0, -0.9)  # the foot of the second layer's heap
    assert before[at(figure, *inside)].tolist() == rgb(GRADIENT)
    _, moved = view_of(14)
    after = shown(figure, moved, "same")
    assert after[at(figure, *inside)].tolist() == rgb(ZONE["normal"])
    assert after[at(figure, inside[0] + 14, inside[1])].tolist() == rgb(GRADIENT)
    assert np.array_equal(shown(figure, view, "same"), before), "back at the start, the same picture"


def test_shares_are_written_in_their_columns_and_change() -> None:
    figure, view = view_of(0)
    before = shown(figure, view)
    _, changed = view_of(36)
    after = shown(figure, changed)
    row = at(figure, 0, 0.3)[0]
    for x in COLUMN_X[:3]:
        left = round(x * SIZE[0]) - 20
        box = np.s_[row - 8 : row + 8, left : left + 40]
        assert (before[box] < 200).any(), "there is text"
    left = round(COLUMN_X[0] * SIZE[0]) - 20
    box = np.s_[row - 8 : row + 8, left : left + 40]
    assert not np.array_equal(before[box], after[box]), "from almost all flushed to none"


def test_a_layer_without_gradients_has_an_empty_row() -> None:
    drawn = of(torch.zeros(2), torch.tensor([2.0**-10, 2.0**-9]))
    figure = GradientHistogramFigure(("a", "b"))
    report = tally(torch.zeros(3), FP16)
    view = WhatIf(0, FP16, 0, (report, tally(torch.tensor([0.1]), FP16)), (None, 1.0), report, None)
    picture = shown(figure, view, drawn=drawn)
    assert picture[at(figure, -9.8, 0.1)].tolist() == rgb(ZONE["normal"])
    assert picture[at(figure, -9.8, -0.9)].tolist() == rgb(GRADIENT)


# ---- comparison ----


def outcome(name: str, losses: list[float], scores: tuple[float, ...] = ()) -> Outcome:
    records = [StepRecord(k, v, (v,), 1.0, False, 0.0, 1.0, 0.0) for k, v in enumerate(losses)]
    return Outcome(Variant(name, Policy()), records, scores)


def draw(results: list[Outcome], steps: int = 20, margin: float | None = None) -> Figure:
    by_name = {o.variant.name: o for o in results}
    figure = comparison(by_name, "FP32", "the finding", "test error", steps, "training loss", margin)
    figure.savefig(io.BytesIO(), format="png")
    return figure


FALLING = [1 / (k + 1) for k in range(20)]


def test_with_a_margin_difference_interval_and_margin_are_in_the_picture() -> None:
    """Scores of many runs that all read 1.29 could not show which of them is as good as FP32."""
    base = (1.0, 1.1, 1.2)
    runs = [outcome("FP32", FALLING, base), outcome("near", FALLING, (1.001, 1.099, 1.2)),
            outcome("far", FALLING, (2.0, 2.1, 2.2)), outcome("lost", FALLING, (float("nan"),) * 3)]  # fmt: skip
    figure = draw(runs, margin=0.01)
    right = figure.axes[1]
    assert [label.get_text() for label in right.get_yticklabels()] == ["near", "far", "lost"]
    (interval,) = [line.get_xdata() for line in right.get_lines() if list(line.get_ydata()) == [0, 0]]
    test = equivalence(runs[1].scores, base, 0.01)
    assert list(interval) == pytest.approx([test.low, test.high])
    words = [text.get_text() for text in right.texts]
    assert words == ["+1", "not a number", "as good as FP32: within ±0.01"]
    assert right.get_title(loc="left") == "test error, minus FP32's"
    assert right.get_xlabel() == "mean difference and 90 % interval over 3 seeds"
    refuse_cut(figure)
    refuse_smeared(figure)
    assert draw([], margin=0.01).axes[1].texts[0].get_text().startswith("as good as")


def test_unfinished_runs_have_curves_and_no_scores() -> None:
    figure = draw([outcome("FP32", FALLING, (0.05, 0.06)), outcome("FP16", FALLING[:7])])
    left, right = figure.axes
    assert [line.get_label() for line in left.get_lines()] == ["FP32", "FP16"]
    assert [len(line.get_xdata()) for line in left.get_lines()] == [20, 7]
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["FP32"]
    assert figure.get_suptitle() == "the finding"
    assert left.get_xlim() == (0, 20)
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("training loss", "test error")


def test_a_single_step_and_a_single_seed_can_be_drawn() -> None:
    draw([outcome("FP32", [1.0])])
    draw([outcome("FP16", [1.0])])
    draw([outcome("FP32", FALLING, (0.05,)), outcome("FP16", FALLING, (0.05,))])
    draw([outcome("FP32", FALLING, (90.0, 100.0)), outcome("FP16", FALLING, (0.0, 10.0))])


def test_every_seed_s_score_and_the_mean_are_drawn() -> None:
    figure = draw([outcome("FP32", FALLING, (0.05, 0.06)), outcome("FP16 2", FALLING, (0.07, 0.09))])
    drawn = [line.get_ydata() for line in figure.axes[1].get_lines()]
    assert [list(y) for y in drawn[:4]] == [[0.05, 0.06], [0.055] * 2, [0.07, 0.09], [0.08] * 2]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["FP32", "FP16\n2"]


def test_names_of_many_runs_stand_beside_each_other() -> None:
    names = ["FP32", "2¹⁰", "2²⁰", "2²⁴", "dynamic 2²⁴", "dynamic 2⁴⁰"]
    for some in (names, names[-2:]):
        labels = draw([outcome(name, FALLING, (90.0, 91.0)) for name in some]).axes[1].get_xticklabels()
        assert (labels[0].get_size() == 10.5) is (len(some) == 2)
        boxes = [label.get_window_extent() for label in labels]
        assert all(left.x1 + 3 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_run_that_diverged_is_drawn_and_named(bad: float) -> None:
    healthy = [outcome("FP32", FALLING, (0.05, 0.06)), outcome("FP16", FALLING, (0.05, 0.06))]
    figure = draw([*healthy, outcome("broken", [1.0, 2.0, *[bad] * 18], (bad, bad))])
    left = figure.axes[0]
    assert "above the chart: broken ends at" in left.get_xlabel()
    assert left.get_ylim()[1] < 1, "the healthy runs set the range"
    draw([outcome("broken", [bad] * 3, (bad,)), *healthy])


def test_the_chart_shows_good_runs_from_a_quarter_of_their_steps_on_and_a_bad_one_if_it_fits() -> None:
    """One run fails late and far above, one fails near: the healthy curve stays in sight over most of the axis."""
    slow = [2.0 - 1.8 * k / 39 for k in range(40)]
    results = [outcome("FP32", slow, (90.0, 91.0)), outcome("same", slow, (90.0, 91.0)),
               outcome("near", [1.7] * 40, (75.0, 76.0)), outcome("far", [9.0] * 40, (10.0, 10.0))]  # fmt: skip
    left, right = draw(results, steps=40).axes
    low, high = left.get_ylim()
    assert low < _smooth(np.array(slow))[-1] < slow[10] < high < 9.0
    assert high > 1.7, "this one is in the chart, so it is not mentioned"
    assert left.get_xlabel() == "training step  (above the chart: far ends at 9)"
    assert right.get_yscale() == "log"
    assert draw(results[:3], steps=40).axes[1].get_yscale() == "linear", "75 to 91 is no matter of magnitudes"
    by_name = {o.variant.name: o for o in results}
    accuracy = comparison(by_name, "FP32", "the finding", "accuracy (%)", 40, "training loss").axes[1]
    assert accuracy.get_yscale() == "linear", "it had no tick near 90, where most of the runs were"


def test_smoothing_is_a_mean_of_the_last_ten_and_forgets_what_is_older() -> None:
    values = np.arange(30.0)
    assert _smooth(values)[0] == 0.0
    assert _smooth(values)[3] == pytest.approx(1.5)
    assert _smooth(values)[29] == pytest.approx(24.5)
    values[5] = math.inf
    assert np.isfinite(_smooth(values)).tolist() == [not 5 <= k < 15 for k in range(30)]


def test_the_reference_is_black_and_solid_and_others_differ() -> None:
    styles = _styles([*"abcdefg", "ref"], "ref")
    assert styles["ref"] == (INK, "-", "o")
    assert len(set(styles.values())) == 8
