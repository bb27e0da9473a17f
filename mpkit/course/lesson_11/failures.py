"""Which rank failed first, and how: one sentence out of what the launcher and the ranks left behind."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Collection
from pathlib import Path

import torch

import mpkit
from mpkit.course.ranks import rank as caller

BLOCK = re.compile(r"rank +: (\d+) \(local_rank: \d+\)\s+exitcode +: (-?\d+) \(pid: (\d+)\)")
CLOSED = re.compile(r"Sending process (\d+) closing signal")  # the launcher, to those that are left
OF_ITS_OWN = {-one for one in signal.Signals} - {-signal.SIGTERM, -signal.SIGKILL}  # also if it was closed meanwhile
OTHERS = (str(Path(torch.__file__).parent), caller.__file__, "<")  # frames that are nobody's script
LIBRARY = str(Path(mpkit.__file__).parent)
NOISE = re.compile(r"^\[[^\]]*\.\w+:\d+\] *| *GLHF!.*$")  # around what gloo says: a place in its source, a wish
WAITED = re.compile(r"(closed|reset) by peer|[Tt]imed out|Broken pipe|remote process exited|^Dist(Network|Store)Error")
SAID = re.compile(
    r"^(?:\[rank(\d+)\]: )?(?: *what\(\): *|(?!torch\.distributed\.elastic)"
    r"(?=[\w.]*(?:Error|Exception|KeyboardInterrupt)\b))(.*)$",
    re.MULTILINE,
)
SAYS_WHY = (signal.SIGABRT, signal.SIGINT)  # C++ says what it threw before it aborts; Python shows its traceback
FRAME = re.compile(r'File "([^"]+)", line (\d+)')
LONGEST = 200  # characters of a message
KILLED = "rank {} was killed by {}; {}"
NOTHING = "a rank that is killed says nothing itself"
RAISED = "rank {} failed first: {}{}"
LEFT = "rank {} ended without an answer{}"
ENDED = "rank {} ended with status {}: {}"
SILENT = "it noted no error; decorate its main function with torch.distributed's @record"
NEVER_CAME = "; {} had neither answered nor failed by then"


def first_failure(said: str, logs: Path, missing: Collection[int]) -> tuple[str, int | None]:
    """The sentence, and the rank. `missing`: ranks that gave no answer; the others only waited for those.

    A rank killed by a signal comes first: what the others say then is a consequence. (Not one that had noted an error:
    it may abort on its way out.) Else the error that was written first: torch keeps whole seconds, in which the others
    have failed too, but a file's own time is finer. If that error says only that another rank was waited for in vain,
    a rank that ended and noted nothing is the cause.

    The launcher ends those that are left, by SIGTERM or SIGKILL; it says whom, and that is no cause.
    """
    blocks = [(int(rank), int(code), pid) for rank, code, pid in reversed(BLOCK.findall(said)) if int(rank) in missing]
    closed = CLOSED.findall(said)
    status = {rank: code for rank, code, _ in blocks}  # torch's Root Cause first: in its text it comes last
    own = {rank: code for rank, code, pid in blocks if pid not in closed or code in OF_ITS_OWN}
    errors = sorted(logs.glob("*/attempt_*/*/error.json"), key=lambda path: path.stat().st_mtime_ns)
    noted = {int(path.parent.name): path for path in errors if int(path.parent.name) in missing}
    for rank, code in own.items():
        if code < 0 and -code != signal.SIGTERM and rank not in noted:  # else it was on its way out
            return _ended(rank, code, said), rank
    if noted:
        rank, path = next(iter(noted.items()))
        words, where = _told(path)
        if words == caller.Left.__name__:
            return LEFT.format(rank, where), rank
        silent = [one for one in missing if one not in noted] if WAITED.search(words) else []
        gone = [one for one in silent if one in own or one not in status] if status else []  # not there: with status 0
        if gone:
            return _ended(gone[0], own.get(gone[0], 0), said, others_noted=True), gone[0]
        if silent:
            where += NEVER_CAME.format(f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}")
        return RAISED.format(rank, words, where), rank
    for rank, code in {**own, **status}.items():
        return _ended(rank, code, said), rank
    last = [line for line in said.splitlines() if line.strip()][-1:] or ["it said nothing"]
    return f"the launcher itself failed: {last[0].strip()}", None


def _ended(rank: int, code: int, said: str, others_noted: bool = False) -> str:
    """How a rank ended that noted no error. `others_noted`: some did, so its script has torch's `record`."""
    found = SAID.findall(said.partition("=====")[0])  # torch marks what a rank says only once that has joined
    words = [words for number, words in found if number == str(rank)][-1:]
    words = [_short(one) for one in words or [words for number, words in found if not number][:1]]
    if code < 0:
        why = f"the log says: {words[0]}" if words and -code in SAYS_WHY else NOTHING
        return KILLED.format(rank, signal.Signals(-code).name, why)
    if others_noted and not words:
        return LEFT.format(rank, f" (status {code})" if code else "")
    return ENDED.format(rank, code, words[0] if words else SILENT)


def _told(error: Path) -> tuple[str, str]:
    """The error in one line, and the place in the script where it was raised."""
    message = json.loads(error.read_text(encoding="utf-8"))["message"]
    text, stack = message["message"], message["extraInfo"]["py_callstack"]
    frames = [frame for frame in FRAME.findall(stack) if not frame[0].startswith(OTHERS)]
    frames = [frame for frame in frames if not frame[0].startswith(LIBRARY)] or frames
    where = f" ({Path(frames[-1][0]).name}, line {frames[-1][1]})" if frames else ""
    kind, _, words = text.partition(": ")
    words = _short(next((line for line in words.splitlines() if line.strip()), ""))
    return f"{kind}: {words}" if words else kind, where


def _short(words: str) -> str:
    """Without what gloo puts around it, and cut where it is too long for a sentence."""
    words = NOISE.sub("", words).strip()
    return words if len(words) <= LONGEST else words[: LONGEST - 1].rstrip() + "…"
