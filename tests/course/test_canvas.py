"""The canvas behind every panel: what moves is drawn where it should be, and what stands still comes back."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image, ImageDraw

from mpkit.course.pictures.canvas import SMALLEST, Canvas, Frame, counts, font, palette
from mpkit.course.pictures.style import EDGE, INK, look

RED, BLUE, GREEN = "#d55e00", "#0072b2", "#009e73"


@pytest.fixture
def plain() -> tuple[Canvas, Axes]:
    """A canvas of 200 x 100 pixels that one axes fills: data (0, 0) is the lower left corner, (20, 10) the other."""
    canvas = Canvas((200, 100), colors=(RED, BLUE, GREEN), density=1)
    with look():
        axes = canvas.figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 20)
        axes.set_ylim(0, 10)
        canvas.freeze()
    return canvas, axes


def pixels(frame: Frame) -> np.ndarray:
    """(height, width, RGB) as a browser would decode them."""
    return np.asarray(Image.open(io.BytesIO(frame.png())).convert("RGB")).astype(int)


def color(name: str) -> list[int]:
    return [int(name[i : i + 2], 16) for i in (1, 3, 5)]


def where(picture: np.ndarray, name: str) -> tuple[int, int, int, int]:
    """First and last column, first and last row that have this colour."""
    rows, columns = np.nonzero((picture == color(name)).all(axis=2))
    return int(columns.min()), int(columns.max()), int(rows.min()), int(rows.max())


def test_a_polygon_covers_exactly_its_data_coordinates(plain: tuple[Canvas, Axes]) -> None:
    canvas, axes = plain
    frame = canvas.frame()
    frame.polygon(axes, [(5, 2), (10, 2), (10, 8), (5, 8)], RED)
    assert where(pixels(frame), RED) == (50, 99, 20, 79)


def test_what_reaches_beyond_the_axes_is_cut_off_there(plain: tuple[Canvas, Axes]) -> None:
    canvas, axes = plain
    frame = canvas.frame()
    frame.polygon(axes, [(-50, -50), (10, -50), (10, 50), (-50, 50)], BLUE)
    assert where(pixels(frame), BLUE) == (0, 99, 0, 99)


def test_cells_fill_an_axes_from_its_upper_left_corner(plain: tuple[Canvas, Axes]) -> None:
    canvas, _ = plain
    axes = canvas.figure.add_axes((0.25, 0.2, 0.5, 0.6))
    frame = canvas.frame()
    frame.cells(axes, np.array([[color(RED), color(BLUE)], [color(BLUE), color(GREEN)], [color(GREEN)] * 2]))
    seen = pixels(frame)
    assert where(seen, RED) == (50, 99, 20, 39)
    assert where(seen, GREEN) == (50, 149, 40, 79)
    assert seen[30, 120].tolist() == seen[50, 60].tolist() == color(BLUE)
    assert seen[70, 60].tolist() == color(GREEN)


def test_a_line_has_its_width_in_pixels_and_its_dashes_in_widths(plain: tuple[Canvas, Axes]) -> None:
    canvas, axes = plain
    frame = canvas.frame()
    frame.line(axes, [(0, 5), (20, 5)], GREEN, width=4)
    assert where(pixels(frame), GREEN) == (0, 199, 48, 51)
    frame = canvas.frame()
    frame.line(axes, [(0, 5), (20, 5)], GREEN, width=4, dash=(0, (5, 5)))
    row = (pixels(frame)[50] == color(GREEN)).all(axis=1)
    starts = np.flatnonzero(row[1:] & ~row[:-1])
    assert 4 <= len(starts) <= 5
    assert set(np.diff(starts)) <= {39, 40, 41}, "five widths of ink, five of gap"


def test_a_mark_sits_on_its_point(plain: tuple[Canvas, Axes]) -> None:
    canvas, axes = plain
    frame = canvas.frame()
    frame.marks(axes, [(10, 5), (15, 2)], "s", RED, size=10, edge=RED)
    left, right, top, bottom = where(pixels(frame), RED)
    assert (round((left + right) / 2), round((top + bottom) / 2)) == pytest.approx((125, 65), abs=2)
    assert 55 <= right - left <= 65


def test_shapes_find_their_place_on_logarithmic_axes() -> None:
    canvas = Canvas((200, 100), [RED, GREEN], density=1)
    axes = canvas.figure.add_axes((0, 0, 1, 1), xlim=(1, 100), ylim=(1, 100), xscale="log", yscale="log")
    axes.set_axis_off()
    canvas.freeze()
    frame = canvas.frame()
    frame.marks(axes, [(10, 10)], "s", RED, size=10, edge=RED)
    left, right, top, bottom = where(pixels(frame), RED)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((100, 50), abs=2)
    frame = canvas.frame()
    frame.line(axes, [(1, 10), (100, 10)], GREEN, width=4)
    assert where(pixels(frame), GREEN) == (0, 199, 48, 51)


def test_words_can_be_placed_by_pixel_or_by_data(plain: tuple[Canvas, Axes]) -> None:
    canvas, axes = plain
    by_pixel, by_data = canvas.frame(), canvas.frame()
    by_pixel.text((100, 50), "mm", RED, 20, anchor="mm")
    first = by_pixel.image()
    by_data.text((10, 5), "mm", RED, 20, anchor="mm", axes=axes)
    assert first.tobytes() == by_data.image().tobytes()
    left, right, top, bottom = where(np.asarray(first).astype(int), RED)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((100, 50), abs=4)


def test_the_next_frame_starts_from_the_still_part(plain: tuple[Canvas, Axes]) -> None:
    canvas, axes = plain
    before = pixels(canvas.frame())
    frame = canvas.frame()
    frame.polygon(axes, [(0, 0), (20, 0), (20, 10), (0, 10)], RED)
    assert not np.array_equal(pixels(frame), before)
    assert np.array_equal(pixels(canvas.frame()), before)


def test_colours_that_only_a_later_frame_uses_come_out_exactly(plain: tuple[Canvas, Axes]) -> None:
    canvas, axes = plain
    canvas.frame().png()
    frame = canvas.frame()
    frame.polygon(axes, [(0, 0), (20, 0), (20, 10), (0, 10)], GREEN)
    assert (pixels(frame)[5, 5] == color(GREEN)).all()


def test_edges_have_their_colours_whatever_was_drawn_first(plain: tuple[Canvas, Axes]) -> None:
    canvas, axes = plain
    canvas.frame().png()  # empty: nothing of what follows is in it
    frame = canvas.frame()
    frame.line(axes, [(1, 1), (19, 9)], RED, width=3)
    frame.marks(axes, [(4, 8), (8, 7)], "o", BLUE)
    off = np.abs(pixels(frame) - np.asarray(frame.image()).astype(int)).max(axis=2)
    assert (off > 16).sum() <= 5
    assert off.max() <= 32


def test_the_palette_keeps_given_colours_and_has_room_for_a_photo() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    table = palette(Image.fromarray(noise), colors=(RED,)).getpalette()
    assert table is not None
    assert color(RED) in [table[i : i + 3] for i in range(0, len(table), 3)]
    assert len(table) <= 3 * 256


def test_a_frame_before_freeze_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"the still part of this canvas has not been drawn; call freeze\(\) first"):
        Canvas((10, 10)).frame()


def test_one_typeface_is_loaded_once_a_size() -> None:
    assert font(15) is font(15)
    assert font(15) is not font(15, bold=True)
    assert font(15).getname()[0] == "DejaVu Sans"


def test_words_look_the_same_wherever_they_were_drawn_first(plain: tuple[Canvas, Axes]) -> None:
    """Their shape is kept between frames: at a fraction of a pixel, in another colour, in two lines."""
    canvas, _ = plain
    for place, words, anchor in (
        ((30.0, 40.0), "mpkit", "la"),
        ((30.0, 40.25), "4,096", "ma"),  # the box of the digits begins below the place
        ((30.25, 40.5), "Training", "mt"),
        ((99.3, 50.75), "two\nlines", "ma"),
        ((0, 99), "gy", "ls"),
    ):
        frame = canvas.frame()
        bare = frame.image()
        pen = ImageDraw.Draw(bare)
        pen.text(place, words, RED, font(15), anchor=anchor, align="center", spacing=0)
        for _ in range(2):
            frame = canvas.frame()
            frame.text(place, words, RED, anchor=anchor)
            off = np.abs(np.asarray(frame.image()).astype(int) - np.asarray(bare).astype(int))
            assert off.max() <= 8, words  # the fraction is rounded to hundredths
        assert (np.asarray(bare) != 255).any()


def test_ticks_stand_outside_the_axes_at_their_coordinates() -> None:
    canvas = Canvas((200, 100), colors=(INK, EDGE), density=1)
    with look():
        axes = canvas.figure.add_axes((0.25, 0.4, 0.7, 0.5), xlim=(0, 10), ylim=(0, 5))
        axes.set_axis_off()
        canvas.freeze()
    frame = canvas.frame()
    frame.ticks(axes, "x", {5: ""})
    frame.ticks(axes, "y", {5: "", 0: "8"})
    dark = np.asarray(frame.image()).min(axis=2) < 200
    columns = (50 + np.flatnonzero(dark[61:64, 50:].all(axis=0))).tolist()  # below the lower edge, at y = 60
    assert columns
    assert all(abs(column - 120) <= 1 for column in columns), "the middle of 50 to 190"
    assert dark[10, 46:49].all() or dark[9, 46:49].all(), "left of the axes, at their upper edge"
    assert dark[52:68, 28:41].any(), "a label left of its tick"
    assert not dark[12:50, :45].any()


def test_counts_are_whole_round_and_end_with_the_axis() -> None:
    assert counts(300) == [0, 50, 100, 150, 200, 250, 300]
    assert counts(20) == [0, 5, 10, 15, 20]
    assert counts(7) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert counts(1999)[-1] == 1750


def test_words_that_would_be_cut_are_written_smaller(plain: tuple[Canvas, Axes]) -> None:
    canvas, _ = plain
    frame = canvas.frame()
    for x, words in ((10, "short"), (10, "as wide as the picture"), (150, "too long to fit " * 3)):
        frame.text((x, 10), words, size=20)
    sizes = [size for _, _, _, size, *_ in frame._words]
    assert sizes[0] == 20
    assert font(sizes[1]).getlength(frame._words[1][1]) <= 190 < font(sizes[1] + 1).getlength(frame._words[1][1])
    assert sizes[2] == SMALLEST, "smaller than that it could not be read"


def test_a_denser_picture_is_the_same_picture() -> None:
    """Each pixel of the page is the mean of its dots, but for the edges of words and lines, which the dots sharpen."""
    seen = []
    for density in (1, 2):
        canvas = Canvas((200, 100), [RED, BLUE, GREEN], density)
        with look():
            axes = canvas.figure.add_axes((0.1, 0.1, 0.8, 0.8), xlim=(0, 20), ylim=(0, 10))
            axes.set_axis_off()
            canvas.freeze()
        frame = canvas.frame()
        frame.polygon(axes, [(2, 2), (8, 2), (8, 8), (2, 8)], BLUE)
        frame.line(axes, [(10, 1), (18, 9)], RED, width=3, dash=(0, (5, 2)))
        frame.marks(axes, [(14, 2)], "s", GREEN, size=12)
        frame.ticks(axes, "x", {5.0: "5"}, size=12)
        frame.text((10, 5), "words", size=14, axes=axes)
        dots = np.asarray(frame.image()).astype(float)
        seen.append(dots.reshape(100, density, 200, density, 3).mean(axis=(1, 3)))
    assert np.abs(seen[0] - seen[1]).mean() < 3
    assert np.abs(seen[0] - 255).mean() > 10, "something was drawn"
