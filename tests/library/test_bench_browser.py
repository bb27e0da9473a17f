"""`bench --browser` without a browser: which panels, peers and keys, and what is said where something lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mpkit.bench import browser, table
from mpkit.bench.measure import Case, Row, line, measure

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("playwright")
import keybench  # noqa: E402
import labdriver  # noqa: E402
import naive_pictures  # noqa: E402


class Place:
    """A locator that writes down what is done to it."""

    def __init__(self, done: list[str], name: str) -> None:
        self.done, self.name, self.first = done, name, self

    def locator(self, selector: str, **_: Any) -> Place:
        return Place(self.done, selector)

    def get_by_role(self, _role: str, name: str, **_: Any) -> Place:
        return Place(self.done, name)

    def is_enabled(self) -> bool:
        return True

    def focus(self) -> None:
        self.done.append(f"focus {self.name}")

    def click(self) -> None:
        self.done.append(f"click {self.name}")

    def get_by_text(self, text: str, **_: Any) -> Place:
        return Place(self.done, text)


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

    def press(page: Place, shown: Place, key: str) -> float:
        lab.done.append(key)
        return next(waits)

    monkeypatch.setattr(keybench, "press", press)
    monkeypatch.setattr(keybench, "_lab", lambda stack: (lab, tmp_path))
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        (tmp_path / notebook.name).write_text(notebook.read_text(encoding="utf-8"), encoding="utf-8")
    return lab


def test_ours_and_the_peer_are_pressed_in_turn(lab: FakeLab, tmp_path: Path) -> None:
    first, *_, last = keybench.cases(ExitStack())
    assert lab.done == [], "nothing starts before a row is measured"
    middle, late = measure(first, 4)
    assert middle == Row("lesson 00, first look, p50", 50.0, first.peer, 100.0, 0.5, (0.5, 0.5), None, None)
    assert late == Row("lesson 00, first look, p95", 50.0, first.peer, 100.0, 0.5, None, 0.6, True)
    handle = f"focus {keybench.SLIDER}"
    right, left = [handle, "ArrowRight"], [handle, "ArrowLeft"]
    assert lab.done == ["open 00", "run", *(right * 2 + left * 2) * 2, *right * 2]
    lab.done.clear()
    measure(last, 1)
    assert lab.done[:3] == ["close", "open 08", "run"]
    added = [cell for cell in json.loads((next(tmp_path.glob("08_*"))).read_text())["cells"] if "naive" in str(cell)]
    assert len(added) == 1


def test_a_button_may_have_to_be_pressed_before(lab: FakeLab) -> None:
    [race] = [case for case in keybench.cases(ExitStack()) if "precision race" in case.name]
    measure(race, 1)
    start = ["click Stop", "focus button:text-is('Start')", "Enter"]
    assert lab.done == ["open 06", "run", *start, f"focus {keybench.SLIDER}", "ArrowRight", *start,
                        f"focus {keybench.SLIDER}", "ArrowLeft"]  # fmt: skip


def test_a_lesson_that_fails_gives_a_row_that_says_so(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "run_all", lambda page: 1 / 0)
    [row] = measure(keybench.cases(ExitStack())[0], 4)
    assert line(row).endswith("no figure: ZeroDivisionError: division by zero")


def test_every_lesson_has_its_panels() -> None:
    """All but lesson 00's doctor, whose button measures the machine."""
    panels = {one.cell.split("(")[0] for one in keybench.CONTROLS}
    shown = {
        name
        for notebook in (ROOT / "notebooks").glob("*.ipynb")
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for name in re_panels("".join(cell["source"]))
        if cell["cell_type"] == "code"
    }
    assert shown <= panels
    assert {one.lesson for one in keybench.CONTROLS} == {f"{number:02d}" for number in range(9)}


def re_panels(source: str) -> list[str]:
    """Names of the panels that a cell imports."""
    words = source.replace(",", " ").replace("(", " ").split()
    return [word for word in words if word.endswith("Panel") or word in ("first_look", "BitExplorer")]


@pytest.mark.parametrize("kind", naive_pictures.PICTURES)
def test_every_naive_picture_changes_with_its_slider(kind: str) -> None:
    assert kind in {one.peer for one in keybench.CONTROLS}
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
    assert [row["name"] for row in json.loads(file.read_text())["rows"]] == [
        f"lesson 05, {panel}, {share}" for panel in ("scaler race", "settings sweep") for share in ("p50", "p95")
    ]
    assert "3 key presses" in capsys.readouterr().out
    assert lab.done.count("run") == 1, "both panels are in one lesson"
