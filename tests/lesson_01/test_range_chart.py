"""The two still pictures of lesson 01: every limit where it belongs, and nothing cut or covered."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from mpkit import FloatFormat
from mpkit.course.lesson_01.range_chart_picture import range_chart
from mpkit.course.lesson_01.ruler_picture import ruler
from mpkit.course.pictures.still import StillPicture
from mpkit.course.pictures.style import PRECISION
from mpkit.formats import FORMATS

BAND = (2.0**-43, 2.0**-34, 2.0**-13, 2.0**-11)
# log2 of the smallest subnormal and the smallest normal number, and the largest: from the formats' definitions.
LIMITS = {
    "FP32": (-149, -126, (2 - 2**-23) * 2.0**127), "TF32": (-136, -126, (2 - 2**-10) * 2.0**127),
    "FP16": (-24, -14, 65504.0), "BF16": (-133, -126, (2 - 2**-7) * 2.0**127), "E4M3": (-9, -6, 448.0),
    "E5M2": (-16, -14, 57344.0),
}  # fmt: skip
STEP = {"FP32": -23, "TF32": -10, "FP16": -10, "BF16": -7, "E4M3": -3, "E5M2": -2}


@pytest.fixture(scope="module")
def chart() -> StillPicture:
    return range_chart(BAND, "these gradients", "the finding")


@pytest.fixture(scope="module")
def toy() -> StillPicture:
    return ruler(FloatFormat("toy", 3, 2), 4.0)


def bars(ax: Axes) -> dict[float, list[tuple[float, float]]]:
    """Left and right end of each row's bars, the row's place first."""
    rows: dict[float, list[tuple[float, float]]] = {}
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_height() == pytest.approx(0.42):
            row = round(patch.get_y() + 0.21)
            rows.setdefault(row, []).append((patch.get_x(), patch.get_x() + patch.get_width()))
    return rows


def test_bars_end_at_the_limits_of_each_format(chart: StillPicture) -> None:
    drawn = bars(chart.figure.axes[0])
    for row, (low, normal, largest) in enumerate(LIMITS.values()):
        ends = sorted(drawn[-row])
        assert ends[0] == pytest.approx((low, normal))
        assert ends[1] == pytest.approx((normal, math.log2(largest)))
    names = [label.get_text() for label in chart.figure.axes[0].get_yticklabels()]
    assert names == list(LIMITS)


def test_the_spacing_is_that_of_real_neighbours(chart: StillPicture) -> None:
    """torch and numpy know the next number; at a power of two, over the whole line, the picture must agree."""
    for line, (name, (low, normal, _)) in zip(chart.figure.axes[1].get_lines(), LIMITS.items(), strict=True):
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        assert line.get_label() == name
        assert line.get_color() == PRECISION[name]["color"]
        for place in (low, low + 1, normal, 0, 2):
            ulp = max(place, normal) + STEP[name]
            assert np.interp(place, x, y) == pytest.approx(ulp - place)
        if name == "FP16":
            value = np.float16(2.0**-20)
            assert np.interp(-20, x, y) == math.log2(float(np.nextafter(value, np.float16(1)) - value) / 2.0**-20)


def test_the_bands_are_the_gradients(chart: StillPicture) -> None:
    for ax in chart.figure.axes:
        spans = [(p.get_x(), p.get_x() + p.get_width()) for p in ax.patches[:2] if isinstance(p, Rectangle)]
        assert spans == [(-43, -11), (-34, -13)]


def test_every_limit_is_written_and_in_the_alt_text(chart: StillPicture) -> None:
    written = " ".join(text.get_text() for text in chart.figure.axes[0].texts)
    for words in (
        "2⁻¹⁴⁹",
        "2⁻¹³⁶",
        "2⁻²⁴",
        "2⁻¹³³",
        "2⁻⁹",
        "2⁻¹⁶",
        "2⁻¹²⁶",
        "2⁻¹⁴",
        "2⁻⁶",
        "65504",
        "448",
        "57344",
        "3.4e38",
    ):
        assert words in written
        assert words in chart.alt
    assert chart.alt.startswith("the finding. ")
    assert "these gradients: the middle 98 % lie from 2⁻³⁴ to 2⁻¹³." in chart.alt
    assert "the middle 98 % of these gradients" in [text.get_text() for text in chart.figure.legends[0].get_texts()]
    assert all(f"{-STEP[name] + 1} significant bits" in written for name in STEP)


def boxes(figure: Figure) -> dict[str, tuple[float, float, float, float]]:
    """Place of each text on the canvas: left, lower, right, upper."""
    FigureCanvasAgg(figure).draw()  # a bare figure lays out nothing
    found = {}
    texts: list[Text] = [t for ax in figure.axes for t in ax.texts]
    for ax in (ax for ax in figure.axes if ax.axison):
        texts += [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label]
        texts += [t for t in ax.get_children() if isinstance(t, Text) and t not in texts]  # titles
    texts += [t for legend in figure.legends for t in legend.get_texts()] + list(figure.texts)
    for number, text in enumerate(texts):
        if text.get_text().strip() and text.get_visible():
            found[f"{number}: {text.get_text()}"] = text.get_window_extent().extents
    return found


@pytest.fixture(scope="module")
def lesson() -> StillPicture:
    """With the words of the notebook."""
    title = "BF16 reaches as far as FP32; over a third of these gradients lie where FP16 fades out"
    return range_chart(BAND, "a classifier's gradients", title)


@pytest.mark.parametrize("name", ["chart", "toy", "lesson"])
def test_no_text_is_cut_or_covers_another(name: str, request: pytest.FixtureRequest) -> None:
    figure = request.getfixturevalue(name).figure
    width, height = figure.canvas.get_width_height()
    places = boxes(figure)
    out = [k for k, (x0, y0, x1, y1) in places.items() if x0 < 0 or y0 < 0 or x1 > width or y1 > height]
    assert out == []
    touching = [
        (a, b)
        for (a, p), (b, q) in itertools.combinations(places.items(), 2)
        if p[0] < q[2] - 1 and q[0] < p[2] - 1 and p[1] < q[3] - 1 and q[1] < p[3] - 1
    ]
    assert touching == []


@pytest.mark.parametrize(
    "bad", [(1.0, 2.0, 3.0), (0.0, 1.0, 2.0, 3.0), (1.0, 3.0, 2.0, 4.0), (1.0, 2.0, 3.0, math.inf), (math.nan,) * 4]
)
def test_gradients_must_be_four_magnitudes(bad: tuple[float, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"gradients must be four magnitudes above 0 in ascending order \(smallest, 1st"
    ):
        range_chart(bad, "x", "y")


def test_magnitudes_may_come_from_torch_and_a_single_format_is_enough() -> None:
    picture = range_chart(torch.tensor(BAND), "x", "y", [FORMATS["FP16"]])  # type: ignore[arg-type]
    assert picture.png().startswith(b"\x89PNG")


# ---- the ruler ----


def marks(ax: Axes) -> list[float]:
    return [float(np.asarray(line.get_xdata())[0]) for line in ax.get_lines()[1:]]


def test_the_ruler_has_a_mark_for_every_value(toy: StillPicture) -> None:
    quarters = [k / 16 for k in (0, 1, 2, 3)]
    octaves = [2.0**e * (1 + m / 4) for e in (-2, -1, 0, 1) for m in range(4)]
    assert marks(toy.figure.axes[0]) == [*quarters, *octaves, 4.0]
    assert marks(toy.figure.axes[1]) == [0.0, *octaves, 4.0]
    assert "3 evenly spaced marks lie between 0 and 0.25; without, there is none" in toy.alt


def test_all_marks_share_one_line_style_whatever_cycle_the_style_has(monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = {"axes.prop_cycle": cycler(linestyle=["-", "--", ":"])}
    monkeypatch.setattr("mpkit.course.lesson_01.ruler_picture.look", lambda: rc_context(cycle))
    lines = [line for ax in ruler(FloatFormat("toy", 3, 2), 4.0).figure.axes for line in ax.get_lines()]
    assert len(lines) > 30
    assert {line.get_linestyle() for line in lines} == {"-"}


@pytest.mark.parametrize(("fmt", "end"), [(FORMATS["FP16"], 1.0), (FloatFormat("toy", 3, 2), 0.25)])
def test_a_ruler_needs_marks_that_can_be_told_apart(fmt: FloatFormat, end: float) -> None:
    with pytest.raises(ValueError, match=r"a ruler needs an end above .* and at most 64 marks, but end="):
        ruler(fmt, end)
