"""One update on a format's number line, and the same update a hundred times: the picture of lesson 03."""

from collections.abc import Mapping

import numpy as np

from mpkit.course.lesson_03.landing import KEEPERS, Keeper, Landing, Trail
from mpkit.course.lesson_03.number_line_words import far, waiting
from mpkit.course.lesson_03.one_update import AHEAD, BEHIND, CATCH, CATCH_TEXT, FAINT, GRID, LOOK, OneUpdate
from mpkit.course.pictures.canvas import Canvas, Frame
from mpkit.course.pictures.style import INK, look

SIZE = (1040, 560)  # pixels
TALLEST = 2.15  # the lower picture ends here: more than twice as far as it should be


class NumberLineFigure:
    """A picture that shows one `Landing` at a time, and where each keeper is after the same update many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        with look():
            self.canvas = Canvas(SIZE, [CATCH, CATCH_TEXT, INK, FAINT, GRID, *(LOOK[name][0] for name in KEEPERS)])
            self.page = self.canvas.figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
            self.page.set_axis_off()
            self.line = self.canvas.figure.add_axes((0.012, 0.53, 0.976, 0.31), xlim=(-BEHIND, AHEAD), ylim=(-1.25, 1))
            self.walk = self.canvas.figure.add_axes((0.068, 0.105, 0.55, 0.345))
            self._draw_line()
            self._draw_walk()
            self.canvas.freeze()

    def show(
        self, landing: Landing, trails: Mapping[Keeper, Trail], keeper: Keeper, title: str, subtitle: str
    ) -> Frame:
        """The picture for one landing, every keeper's trail, and the keeper that the learner chose."""
        frame = self.canvas.frame()
        frame.text((12, 10), title, size=21, bold=True)
        frame.text((12, 43), subtitle, color="#444444")
        OneUpdate(frame, self.line, landing, keeper).draw()
        self._walks(frame, landing, trails, keeper)
        self._table(frame, trails, keeper)
        return frame

    def _draw_line(self) -> None:
        self.line.set_axis_off()
        self.line.plot([-BEHIND, AHEAD], [0, 0], color=INK, linewidth=1.2)

    def _draw_walk(self) -> None:
        ax = self.walk
        ax.set(xlim=(0, self.times), ylim=(-0.08, TALLEST))
        ax.set_yticks([0, 0.5, 1, 1.5, 2], ["0 %", "50 %", "100 %", "150 %", "200 %"])
        ax.tick_params(labelsize=10.5)
        ax.set_xlabel("the same update, again and again", fontsize=11, labelpad=2)
        ax.plot([0, self.times], [0, 1], color=INK, linewidth=1.2, linestyle=(0, (1, 2)))
        self.canvas.figure.text(0.068, 0.463, "How far the weight has come (dotted: exact arithmetic)", fontsize=11)

    def _walks(self, frame: Frame, landing: Landing, trails: Mapping[Keeper, Trail], chosen: Keeper) -> None:
        for name in sorted(KEEPERS, key=lambda keeper: keeper == chosen):  # the chosen one lies on top
            color, dash, marker = LOOK[name]
            far = (np.array(trails[name].stored) - landing.weight) / (self.times * landing.update)
            far = np.nan_to_num(far, posinf=2 * TALLEST).clip(-TALLEST, 2 * TALLEST)
            count = np.arange(len(far))
            steps = np.column_stack([np.repeat(count, 2)[1:], np.repeat(far, 2)[:-1]])
            mine = name == chosen
            frame.line(self.walk, steps, color, width=2.6 if mine else 1.0, dash="-" if mine else dash)
            if mine:
                some = count[self.times // 10 :: self.times // 5]
                frame.marks(self.walk, np.column_stack([some, far[some]]), marker, color, size=8)

    def _table(self, frame: Frame, trails: Mapping[Keeper, Trail], chosen: Keeper) -> None:
        left, top = 0.655 * SIZE[0], 0.555 * SIZE[1]
        frame.text((left, top), f"After {self.times} updates the weight has come", size=14, color=INK)
        for row, name in enumerate(KEEPERS):
            y = top + 36 + 34 * row
            color, _, marker = LOOK[name]
            mine = name == chosen
            frame.marks(self.page, [(left + 9, y)], marker, color, size=11 if mine else 8)
            frame.text((left + 26, y), name, size=15, bold=mine, anchor="lm")
            frame.text((left + 200, y), far(trails[name]), size=15, bold=mine, anchor="rm")
            frame.text((left + 212, y), waiting(trails[name]), size=14, color=FAINT, anchor="lm")
