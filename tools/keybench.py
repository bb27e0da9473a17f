"""How soon a panel answers a key, against a naive one: what `python -m mpkit bench --browser` runs.

Each lesson is run in JupyterLab with its peers (tools/naive_pictures.py) in cells below its panels, so both share the
page, the kernel and the browser. Then keys are pressed, in turn on the one and on the other.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import nbformat
from labdriver import Lab, running_lab
from labkeys import press
from labserver import ROOT
from nbformat.v4 import new_code_cell

from mpkit.bench.measure import Case, Sampler

BAR = 0.6  # of the peer's 95th percentile
SLIDER = ".noUi-handle >> nth=0"


@dataclass(frozen=True)
class Control:
    """One panel's control, and the picture that is its peer: `count` axes, `height` pixels in all.

    `cell` is what makes the panel in the lesson, `label` a text that its output has. `places` take the focus in turn,
    each for one of `keys`. `before` is a button that is clicked first, which is not timed.
    """

    lesson: str
    name: str
    cell: str
    label: str
    peer: str
    count: int
    height: int
    places: tuple[str, ...] = (SLIDER,)
    keys: tuple[str, ...] = ("ArrowRight", "ArrowLeft")
    shown: str = "img"
    before: str = ""


TABLE = ".widget-html-content:has(table)"
BUTTONS = ("button:text-is('BF16')", "button:text-is('FP16')")
CONTROLS = (
    Control("00", "first look", "first_look()", "comes out as", "bits", 1, 200, shown=TABLE),
    Control("01", "bit explorer", "BitExplorer()", "toggle the bits of", "bits", 2, 440,
            ("button[title^='mantissa bit 10,']",), ("Space",), TABLE),
    Control("02", "cast explorer", "CastExplorerPanel(", "too large →", "histograms", 2, 640, BUTTONS, ("Enter",)),
    Control("02", "stalling sum", "StallingSumPanel(", "additions", "lines", 1, 470),
    Control("03", "number line", "NumberLinePanel(", "keeper", "lines", 2, 560),
    Control("04", "gradient histogram", "GradientHistogramPanel(", "log2 loss scale", "histograms", 3, 560),
    Control("05", "scaler race", "ScalerRacePanel(", "gradients of", "lines", 1, 560),
    Control("05", "settings sweep", "SettingsSweepPanel(", "recorded", "grid", 1, 420),
    Control("06", "precision race, start", "PrecisionRacePanel(", "against FP32", "lines", 3, 560,
            ("button:text-is('Start')",), ("Enter",), before="Stop"),
    Control("07", "speed lab", "SpeedLabPanel(", "matrix size", "lines", 1, 470),
    Control("07", "memory ledger", "MemoryLedgerPanel(", "parameters", "bars", 1, 400),
    Control("08", "attention", "AttentionPanel(", "head size d", "histograms", 2, 500),
)  # fmt: skip


def cases(stack: ExitStack) -> list[Case]:
    """Every panel that a key moves. The lab starts with the first case that is measured; `stack` ends it."""
    desk = Desk(partial(_lab, stack))
    return [
        Case(f"lesson {one.lesson}, {one.name}", "interact + a new figure", partial(desk.samplers, one), BAR, late=True)
        for one in CONTROLS
    ]


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

    def samplers(self, control: Control) -> tuple[Sampler, Sampler]:
        """Open the control's lesson, unless it lies open. Each sample is the seconds that one key press takes."""
        if control.lesson != self.lesson:
            self._turn_to(control.lesson)
        return self._presses(control), self._presses(peer(control))

    def _turn_to(self, lesson: str) -> None:
        if self.lab is None:
            self.lab, self.folder = self.start()
        elif self.page is not None:
            self.lab.close(self.page)
        self.page, self.lesson = None, ""
        path = next(self.folder.glob(f"{lesson}_*.ipynb"))
        with_peers(path, [control for control in CONTROLS if control.lesson == lesson])
        self.page = self.lab.open(path.name, width=1280)
        self.lab.run_all(self.page)
        self.lesson = lesson

    def _presses(self, control: Control) -> Sampler:
        page: Any = self.page
        panel = page.locator(".jp-OutputArea-output", has=page.get_by_text(control.label, exact=True)).first
        shown, turns = panel.locator(control.shown), zip(cycle(control.places), cycle(control.keys), strict=False)

        def sample() -> float:
            place, key = next(turns)
            if control.before:
                stop = panel.get_by_role("button", name=control.before, exact=True)
                if stop.is_enabled():
                    stop.click()
            self.lab.ask(page)  # nothing of the last press is under way
            panel.locator(place).focus()
            return press(page, panel if control.shown == "img" else shown, key) / 1000

        return sample


def peer(control: Control) -> Control:
    """The control of the naive picture."""
    return Control(
        control.lesson, control.name, "", f"naive {control.name}", control.peer, control.count, control.height
    )


def with_peers(notebook: Path, controls: list[Control]) -> None:
    """Put a cell with its peer below each panel's."""
    lesson = nbformat.read(notebook, 4)
    for control in controls:
        here = next(place for place, cell in enumerate(lesson.cells) if control.cell in cell.source)
        naive = f"show({control.peer!r}, {control.count}, {control.height}, {peer(control).label!r})"
        code = f"import sys\nsys.path.append({str(ROOT / 'tools')!r})\nfrom naive_pictures import show\n{naive}"
        lesson.cells.insert(here + 1, new_code_cell(code))
    nbformat.write(lesson, notebook)
