"""The benchmark in several processes: what is merged, what a process that fails leaves, and where each one runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mpkit.bench import processes, table
from mpkit.bench.measure import Case, Row, line
from mpkit.bench.processes import MergedRow, merge

Become = Callable[[str], None]
CASE = Case("a row", "peer", lambda: pytest.fail("the parent measures nothing"), 0.7)
BROKEN = Row("a row", None, "peer", None, None, None, 0.7, None, "ValueError: no")


def row(ours: float, peer: float, ratio: float) -> Row:
    return Row("a row", ours, "peer", peer, ratio, (ratio / 2, ratio * 2), 0.7, ratio <= 0.7)


def figures(one: Row) -> dict[str, object]:
    return {name: getattr(one, name) for name in ("ours_ms", "peer_ms", "ratio", "ratio_quartiles", "note")}


# ---- merging ----


def test_each_figure_is_the_median_over_the_processes() -> None:
    found = [row(1.0, 9.0, 0.7), row(5.0, 2.0, 0.8), row(3.0, 4.0, 0.5)]
    merged = merge(CASE, found)
    each = tuple(map(figures, found))
    assert merged == MergedRow("a row", 3.0, "peer", 4.0, 0.7, None, 0.7, True, "", (0.5, 0.8), each)
    assert line(merged).split()[-4:] == ["0.70", "0.50-0.80", "0.7", "yes"]
    assert merge(CASE, found[:2]).ratio == pytest.approx(0.75), "of an even number, the middle"
    assert merge(CASE, found[:2]).met is False
    assert merge(Case("a row", "peer", CASE.build), found).met is None


def test_a_process_without_a_figure_is_named_and_the_bar_is_not_met() -> None:
    merged = merge(CASE, [row(1.0, 2.0, 0.5), BROKEN, row(2.0, 4.0, 0.6)])
    assert (merged.ours_ms, merged.peer_ms, merged.ratio, merged.ratio_range) == (1.5, 3.0, 0.55, (0.5, 0.6))
    assert (merged.met, merged.note) == (False, "process 2 of 3: ValueError: no")
    assert merged.processes[1] == figures(BROKEN)
    assert line(merged).endswith("NO   process 2 of 3: ValueError: no")
    note = merge(Case("a row", "peer", CASE.build, note="of 2^22 values"), [BROKEN, row(1.0, 2.0, 0.5)]).note
    assert note == "of 2^22 values; process 1 of 2: ValueError: no"


def test_where_every_process_fails_there_is_no_figure() -> None:
    merged = merge(CASE, [BROKEN, BROKEN])
    assert (merged.ours_ms, merged.ratio, merged.ratio_range, merged.met) == (None, None, None, None)
    assert line(merged).endswith("no figure: ValueError: no (in every process)")
    other = Row("a row", None, "peer", None, None, None, 0.7, None, "OSError: other")
    assert merge(CASE, [BROKEN, other]).note == "process 1 of 2: ValueError: no; process 2 of 2: OSError: other"


# ---- real processes ----


def test_a_tiny_run_in_two_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cpu.json"
    tiny = ["--elements", "4096", "--repeats", "1", "--processes", "2", "--only", "histogram", "--json", str(file)]
    assert table.main(tiny) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert (record["processes"], record["gpus"], record["torch"]) == (2, 1, torch.__version__)
    assert record["command"].startswith("python -m mpkit bench --elements 4096")
    [merged] = record["rows"]
    assert merged.keys() == MergedRow.__dataclass_fields__.keys()
    ratios = [one["ratio"] for one in merged["processes"]]
    assert merged["ratio"] == pytest.approx(sum(ratios) / 2)
    assert merged["ratio_range"] == sorted(ratios)
    assert ratios[0] != ratios[1], "each process measures for itself"
    printed = capsys.readouterr().out
    assert "4,096 values · median of 2 processes" in printed
    assert printed.count("exponent histogram") == 1
    assert "0 of 1 rows have no figure" in printed


FAKE = """
import json, os, signal, sys, time
from pathlib import Path

file = Path(sys.argv[-1])
folder = Path(__file__).parent
number, own = int(file.stem), dict(os.environ)
(folder / f"{number}.told").write_text(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:], "environ": own}))
"""
WRITE = """
def write(*names):
    rows = [dict(name=name, ours_ms=number + 1.0, peer="peer", peer_ms=1.0, ratio=number + 1.0,
                 ratio_quartiles=[1.0, 1.0], bar=None, met=None, note="") for name in names]
    file.write_text(json.dumps({"rows": rows}))

"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Become:
    """Replace the child by a script that writes down what it is told, and then does as the test says."""

    def become(script: str) -> None:
        (tmp_path / "child.py").write_text(FAKE + WRITE + script, encoding="utf-8")
        monkeypatch.setattr(processes, "COMMAND", (sys.executable, str(tmp_path / "child.py")))

    return become


def told(folder: Path, count: int) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{number}.told").read_text()) for number in range(count)]


def test_every_process_is_another_and_all_share_what_is_compiled(
    child: Become, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "old"))  # torch sets it itself when it compiles
    child("write('a row')")
    ended = processes.run(["--device", "cpu", "--processes", "3", "--json", "mine.json"], 3, [None])
    assert [one.row(CASE).ratio for one in ended] == [1.0, 2.0, 3.0], "in the order of their start"
    heard = told(tmp_path, 3)
    assert len({one["pid"] for one in heard}) == 3
    folders = {one["environ"]["TORCHINDUCTOR_CACHE_DIR"] for one in heard}
    assert len(folders - {str(tmp_path / "old")}) == 1
    assert not Path(*folders).parent.exists(), "nothing is left behind"
    for one in heard:
        options = table._parser().parse_args(one["argv"])
        assert (options.processes, options.gpus, options.device) == (1, 1, "cpu"), "the last word counts"
        assert options.json != Path("mine.json")


def test_a_process_that_dies_leaves_the_rows_it_had(child: Become) -> None:
    child("write('a row'); print('out of luck', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    [ended] = processes.run([], 1, [None])
    assert ended.row(CASE).ratio == 1.0
    lost = ended.row(Case("another row", "peer", CASE.build, 1.5))
    assert lost == Row("another row", None, "peer", None, None, None, 1.5, None,
                       "the process ended with status -9 before it had this row: out of luck")  # fmt: skip
    child("sys.exit(3)")
    [ended] = processes.run([], 1, [None])
    assert ended.row(CASE).note == "the process ended with status 3 before it had this row: it said nothing"


def test_the_table_keeps_the_order_of_the_cases(
    child: Become, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child("write('three', 'one') if number else write('two', 'one')")
    monkeypatch.setattr(
        table, "_cases", lambda *_: [Case(name, "peer", CASE.build) for name in ("one", "two", "three")]
    )
    file = tmp_path / "out.json"
    assert table.main(["--processes", "2", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(one["name"], one["ratio"]) for one in rows] == [("one", 1.5), ("two", 1.0), ("three", 2.0)]
    assert rows[1]["note"].startswith("process 2 of 2: the process ended with status 0 before it had this row")
    assert "0 of 3 rows have no figure" in capsys.readouterr().out


def test_three_processes_are_what_is_measured_by_default(child: Become, tmp_path: Path) -> None:
    child("write('import mpkit')")
    assert table.main(["--only", "import mpkit", "--json", str(tmp_path / "out.json")]) == 0
    assert len(told(tmp_path, 3)) == json.loads((tmp_path / "out.json").read_text())["processes"] == 3


# ---- several GPUs ----


def test_two_gpus_work_at_once_and_each_for_one_process(child: Become, tmp_path: Path) -> None:
    """The first keeps its GPU until the last is there, the second waits for the first; who finds a GPU taken fails."""
    child("""
(folder / f"{number} is here").touch()
taken = folder / ("taken " + os.environ["CUDA_VISIBLE_DEVICES"])
taken.touch(exist_ok=False)
while number < 2 and not (folder / f"{[4, 0][number]} is here").exists():
    time.sleep(0.01)
taken.unlink()
write("a row")
""")
    ended = processes.run([], 5, ["3", "7"])
    assert [one.row(CASE).ratio for one in ended] == [1.0, 2.0, 3.0, 4.0, 5.0], ended
    used = [one["environ"]["CUDA_VISIBLE_DEVICES"] for one in told(tmp_path, 5)]
    assert set(used[:2]) == {"3", "7"}
    assert set(used[1:]) == {used[1]}


def test_more_gpus_than_there_are_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SystemExit):
        table.main(["--device", "cuda", "--gpus", "3"])
    assert "--gpus 3: torch sees 2 here; use a number from 1 to 2." in capsys.readouterr().err
