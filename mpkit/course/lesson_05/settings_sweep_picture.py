"""Steps lost and gradients flushed for every pair of first scale and growth interval: the picture of a sweep."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from mpkit.course.lesson_05.rule_race import Lap
from mpkit.course.lesson_05.scaler_race_words import FEW_LOST
from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import FAINT, INK, look, percent, power

SIZE = (1040, 420)  # pixels
FEW_STEPS = 0.01  # of all
# From bad to good, in every heat map of the course: darker is better. One hue is read in print, too.
SHADES = ("#FFFFFF", "#E9F1FA", "#D3E4F5", "#BDD6EF", "#A7C9EA", "#91BBE4")
NOT_YET = "#E2E2E2"  # of what is not raced: white would say that it does badly
TORCH = (2.0**16, 2000)

Laps = Mapping[tuple[float, int], Lap]


def does_well(lap: Lap) -> bool:
    """Few steps lost, and few gradients flushed on average."""
    return lap.lost_steps <= FEW_STEPS * len(lap.scales) and lap.mean_flushed <= FEW_LOST


def headline(laps: Laps) -> str:
    """The title: how many settings do well, and torch's own among them or not."""
    well = sum(does_well(lap) for lap in laps.values())
    torch = ", torch's own among them" if TORCH in laps and does_well(laps[TORCH]) else ""
    return f"{well or 'None'} of {len(laps)} settings {'does' if well == 1 else 'do'} well{torch}"


class SweepFigure:
    """The picture for one set of first scales (columns) and growth intervals (rows)."""

    def __init__(self, inits: Sequence[float], intervals: Sequence[int]) -> None:
        self.inits, self.intervals = list(inits), list(intervals)
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, *SHADES])
            self.maps = [self._map(left, name) for left, name in ((0.075, "steps lost"), (0.565, "gradients flushed"))]
            self.canvas.freeze()

    def show(self, laps: Laps, title: str, about: str) -> Frame:
        """The picture for these laps, by (first scale, interval); the other squares of the grid stay grey."""
        frame = self.canvas.frame()
        frame.text((12, 10), title, size=19, bold=True)
        frame.text((12, 42), about, size=13, color=FAINT)
        for axes, kind in zip(self.maps, ("lost", "flushed"), strict=True):
            for (init, interval), lap in laps.items():
                x, y = self.inits.index(init), self.intervals.index(interval)
                self._cell(frame, axes, x, y, lap, kind == "lost")
        note = f"Darker is better. ✓ does well: at most {FEW_STEPS:.0%} of the steps lost and {FEW_LOST:.0%} flushed."
        frame.text((12, SIZE[1] - 22), f"{note} Thick frame: torch's own setting.", size=12, color=FAINT)
        if TORCH in laps:
            x, y = self.inits.index(TORCH[0]), self.intervals.index(TORCH[1])
            for axes in self.maps:
                frame.line(axes, _square(x, y, 0.46, closed=True), INK, width=2.5)
        return frame

    def _map(self, left: float, name: str) -> Axes:
        wide, high = len(self.inits), len(self.intervals)
        axes = self.canvas.figure.add_axes((left, 0.2, 0.42, 0.58), xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5))
        axes.set_title(name, fontsize=13, weight="normal")
        axes.set_xticks(range(wide), [power(round(math.log2(init))) for init in self.inits])
        axes.set_yticks(range(high), [str(interval) for interval in self.intervals])
        axes.set_xlabel("first scale", fontsize=12, labelpad=2)
        axes.set_ylabel("grows after (clean steps)", fontsize=12)
        axes.tick_params(labelsize=11, length=0)
        axes.grid(False)
        axes.set_facecolor(NOT_YET)
        axes.vlines([x + 0.5 for x in range(wide - 1)], -0.5, high - 0.5, "white", linewidth=1)
        axes.hlines([y + 0.5 for y in range(high - 1)], -0.5, wide - 0.5, "white", linewidth=1)
        return axes

    def _cell(self, frame: Frame, axes: Axes, x: int, y: int, lap: Lap, lost: bool) -> None:
        steps = len(lap.scales)
        share = lap.lost_steps / steps if lost else lap.mean_flushed
        limit = FEW_STEPS if lost else FEW_LOST
        frame.polygon(axes, _square(x, y, 0.5), shade(share, limit), edge="#FFFFFF")
        words = ("all" if lap.lost_steps == steps else str(lap.lost_steps)) if lost else percent(share)
        frame.text((x, y), words + (" ✓" if does_well(lap) else ""), size=13, anchor="mm", axes=axes)


def shade(share: float, limit: float) -> str:
    """The darkest for nothing lost; each paler one is twice as bad as the one before.

    The fourth from the dark end begins where a setting stops to do well.
    """
    worse = 0 if share == 0 else min(max(math.ceil(math.log2(share / limit)) + 2, 1), len(SHADES) - 1)
    return SHADES[-1 - worse]


def _square(x: int, y: int, half: float, closed: bool = False) -> list[tuple[float, float]]:
    corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    return [*corners, corners[0]] if closed else corners
