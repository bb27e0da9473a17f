"""`bench --panels`: every panel of the lessons is walked through; times and GPU memory are what a row holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import panelbench
import pytest
import torch

from mpkit.bench import panels, table
from mpkit.bench.panels import PanelCase, PanelRow

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_run_prints_a_table_and_writes_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "panels.json"
    assert table.main(["--panels", "--only", "lesson 07", "--json", str(file)]) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert {"device", "torch", "threads", "rows"} <= record.keys()
    assert [row["name"] for row in record["rows"]] == ["lesson 07, speed lab", "lesson 07, memory ledger"]
    for row in record["rows"]:
        assert row.keys() == PanelRow.__dataclass_fields__.keys()
        assert (row["note"], row["bar"], row["held_MiB"], row["left_MiB"]) == ("", 50.0, None, None)
        assert row["changes"] >= 16
        assert None not in (row["p50_ms"], row["p95_ms"], row["slowest_ms"], row["met"])
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in record["rows"])
    assert "of 2 panels have 95 % of their pictures within 50 ms." in printed


@pytest.mark.parametrize("case", panelbench.cases("cpu"), ids=lambda case: case.name)
def test_every_panel_is_changed_and_shows_something_else(case: PanelCase) -> None:
    panel = case.make()
    before, shown, names = panelbench._shown(panel), set(), []
    for (name, change), _ in zip(case.changes(panel), range(4), strict=False):
        change()
        names.append(name)
        shown.add(panelbench._shown(panel))
    assert len(names) == len(set(names)) == 4
    if case.name != "lesson 06, precision race":  # it draws when it trains: the other row
        assert shown - {before}
    case.drop()


def test_a_training_works_before_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, done = panelbench._made("cpu", "06", "PrecisionRacePanel"), []
    monkeypatch.setattr(panel, "work", lambda: done.append("work"))
    monkeypatch.setattr(panel, "show", lambda: done.append("show"))
    changes = list(panelbench.training(panel))
    assert len(changes) == panelbench.UNITS
    for _, change in changes[:2]:
        change()
    assert done == ["work", "show"] * 2


def test_every_panel_of_the_lessons_is_there() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))
    named = set(re.findall(r"\b(\w+Panel)\(", sources))
    made = (ROOT / "tools" / "panelbench.py").read_text(encoding="utf-8")
    assert named
    assert [name for name in named if f'"{name}"' not in made] == []


class Slider:
    """A panel with one number; its picture is the number."""

    last_error: Exception | None = None

    def __init__(self) -> None:
        self.number = 0


def sliding(panel: Slider) -> Iterator[tuple[str, Callable[[], object]]]:
    for number in range(1, 21):
        yield f"number {number}", lambda number=number: setattr(panel, "number", number)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change n takes n milliseconds."""
    ticks = iter([tick for n in range(1, 41) for tick in (0.0, n / 1000)])
    monkeypatch.setattr(panels.time, "perf_counter", lambda: next(ticks))


def test_the_95th_percentile_decides(clock: None) -> None:
    dropped: list[int] = []
    row = panels.measure(PanelCase("a slider", Slider, sliding, lambda: dropped.append(1)), "cpu")
    assert dropped == [1], "its widgets are closed before the next panel is measured"
    assert row == PanelRow("a slider", 20, 10.5, 20.0, 20.0, "number 20", 50.0, True)
    assert panels.line(row).split() == ["a", "slider", "20", "10.5", "20.0", "50", "yes", "20.0", "number", "20"]
    assert panels.summary([row]) == "1 of 1 panels have 95 % of their pictures within 50 ms."


def test_memory_that_a_panel_leaves_behind_is_told(clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first walk fills what is shared: only what a second panel keeps is counted."""
    taken = {"shared": 0, "panels": 0}

    def make() -> Slider:
        taken["shared"], taken["panels"] = 7 * 2**20, taken["panels"] + 3 * 2**20
        return Slider()

    def drop() -> None:
        taken["panels"] -= 2**20

    monkeypatch.setattr(panels.torch.cuda, "memory_allocated", lambda: sum(taken.values()))
    row = panels.measure(PanelCase("a leak", make, sliding, drop), "cuda")
    assert (row.held_MiB, row.left_MiB) == (3.0, 2.0)
    assert "3.00     2.00" in panels.line(row)
    assert panels.summary([row]).endswith("; GPU memory is left behind by a leak.")
    assert panels.summary([PanelRow("clean", met=True, left_MiB=0.0)]).endswith("; GPU memory is left behind by none.")


def test_a_panel_that_fails_says_why() -> None:
    def broken(_: Any) -> Any:
        return [("a change", lambda: 1 / 0)]

    dropped: list[int] = []
    row = panels.measure(PanelCase("broken", Slider, broken, lambda: dropped.append(1)), "cpu")
    assert panels.line(row).endswith("no figure: ZeroDivisionError: division by zero")
    assert dropped == [1]
    assert panels.summary([row]) == "0 of 1 panels have 95 % of their pictures within 50 ms."
    row = panels.measure(PanelCase("still", Slider, lambda _: [], lambda: None), "cpu")
    assert row.note == "ValueError: nothing of it can be changed"


def test_an_error_in_the_panel_is_no_picture() -> None:
    panel = panelbench._made("cpu", "07", "MemoryLedgerPanel")
    panel.last_error = ValueError("no ledger")
    with pytest.raises(ValueError, match="no ledger"):
        panelbench._shown(panel)


def test_a_panel_is_told_the_device_if_it_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import mpkit.course.lesson_07 as lesson

    monkeypatch.setattr(lesson, "Told", lambda *arguments, device="cpu": (arguments, device), raising=False)
    monkeypatch.setattr(lesson, "Untold", lambda *arguments: arguments, raising=False)
    assert panelbench._made("cuda", "07", "Told", 1) == ((1,), "cuda")
    assert panelbench._made("cuda", "07", "Untold", 1) == (1,)


def test_the_recording_lies_where_it_is_asked_for() -> None:
    assert panelbench._recording("cpu").steps == [0, 30, 60, 120, 240]
    assert panelbench._recording("cpu") is panelbench._recording("cpu"), "it is no panel's own memory"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--browser"], "argument --panels: not allowed with argument --browser"),
        (["--only", "no such row"], "--only 'no such row' fits no row; leave it out to see all names."),
        (["--device", "cuda"], "--device cuda needs a CUDA device and there is none; use --device cpu."),
    ],
)
def test_wrong_options_are_named(
    options: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        table.main(["--panels", *options])
    assert text in capsys.readouterr().err


def test_without_a_checkout_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(panels, "ROOT", tmp_path)
    with pytest.raises(SystemExit):
        table.main(["--panels"])
    text = "--panels opens the lessons' panels, which need a checkout; run it from one."
    assert text in capsys.readouterr().err
