"""A launch answers, or says in one sentence what happened first, and leaves nothing running."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.turns import until

from mpkit.course.lesson_11 import RankFailed, launch
from mpkit.course.lesson_11.failures import first_failure
from mpkit.course.ranks.rank import FOLDER, as_text

LAUNCH = sys.modules[launch.__module__]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def all_gone(folder: Path) -> None:
    """Both were there, and each ends, however long a busy machine takes to end what was killed."""
    assert len(pids(folder)) == 2
    asyncio.run(until(lambda: not any(map(alive, pids(folder)))))


def pids(folder: Path) -> list[int]:
    """Those that have been written to their end."""
    return [int(text) for path in folder.glob("*.pid") if (text := path.read_text(encoding="utf-8"))]


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the ranks below leave their process ids."""
    monkeypatch.setenv("NOTES", str(tmp_path))
    return tmp_path


# ---- what the ranks do ----


def raises(rank: Any) -> dict[str, Any]:
    import os
    from pathlib import Path

    Path(os.environ["NOTES"], f"{rank.number}.pid").write_text(str(os.getpid()))
    total = torch.ones(1) * rank.number
    dist.all_reduce(total)  # type: ignore[name-defined]  # noqa: F821
    if rank.number == 1:
        raise ValueError(f"rank 1 has no labels\nthe sum is {total.item():g}")
    dist.all_reduce(total)  # type: ignore[name-defined]  # noqa: F821
    return {}


def is_killed(rank: Any) -> dict[str, Any]:
    import os
    import signal
    from pathlib import Path

    Path(os.environ["NOTES"], f"{rank.number}.pid").write_text(str(os.getpid()))
    dist.barrier()  # type: ignore[name-defined]  # noqa: F821
    if rank.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()  # type: ignore[name-defined]  # noqa: F821
    return {}


def goes_on(rank: Any) -> dict[str, Any]:
    if rank.number == 1:
        return {}
    dist.all_reduce(torch.ones(1))  # type: ignore[name-defined]  # noqa: F821
    return {}


def leaves(rank: Any) -> dict[str, Any]:
    import sys

    if rank.number == 1:
        sys.exit(0)
    dist.barrier()  # type: ignore[name-defined]  # noqa: F821
    return {}


def answers_a_tensor(rank: Any) -> dict[str, Any]:
    return {"step": 1, "loss": torch.ones(1)}


# A rank leads a session of its own, and may be deaf to a polite signal.
DEAF = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(os.environ["NOTES"], f"{len(sys.argv)}.pid").write_text(str(os.getpid()))
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, sys.argv[0], "child"], start_new_session=True)
time.sleep(1000)
"""


# It ends well, and what it started goes on: with it, and in a session of its own.
STARTS = """
import os, pathlib, subprocess, sys
for new in (False, True):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=new)
    pathlib.Path(os.environ["NOTES"], f"{new}.pid").write_text(str(child.pid))
"""


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (raises, "rank 1 failed first: ValueError: rank 1 has no labels (raises.py, line 9)"),
        (is_killed, "rank 1 was killed by SIGKILL; a rank that is killed says nothing itself"),
    ],
)
def test_the_first_failure_is_told_and_nothing_is_left(script: Any, sentence: str, notes: Path) -> None:
    """Nobody waits for a limit: those are ten minutes here."""
    with pytest.raises(RankFailed) as caught:
        launch(script, patience=600, waits=600)
    assert (str(caught.value), caught.value.rank) == (sentence, 1)
    all_gone(notes)


def test_a_rank_that_leaves_without_an_answer_is_the_first_cause() -> None:
    """The other one waits, and sees only that a connection was closed."""
    with pytest.raises(RankFailed, match=r"^rank 1 ended without an answer \(leaves\.py, line 5\)$") as caught:
        launch(leaves)
    assert caught.value.rank == 1


def test_an_answer_that_json_cannot_hold() -> None:
    with pytest.raises(RankFailed, match=r"TypeError: the answer's 'loss' \(Tensor\) .*\.tolist\(\)\.$"):
        launch(answers_a_tensor, ranks=1)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"a": 1, "b": [torch.ones(1)]},
         "the answer's 'b' (list) has what JSON cannot hold; of a tensor return .item() or .tolist()."),
        (None, "a rank answers with a dict, but NoneType came; end with return {...}."),
    ],
)  # fmt: skip
def test_what_an_answer_can_be(found: Any, sentence: str) -> None:
    with pytest.raises(TypeError) as caught:
        as_text(found)
    assert str(caught.value) == sentence


def test_a_rank_that_waits_for_another_gives_up() -> None:
    with pytest.raises(RankFailed, match=r"^rank 0 failed first: RuntimeError: .*Timed out waiting 3000ms.*line 4\)$"):
        launch(goes_on, waits=3)


@pytest.fixture
def deaf(notes: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command whose processes do not end by themselves; it is waited for until all of them are there."""
    script, wait = notes / "deaf.py", subprocess.Popen.wait
    script.write_text(DEAF, encoding="utf-8")

    def patient(process: Any, timeout: float | None = None) -> int:
        while len(pids(notes)) < 2:
            os.sched_yield()
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", patient)
    monkeypatch.setattr(LAUNCH, "GRACE", 0.1)
    return [sys.executable, str(script)]


def test_when_time_is_up_all_are_ended(deaf: list[str], notes: Path) -> None:
    status, _ = LAUNCH._run(deaf, dict(os.environ), notes, 0.1)
    assert status is None
    all_gone(notes)


def test_an_interrupt_ends_all_too(deaf: list[str], notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait, calls = subprocess.Popen.wait, []

    def interrupted(process: Any, timeout: float | None = None) -> int:
        calls.append(timeout)
        if len(calls) > 1:
            return wait(process, timeout)
        with pytest.raises(subprocess.TimeoutExpired):
            wait(process, 0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LAUNCH._run(deaf, dict(os.environ), notes, 600)
    all_gone(notes)


def test_what_a_rank_has_started_ends_too_and_nothing_else(notes: Path) -> None:
    """The launcher has ended by then; of another launch nothing is touched."""
    elsewhere = {**os.environ, FOLDER: f"{notes}-2"}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], env=elsewhere) as other:
        try:
            assert LAUNCH._run([sys.executable, "-c", STARTS], dict(os.environ), notes, 600) == (0, "")
            assert len(pids(notes)) == 2
            assert not any(map(alive, pids(notes)))
            assert other.poll() is None
        finally:
            other.kill()
            for pid in filter(alive, pids(notes)):
                os.kill(pid, signal.SIGKILL)


def test_time_is_up_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LAUNCH, "_run", lambda *_: (None, ""))
    with pytest.raises(RankFailed, match=r"^after 120 s 2 of 2 ranks had not answered, and all were ended\. Does one "):
        launch("no_module")


def test_the_launcher_says_whom_it_ended_however_quiet_it_was_told_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGLEVEL", "ERROR")
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(LAUNCH, "_run", lambda _, environment, *rest: (None, str(seen.append(environment))))
    with pytest.raises(RankFailed):
        launch("no_module")
    assert seen[0]["LOGLEVEL"] == "WARNING"


def test_all_ended_well_but_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LAUNCH, "_run", lambda *_: (0, ""))
    with pytest.raises(RankFailed, match=r"^rank 0 ended without an answer$"):
        launch("no_module")


# ---- the sentence, out of what is left behind ----

PEER = "RuntimeError: [/gloo/pair.cc:5] Read error [127.0.0.1]:7: Connection reset by peer"
CLOSED = "RuntimeError: [/gloo/pair.cc:5] Connection closed by peer"
TIMED = "RuntimeError: [/gloo/buffer.cc:78] Timed out waiting 6000ms for recv operation to complete"
BOTH = {0, 1}  # gave no answer


def left(codes: dict[int, int], closed: tuple[int, ...] = ()) -> str:
    """What the launcher says: whom it ended because another one had, and then each rank's status."""
    ended = [f"W1 torch/api.py:10] Sending process {100 + rank} closing signal SIGTERM" for rank in closed]
    blocks = [
        f"  rank      : {rank} (local_rank: {rank})\n  exitcode  : {code} (pid: {100 + rank}) "
        for rank, code in codes.items()
    ]
    failed = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n======"
    return "\n".join([*ended, failed, *blocks, "======"])


def error(logs: Path, rank: int, text: str, at: int) -> None:
    path = logs / "none_x" / "attempt_0" / str(rank) / "error.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"message": {"message": text, "extraInfo": {"py_callstack": "", "timestamp": "1"}}}))
    os.utime(path, ns=(at, at))


def test_torchs_seconds_are_too_coarse_to_tell_who_was_first(tmp_path: Path) -> None:
    """Both failed within a second; rank 0 stands first, and says only that rank 1 has gone."""
    error(tmp_path, 0, CLOSED, 2_000_000)
    error(tmp_path, 1, "ValueError: no labels", 1_000_000)
    assert first_failure(left({0: 1, 1: 1}), tmp_path, BOTH) == ("rank 1 failed first: ValueError: no labels", 1)


def test_a_signal_explains_the_closed_connection_of_others(tmp_path: Path) -> None:
    error(tmp_path, 0, CLOSED, 1)
    said = left({0: 1, 2: -15, 1: -11}, closed=(2,))
    assert first_failure(said, tmp_path, {0, 1, 2})[0].startswith("rank 1 was killed by SIGSEGV;")


def test_a_rank_that_aborts_on_its_way_out_had_failed_before(tmp_path: Path) -> None:
    """Its error was noted first; how the process ends after that is no cause."""
    error(tmp_path, 1, "ValueError: no labels", 1)
    error(tmp_path, 0, CLOSED, 2)
    for code in (-6, -11):
        told = first_failure(left({0: -15, 1: code}, closed=(0,)), tmp_path, BOTH)
        assert told == ("rank 1 failed first: ValueError: no labels", 1)


def test_what_the_launcher_ends_is_not_the_cause(tmp_path: Path) -> None:
    """It does so by SIGTERM, and by SIGKILL where that does not help."""
    error(tmp_path, 0, "ValueError: no labels", 1)
    for code in (-15, -9):
        told = first_failure(left({1: code, 0: 1}, closed=(1,)), tmp_path, BOTH)
        assert told == ("rank 0 failed first: ValueError: no labels", 0)


@pytest.mark.parametrize("waited", [PEER, CLOSED, TIMED, "DistNetworkError: failed to recv, got 0 bytes"])
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (-15, "rank 1 was killed by SIGTERM; a rank that is killed says nothing itself"),
        (3, "rank 1 ended without an answer (status 3)"),
        (0, "rank 1 ended without an answer"),
    ],
)
def test_a_rank_that_only_waited_is_not_the_first(waited: str, code: int, sentence: str, tmp_path: Path) -> None:
    """Rank 1 ends and notes nothing. The launcher ends rank 0 while it is still on its way out, or is too late."""
    error(tmp_path, 0, waited, 1)
    for mine, closed in ((-15, (0,)), (1, ())):
        codes = {0: mine, 1: code} if code else {0: 1}
        assert first_failure(left(codes, closed), tmp_path, BOTH) == (sentence, 1)


def test_a_rank_that_others_wait_for_in_vain_is_named(tmp_path: Path) -> None:
    """It never comes, until the launcher ends it; of several, nobody can tell which one it was."""
    error(tmp_path, 0, TIMED, 1)
    first = "rank 0 failed first: RuntimeError: Timed out waiting 6000ms for recv operation to complete"
    for code in (-15, -9, 143):  # the last: it has a handler for SIGTERM
        assert first_failure(left({1: code, 0: 1}, closed=(1,)), tmp_path, BOTH) == (
            f"{first}; rank 1 had neither answered nor failed by then", 0,
        )  # fmt: skip
    told, rank = first_failure(left({1: -15, 2: -15, 0: 1}, closed=(1, 2)), tmp_path, {0, 1, 2})
    assert (told, rank) == (f"{first}; ranks 1, 2 had neither answered nor failed by then", 0)


def test_a_rank_that_leaves_notes_so_itself(tmp_path: Path) -> None:
    error(tmp_path, 1, "Left: ", 1)
    error(tmp_path, 0, CLOSED, 2)
    assert first_failure(left({0: 1, 1: 1}), tmp_path, BOTH) == ("rank 1 ended without an answer", 1)


def test_a_rank_that_was_done_only_waited(tmp_path: Path) -> None:
    error(tmp_path, 0, "RuntimeError: Timed out", 2)
    error(tmp_path, 1, "RuntimeError: Timed out", 1)
    assert first_failure(left({0: 1, 1: 1}), tmp_path, {0}) == ("rank 0 failed first: RuntimeError: Timed out", 0)


def test_an_abort_has_said_why(tmp_path: Path) -> None:
    """Here an all-reduce of 4 values against one of 8. What rank 0 says is a consequence."""
    said = (
        "terminate called after throwing an instance of 'gloo::EnforceNotMet'\n"
        "  what():  [enforce fail at /gloo/pair.cc:456] op.preamble.length <= op.nbytes. 8 vs 4. Is there a mismatch?\n"
        f"Fatal Python error: Aborted\n[rank0]: {CLOSED}\n"
    )
    error(tmp_path, 0, CLOSED, 1)
    assert first_failure(said + left({0: -15, 1: -6}, closed=(0,)), tmp_path, BOTH) == (
        "rank 1 was killed by SIGABRT; the log says: op.preamble.length <= op.nbytes. 8 vs 4. Is there a mismatch?", 1,
    )  # fmt: skip
    said = f"[rank1]: KeyboardInterrupt\n[rank0]: {CLOSED}\n"
    assert first_failure(said + left({0: -15, 1: -2}, closed=(0,)), tmp_path, BOTH) == (
        "rank 1 was killed by SIGINT; the log says: KeyboardInterrupt", 1,
    )  # fmt: skip
    assert first_failure(left({1: -6, 0: 1}), tmp_path, BOTH) == (
        "rank 1 was killed by SIGABRT; a rank that is killed says nothing itself", 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("AssertionError: ", "AssertionError"),
        ("LeftOver: ", "LeftOver"),
        ("ValueError: \n\nno labels\nat all", "ValueError: no labels"),
        ("ValueError: [3, 4] is no shape", "ValueError: [3, 4] is no shape"),
        (f"{PEER}. Check the logs. GLHF! 🏖️", "RuntimeError: Read error [127.0.0.1]:7: Connection reset by peer. "
         "Check the logs."),
        (f"ValueError: {'ab ' * 2000}", f"ValueError: {'ab ' * 66}a…"),
    ],
)  # fmt: skip
def test_an_errors_message_fits_into_a_sentence(text: str, told: str, tmp_path: Path) -> None:
    error(tmp_path, 0, text, 1)
    assert first_failure(left({0: 1}), tmp_path, {0}) == (f"rank 0 failed first: {told}", 0)


def test_a_rank_that_noted_nothing(tmp_path: Path) -> None:
    said = "[rank1]: Traceback\n[rank1]: KeyError: 'labels'\n" + left({0: -15, 1: 1}, closed=(0,))
    assert first_failure(said, tmp_path, BOTH) == ("rank 1 ended with status 1: KeyError: 'labels'", 1)
    for others in ("", f"[rank0]: {CLOSED}\n"):
        assert first_failure(others + left({1: 3}), tmp_path, {1}) == (
            "rank 1 ended with status 3: it noted no error; "
            "decorate its main function with torch.distributed's @record", 1,
        )  # fmt: skip
    assert first_failure("usage: …\nrun.py: error: no such option\n", tmp_path, BOTH) == (
        "the launcher itself failed: run.py: error: no such option", None,
    )  # fmt: skip
