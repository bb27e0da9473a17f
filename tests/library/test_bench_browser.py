"""`bench --browser` without a browser: which panels, peers and keys, and what is said where something lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mpkit.bench import browser, table
from mpkit.bench.measure import Case, Row, line, measure
from mpkit.course.lesson_00.doctor import doctor_panel

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("playwright")
import ipywidgets as widgets  # noqa: E402
import keybench  # noqa: E402
import keyrows  # noqa: E402
import labdriver  # noqa: E402
import naive_pictures  # noqa: E402
import panelbench  # noqa: E402


class Place:
    """A locator that writes down what is done to it."""

    def __init__(self, done: list[str], name: str) -> None:
        self.done, self.name, self.first, self.keyboard = done, name, self, Keyboard(done)

    def locator(self, selector: str, **_: Any) -> Place:
        return Place(self.done, selector)

    def get_by_role(self, _role: str, name: str, **_: Any) -> Place:
        return Place(self.done, name)

    def is_enabled(self) -> bool:
        return True

    def is_visible(self) -> bool:
        return True

    def wait_for(self) -> None:
        self.done.append(f"wait for {self.name}")

    def fill(self, text: str) -> None:
        self.done.append(f"type {text}")

    def select_option(self, option: str) -> None:
        self.done.append(f"choose {option}")

    def focus(self) -> None:
        self.done.append(f"focus {self.name}")

    def click(self) -> None:
        self.done.append(f"click {self.name}")

    def get_by_text(self, text: str, **_: Any) -> Place:
        return Place(self.done, text)


class Keyboard:
    """Writes down what is pressed."""

    def __init__(self, done: list[str]) -> None:
        self.press = done.append


class FakeLab:
    """A lab whose pages are `Place`s. It answers every key after 50 ms, and every naive one after 100 ms."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def open(self, name: str, width: int) -> Place:
        self.done.append(f"open {name[:2]}")
        return Place(self.done, "page")

    def run_all(self, page: Place) -> None:
        self.done.append("run")

    def close(self, page: Place) -> None:
        self.done.append("close")

    def ask(self, page: Place) -> None:
        pass


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeLab:
    lab = FakeLab()
    waits = iter([50.0, 100.0] * 1000)

    def answer(page: Place, shown: Place, act: Callable[[], object]) -> float:
        act()
        return next(waits)

    monkeypatch.setattr(keybench, "answer", answer)
    monkeypatch.setattr(keybench, "_lab", lambda stack: (lab, tmp_path))
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        (tmp_path / notebook.name).write_text(notebook.read_text(encoding="utf-8"), encoding="utf-8")
    return lab


SLIDER = "focus .noUi-handle >> nth=0"


def case_of(name: str) -> Case:
    [found] = [case for case in keybench.cases(ExitStack()) if case.name.endswith(name)]
    return found


def test_ours_and_the_peer_are_pressed_in_turn(lab: FakeLab, tmp_path: Path) -> None:
    first, *_, last = keybench.cases(ExitStack())
    assert lab.done == [], "nothing starts before a row is measured"
    middle, late = measure(first, 4)
    assert middle == Row("lesson 00, first look: k, p50", 50.0, first.peer, 100.0, 0.5, (0.5, 0.5), None, None)
    assert late == Row("lesson 00, first look: k, p95", 50.0, first.peer, 100.0, 0.5, None, 0.6, True)
    ours = f"focus {keyrows.labelled('k', '.noUi-handle')}"
    pairs = [[ours, "ArrowRight", SLIDER, naive] for naive in ("ArrowRight", "ArrowLeft") * 3]
    assert lab.done == ["open 00", "run", ours, "Home", *(step for pair in pairs[:5] for step in pair)]
    lab.done.clear()
    measure(last, 1)
    assert lab.done[:3] == ["close", "open 11", "run"]
    cells = json.loads((next(tmp_path.glob("11_*"))).read_text())["cells"]
    places = [place for place, cell in enumerate(cells) if "naive" in str(cell)]
    assert len(places) == 1, "lesson 11 has one panel"
    assert places[-1] == len(cells) - 1, "the rest is left out"


def test_a_training_is_started_before_and_ended_after(lab: FakeLab) -> None:
    measure(case_of("precision race: Start"), 1)
    start = ["focus button:text-is('Start')", "Enter", "click Stop"]
    assert lab.done == ["open 06", "run", *start, SLIDER, "ArrowRight", *start, SLIDER, "ArrowLeft"]
    lab.done.clear()
    measure(case_of("scaler race: Pause and Resume"), 1)
    pause = ["focus button:text-matches('^(Pause|Resume)$')", "Enter"]
    assert lab.done[2:] == ["click bad start", "click Train live", *pause, SLIDER, "ArrowRight", *pause, "click Stop",
                            SLIDER, "ArrowLeft"]  # fmt: skip


def test_fields_are_typed_into_and_menus_chosen_from(lab: FakeLab) -> None:
    measure(case_of("stalling sum: add"), 1)
    field = f"focus {keyrows.labelled('add', 'input')}"
    assert lab.done[2:8] == ["type 1", field, "Enter", "type 0.1", field, "Enter"]
    lab.done.clear()
    measure(case_of("cast explorer: values"), 1)
    menu = f"focus {keyrows.labelled('values', 'select')}"
    assert lab.done[2:6] == [menu, "choose every size, 2⁻⁴⁰ to 2²⁰", menu, "choose normal: mean 0, sd 1"]


def test_what_starts_long_work_has_a_bar_of_its_own(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    _, late = measure(case_of("doctor: Examine again"), 1)
    assert "wait for button:enabled" in lab.done
    assert (late.met, late.note) == (True, "within 100 ms")
    monkeypatch.setattr(keybench, "answer", lambda page, shown, act: next(waits))
    waits = iter([101.0, 1000.0] * 2)
    _, late = measure(case_of("doctor: Examine again"), 1)
    assert (late.ratio, late.met) == (0.101, False)


def test_a_sweep_is_over_before_the_next_press(lab: FakeLab) -> None:
    """Else what is left of it would slow the peer."""
    _, late = measure(case_of("settings sweep: growth"), 1)
    place, wait = f"focus {keyrows.labelled('growth', '.noUi-handle')}", f"wait for {keyrows.SWEPT}"
    peer = SLIDER, "ArrowRight"
    assert lab.done[2:] == [place, "Home", place, "ArrowRight", wait, *peer, place, "ArrowRight", wait, *peer[:1],
                            "ArrowLeft"]  # fmt: skip
    assert late.note == "within 100 ms"
    panel = MAKERS["lesson 05, settings sweep"]()
    assert f"text-is({panel.count.value!r})" in keyrows.SWEPT


def test_a_lesson_that_fails_gives_a_row_that_says_so(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "run_all", lambda page: 1 / 0)
    [row] = measure(keybench.cases(ExitStack())[0], 4)
    assert line(row).endswith("no figure: ZeroDivisionError: division by zero")


def test_every_lesson_has_its_panels() -> None:
    panels = {one.cell.split("= ")[-1].split("(")[0] for one in keyrows.ROWS}
    shown = {
        name
        for notebook in (ROOT / "notebooks").glob("*.ipynb")
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for name in re_panels("".join(cell["source"]))
        if cell["cell_type"] == "code"
    }
    assert shown == panels
    assert {one.lesson for one in keyrows.ROWS} == {f"{number:02d}" for number in range(12)}


MAKERS = {case.name: case.make for case in panelbench.cases("cpu")} | {"lesson 00, doctor": doctor_panel}
PRESSED = (widgets.Button, widgets.ToggleButton, widgets.ValueWidget)
TOLD = (widgets.HTML, widgets.Label, widgets.Image, widgets.IntProgress)  # have a value that nobody sets by hand


def controls(widget: widgets.Widget) -> Iterator[str]:
    """The labels of all that can be pressed in a widget; a bit's is in its tooltip."""
    if isinstance(widget, PRESSED) and not isinstance(widget, TOLD):
        yield widget.tooltip.split(", ")[0] if widget.description in ("0", "1") else widget.description
    for child in getattr(widget, "children", ()):
        yield from controls(child)


@pytest.mark.parametrize("panel", keyrows.ROWS, ids=lambda panel: f"{panel.lesson} {panel.name}")
def test_every_control_of_every_panel_has_a_row(panel: keyrows.Shown) -> None:
    made = MAKERS[f"lesson {panel.lesson}, {panel.name}"]()
    turns = [turn for row in keyrows.ROWS[panel] for turn in row.turns]
    pressed = {turn.control for turn in turns} | {"more" for turn in turns if "more" in turn.before}
    assert sorted(controls(made.box)) == sorted(pressed)


def test_a_control_without_a_row_would_be_found() -> None:
    box = widgets.VBox([widgets.HBox([widgets.Checkbox(description="new")]), widgets.Label("told"), widgets.HTML("")])
    assert list(controls(box)) == ["new"]


@pytest.mark.parametrize(("panel", "row"), list(keyrows.every()), ids=lambda one: one.name)
def test_what_is_chosen_is_offered(panel: keyrows.Shown, row: keyrows.Row) -> None:
    """An option that the panel lacks would only be found after a minute in the browser."""
    made = MAKERS[f"lesson {panel.lesson}, {panel.name}"]()
    for turn in row.turns:
        found = [one for one in _walk(made.box) if getattr(one, "description", "") == turn.control]
        if turn.place.endswith("select"):
            assert turn.text in found[0]._options_labels
        elif found and isinstance(found[0], widgets.ToggleButtons):
            assert any(f"text-is({name!r})" in turn.place for name in found[0]._options_labels), turn


def _walk(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _walk(child)


def re_panels(source: str) -> list[str]:
    """Names of the panels that a cell imports."""
    words = source.replace(",", " ").replace("(", " ").split()
    return [word for word in words if word.endswith("Panel") or word in ("first_look", "BitExplorer", "doctor_panel")]


@pytest.mark.parametrize("kind", naive_pictures.PICTURES)
def test_every_naive_picture_changes_with_its_slider(kind: str) -> None:
    assert kind in {one.peer for one in keyrows.ROWS}
    pictures = []
    for k in (8, 9):
        figure, axes = naive_pictures.plt.subplots(2, 1, squeeze=False)
        naive_pictures.PICTURES[kind](list(axes.flat), k)
        figure.canvas.draw()
        pictures.append(bytes(figure.canvas.buffer_rgba()))
        naive_pictures.plt.close(figure)
    assert pictures[0] != pictures[1]


def test_the_95th_percentile_has_a_row_and_the_bar() -> None:
    ours, theirs = iter([9.0] + [1.0] * 18 + [5.0, 9.0]), iter([9.0] + [2.0] * 20)  # the first pair is a warm-up
    case = Case("keys", "peer", lambda: (ours.__next__, theirs.__next__), 0.6, late=True)
    middle, late = measure(case, 20)
    assert (middle.name, middle.ours_ms, middle.ratio, middle.bar, middle.met) == ("keys, p50", 1000, 0.5, None, None)
    assert (late.name, late.ours_ms, late.peer_ms, late.ratio, late.met) == ("keys, p95", 9000, 2000, 4.5, False)
    assert line(late).split()[-2:] == ["0.6", "NO"]


# ---- what is said where something lacks ----


def test_the_other_rows_need_no_browser() -> None:
    tell = "print([name for name in ('playwright', 'labdriver', 'keybench') if name in sys.modules])"
    code = f"import sys, mpkit.bench.table; {tell}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("lacks", "text"),
    [
        (
            "checkout",
            "--browser opens the lessons, which an installed mpkit lacks; run it from a checkout of",
        ),
        ("playwright", "--browser needs playwright, not installed here; pip install -r requirements.txt."),
        ("chromium", "--browser needs Chromium and there is none; install chromium or google-chrome."),
    ],
)
def test_what_is_missing_is_said_kindly(
    lacks: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if lacks == "checkout":
        monkeypatch.setattr(browser, "ROOT", tmp_path)
    find_spec = browser.importlib.util.find_spec
    monkeypatch.setattr(browser.importlib.util, "find_spec", lambda name: None if name == lacks else find_spec(name))
    monkeypatch.setattr(labdriver, "find_browser", lambda: None if lacks == "chromium" else "/chromium")
    with pytest.raises(SystemExit) as raised:
        table.main(["--browser"])
    assert raised.value.code == 2
    assert text in capsys.readouterr().err


def test_the_lessons_compute_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        table.main(["--browser", "--device", "cuda"])
    assert "argument --device: not allowed with argument --browser" in capsys.readouterr().err


def test_rows_are_chosen_and_written_as_all_others(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browser, "missing", lambda: "")
    file = tmp_path / "keys.json"
    assert table.main(["--browser", "--only", "lesson 05", "--json", str(file), "--repeats", "3"]) == 0
    names = [row["name"] for row in json.loads(file.read_text())["rows"]]
    rows = [f"{panel.name}: {row.name}" for panel, row in keyrows.every() if panel.lesson == "05"]
    assert names == [f"lesson 05, {row}, {share}" for row in rows for share in ("p50", "p95")]
    assert "3 key presses" in capsys.readouterr().out
    assert lab.done.count("run") == 1, "both panels are in one lesson"
