"""How soon a panel answers a key, against a naive one: what `python -m mpkit bench --browser` runs.

Each lesson is run in JupyterLab with its peers (tools/naive_pictures.py) in cells below its panels, so both share the
page, the kernel and the browser. Then keys are pressed, in turn on the one and on the other.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import nbformat
from keyrows import ROWS, Row, Shown, Turn, every
from labdriver import Lab, running_lab
from labkeys import answer
from labserver import ROOT
from nbformat.v4 import new_code_cell

from mpkit.bench.measure import Case, Sampler

BAR = 0.6  # of the peer's 95th percentile
NAIVE = Row("k", tuple(Turn("k", ".noUi-handle >> nth=0", key) for key in ("ArrowRight", "ArrowLeft")), shown="img")


def cases(stack: ExitStack) -> list[Case]:
    """Every control of every panel. The lab starts with the first case that is measured; `stack` ends it."""
    desk = Desk(partial(_lab, stack))
    return [
        Case(
            f"lesson {panel.lesson}, {panel.name}: {row.name}", "interact + a new figure",
            partial(desk.samplers, panel, row), BAR, late=True, within_ms=row.within_ms,
        )
        for panel, row in every()
    ]  # fmt: skip


def _lab(stack: ExitStack) -> tuple[Lab, Path]:
    """A lab, and the folder of lessons that it serves."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    shutil.copytree(ROOT / "notebooks", folder, dirs_exist_ok=True)
    return stack.enter_context(running_lab(folder)), folder


class Desk:
    """The lesson that lies open. `start` gives a running lab and its folder."""

    def __init__(self, start: Callable[[], tuple[Any, Path]]) -> None:
        self.start = start
        self.lesson, self.page = "", None
        self.lab: Any = None

    def samplers(self, panel: Shown, row: Row) -> tuple[Sampler, Sampler]:
        """Open the panel's lesson, unless it lies open. Each sample is the seconds that one key press takes."""
        if panel.lesson != self.lesson:
            self._turn_to(panel.lesson)
        return self._presses(panel.label, row), self._presses(peer(panel), NAIVE)

    def _turn_to(self, lesson: str) -> None:
        if self.lab is None:
            self.lab, self.folder = self.start()
        elif self.page is not None:
            self.lab.close(self.page)
        self.page, self.lesson = None, ""
        path = next(self.folder.glob(f"{lesson}_*.ipynb"))
        with_peers(path, [panel for panel in ROWS if panel.lesson == lesson])
        self.page = self.lab.open(path.name, width=1280)
        self.lab.run_all(self.page)
        self.lesson = lesson

    def _presses(self, label: str, row: Row) -> Sampler:
        page: Any = self.page
        output = page.locator(".jp-OutputArea-output", has=page.get_by_text(label, exact=True)).first
        # The output itself holds a peer's picture: `interact` makes a new one each time.
        shown = output if row.shown == "img" else output.locator(row.shown)
        if row.lead:
            self._ready(output, row.lead)()
            self.lab.ask(page)
        turns = cycle(row.turns)

        def sample() -> float:
            act = self._ready(output, turn := next(turns))
            ms = answer(page, shown, act)
            self._click(output, turn.then)
            if turn.idle:
                output.locator(turn.idle).wait_for()
            return ms / 1000

        return sample

    def _ready(self, output: Any, turn: Turn) -> Callable[[], object]:
        """Do all of a turn but the press, which is returned."""
        page: Any = self.page
        self._click(output, turn.before)
        place = output.locator(turn.place)
        if turn.text and turn.key:
            place.fill(turn.text)
        self.lab.ask(page)  # nothing of the last press is under way
        place.focus()
        return partial(page.keyboard.press, turn.key) if turn.key else partial(place.select_option, turn.text)

    def _click(self, output: Any, names: tuple[str, ...]) -> None:
        for name in names:
            button = output.get_by_role("button", name=name, exact=True)
            if button.is_visible() and button.is_enabled():
                button.click()
                self.lab.ask(self.page)


def peer(panel: Shown) -> str:
    """The label of the naive picture's slider."""
    return f"naive {panel.name}"


def with_peers(notebook: Path, panels: list[Shown]) -> None:
    """Put a cell with its peer below each panel's, and leave out what comes after the last."""
    lesson = nbformat.read(notebook, 4)
    for panel in panels:
        here = next(place for place, cell in enumerate(lesson.cells) if panel.cell in cell.source)
        naive = f"show({panel.peer!r}, {panel.count}, {panel.height}, {peer(panel)!r})"
        code = f"import sys\nsys.path.append({str(ROOT / 'tools')!r})\nfrom naive_pictures import show\n{naive}"
        lesson.cells.insert(here + 1, new_code_cell(code))
    last = max(place for place, cell in enumerate(lesson.cells) if "naive_pictures" in cell.source)
    del lesson.cells[last + 1 :]
    nbformat.write(lesson, notebook)
