"""No test depends on the clock: none reads one, none sleeps in the hope that something is over, none compares times.

A machine may be busy. What must come is waited for with PATIENCE (tools/labserver.py); how soon it comes is for
`python -m mpkit bench` to say.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in TESTS.rglob("*.py") if path != Path(__file__))
CLOCKS = {"time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "timeit",
          "process_time_ns", "thread_time", "default_timer"}  # fmt: skip
SLEEPS = {"sleep", "wait_for_timeout"}
TIMES = {"seconds", "_seconds", "elapsed", "duration", "late", "took", "ours_ms", "peer_ms", "press"}
WAITS = {"harness/turns.py"}  # the one place that sleeps between two looks
ORDER = ast.Lt | ast.LtE | ast.Gt | ast.GtE  # with a clock that the test itself turns, a time is equal to something
SHORTEST = 60  # seconds; a shorter limit fails on a busy machine


def name_of(node: ast.AST) -> str:
    """The last part of a name, a call or a subscript: `x.seconds`, `seconds`, `seconds()`, `row["seconds"]`."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Subscript):
        return str(getattr(node.slice, "value", ""))
    return str(getattr(node, "attr", getattr(node, "id", "")))


def clocks(source: str) -> list[str]:
    """What in a test file depends on the clock, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and name_of(node) in CLOCKS and not isinstance(node.func, ast.Subscript):
            found.append((node.lineno, f"reads a clock: {name_of(node)}()"))
        if isinstance(node, ast.Call) and name_of(node) in SLEEPS and not is_zero(node):
            found.append((node.lineno, f"sleeps: {name_of(node)}()"))
        if isinstance(node, ast.Compare) and any(
            isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops
        ):
            sides = [name_of(side) for side in (node.left, *node.comparators)]
            found += [(node.lineno, f"compares a time: {side}") for side in sides if side in TIMES]
        if isinstance(node, ast.keyword) and node.arg in {"timeout", "timeout_s"} and is_short(node.value):
            found.append((node.value.lineno, f"gives up after {ast.unparse(node.value)}"))
    return [f"line {line} {what}" for line, what in sorted(found)]


def is_zero(call: ast.Call) -> bool:
    """`sleep(0)`: one turn of the loop, not a time."""
    return bool(call.args) and getattr(call.args[0], "value", None) == 0


def is_short(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, int | float) and value.value < SHORTEST


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_depends_on_the_clock(path: Path) -> None:
    if str(path.relative_to(TESTS)) not in WAITS:
        assert clocks(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("assert time.process_time() - began < 4", "reads a clock: process_time()"),
        ("start = time.perf_counter()", "reads a clock: perf_counter()"),
        ("assert 0 < seconds < 1e-3", "compares a time: seconds"),
        ("assert 0 < record.seconds < 60", "compares a time: seconds"),
        ("assert 0.05 <= format_speed._seconds(call, 'cpu') < 0.15", "compares a time: _seconds"),
        ("assert late <= 400, 'a quiet machine takes 100 ms'", "compares a time: late"),
        ("assert row['ours_ms'] > 0", "compares a time: ours_ms"),
        ("await asyncio.sleep(0.1)", "sleeps: sleep()"),
        ("page.wait_for_timeout(500)", "sleeps: wait_for_timeout()"),
        ("subprocess.run(command, timeout=20)", "gives up after 20"),
    ],
)
def test_that_check_sees(source: str, what: str) -> None:
    inside = f"async def test():\n    {source}\n"
    assert clocks(inside) == [f"line 2 {what}"]


@pytest.mark.parametrize(
    "source",
    ["assert record.seconds == 0.25", "asyncio.sleep(0)", "run(timeout=120)", "clock.now += 1", "assert steps < 4"],
)
def test_that_check_lets_pass(source: str) -> None:
    assert clocks(source) == []
