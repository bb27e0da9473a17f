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

BLOCK = re.compile(r"rank +: (\d+) \(local_rank: \d+\)\s+exitcode +: (-?\d+)")
OTHERS = (str(Path(torch.__file__).parent), caller.__file__, "<")  # frames that are nobody's script
LIBRARY = str(Path(mpkit.__file__).parent)
PLACE = re.compile(r"^\[[^\]]*\] *")  # of gloo's own source, in front of what it says
LAST = re.compile(r"^(?:\S+: )?([A-Za-z.]*(?:Error|Exception)\b.*)$", re.MULTILINE)
FRAME = re.compile(r'File "([^"]+)", line (\d+)')
KILLED = "rank {} was killed by {}; a rank that is killed says nothing itself"
RAISED = "rank {} failed first: {}{}"
LEFT = "rank {} ended without an answer{}"
ENDED = "rank {} ended with status {}: {}"
SILENT = "it noted no error; decorate its main function with torch.distributed's @record"


def first_failure(said: str, logs: Path, answered: Collection[int] = ()) -> tuple[str, int | None]:
    """The sentence, and the rank. `answered`: ranks that were done; those only waited for the others.

    A rank killed by a signal comes first: what the others say then is a consequence. (SIGTERM does not count: with it
    the launcher ends those that are left.) Else the error that was written first: torch keeps whole seconds, in which
    the others have failed too, but a file's own time is finer.
    """
    status = {int(rank): int(code) for rank, code in BLOCK.findall(said) if int(rank) not in answered}
    for rank, code in status.items():
        if code < 0 and -code != signal.SIGTERM:
            return KILLED.format(rank, signal.Signals(-code).name), rank
    errors = sorted(logs.glob("*/attempt_*/*/error.json"), key=lambda path: path.stat().st_mtime_ns)
    if errors := [path for path in errors if int(path.parent.name) not in answered]:
        rank = int(errors[0].parent.name)
        words, where = _told(errors[0])
        left = words.startswith(f"{caller.Left.__name__}:")
        return LEFT.format(rank, where) if left else RAISED.format(rank, words, where), rank
    for rank, code in status.items():
        lines = LAST.findall(said.partition("=====")[0])
        return ENDED.format(rank, code, lines[0] if lines else SILENT), rank
    last = [line for line in said.splitlines() if line.strip()][-1:] or ["it said nothing"]
    return f"the launcher itself failed: {last[0].strip()}", None


def _told(error: Path) -> tuple[str, str]:
    """The error's first line, and the place in the script where it was raised."""
    message = json.loads(error.read_text(encoding="utf-8"))["message"]
    text, stack = message["message"], message["extraInfo"]["py_callstack"]
    frames = [frame for frame in FRAME.findall(stack) if not frame[0].startswith(OTHERS)]
    frames = [frame for frame in frames if not frame[0].startswith(LIBRARY)] or frames
    where = f" ({Path(frames[-1][0]).name}, line {frames[-1][1]})" if frames else ""
    kind, _, words = next(iter(text.splitlines()), text).partition(": ")
    return f"{kind}: {PLACE.sub('', words)}", where
