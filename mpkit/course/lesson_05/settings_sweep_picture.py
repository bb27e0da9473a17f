"""Steps lost and gradients flushed for every pair of initial scale and growth interval: the picture of a sweep."""

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


def does_well(lap: Lap, lost: float = FEW_STEPS, flushed: float = FEW_LOST) -> bool:
    """At most these shares (0 to 1) of the steps are lost, and of the gradients flushed on average."""
    return lap.lost_steps <= lost * len(lap.scales) and lap.mean_flushed <= flushed


def headline(laps: Laps, own: bool = True) -> str:
    """The title: how many settings do well, if torch's is one of them, and what is wrong with the others.

    `own`: the factors are torch's, too, so that one of the settings is.
    """
    well = sum(map(does_well, laps.values()))
    torch = ", torch's own among them" if own and TORCH in laps and does_well(laps[TORCH]) else ""
    title = f"{well or 'None'} of {len(laps)} settings {'does' if well == 1 else 'do'} well{torch}"
    lost = {pair for pair, lap in laps.items() if not does_well(lap, flushed=1.0)}
    flushed = {pair for pair, lap in laps.items() if not does_well(lap, lost=1.0)}
    why = {"lost steps": lost - flushed, "flushing": flushed - lost, "both": lost & flushed}
    fails = ", ".join(f"{len(pairs)} by {what}" for what, pairs in why.items() if pairs)
    return f"{title}. Failed: {fails}" if fails else title


class SweepFigure:
    """The picture for one set of initial scales (columns) and growth intervals (rows)."""

    def __init__(self, inits: Sequence[float], intervals: Sequence[int]) -> None:
        self.inits, self.intervals = list(inits), list(intervals)
        with look():
            self.canvas = Canvas(SIZE, [INK, FAINT, *SHADES])
            self.maps = [self._map(left, name) for left, name in ((0.075, "steps lost"), (0.575, "gradients flushed"))]
            self.canvas.freeze()

    def show(self, laps: Laps, title: str, about: str, own: bool = True) -> Frame:
        """The picture for these laps, by (initial scale, interval); the other squares of the grid stay grey.

        `own`: as for `headline`.
        """
        frame = self.canvas.frame()
        frame.text((12, 10), title, size=19, bold=True)
        frame.text((12, 42), about, size=13, color=FAINT)
        for axes, kind in zip(self.maps, ("lost", "flushed"), strict=True):
            for (init, interval), lap in laps.items():
                x, y = self.inits.index(init), self.intervals.index(interval)
                self._cell(frame, axes, x, y, lap, kind == "lost")
        note = f"Darker is better. ✓ does well: at most {FEW_STEPS:.0%} of the steps lost and {FEW_LOST:.0%} flushed."
        frame.text(
            (12, SIZE[1] - 22),
            f"{note} Thick frame: torch's {'own setting' if own else 'initial scale and interval'}.",
            size=12,
            color=FAINT,
        )
        if TORCH in laps:
            x, y = self.inits.index(TORCH[0]), self.intervals.index(TORCH[1])
            for axes in self.maps:
                frame.line(axes, _square(x, y, 0.46, closed=True), INK, width=2.5)
        return frame

    def _map(self, left: float, name: str) -> Axes:
        wide, high = len(self.inits), len(self.intervals)
        axes = self.canvas.figure.add_axes((left, 0.2, 0.412, 0.58), xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5))
        axes.set_title(name, fontsize=13, weight="normal")
        axes.set_xticks(range(wide), [power(round(math.log2(init))) for init in self.inits])
        axes.set_yticks(range(high), [f"{interval:,}" for interval in self.intervals])
        axes.set_xlabel("initial scale", fontsize=12, labelpad=2)
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
