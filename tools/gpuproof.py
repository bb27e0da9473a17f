"""Reads what tools/kernelrecord.py wrote, and says which lesson did not train on the GPU, or took too much of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
MOST = 4 * GIB  # of one lesson: what a small card has room for
FREE = {"07"}  # it is about the GPU itself
# An exercise's checker trains tiny models of its own on the CPU, whatever the learner answers; that is no lesson's
# training.
EXERCISE = re.compile(r'^check\("\d\d\.\d', re.MULTILINE)
# Lesson 07 asks what a CPU can do, also where there is a GPU.
HOST = re.compile(r"\bHOST\b")
TRAINS_NOTHING = {"00", "11"}  # every other lesson trains something; the ranks of 11 are processes of their own


@dataclass(frozen=True)
class Cell:
    """One cell that was run; see `Recorder.after_cell`. Times in seconds, memory in bytes, peaks since the start."""

    source: str
    steps: int
    devices: list[str]
    kernels: int | None
    trouble: str
    allocations: int
    seconds: float
    started: float
    ended: float
    recording: float
    allocated: int
    reserved: int
    gpu: str
    torch: str

    @property
    def name(self) -> str:
        """The cell's first line."""
        return self.source.strip().split("\n")[0]

    @property
    def exempt(self) -> bool:
        """Whether it is an exercise, or trains on the CPU on purpose."""
        return EXERCISE.search(self.source) is not None or HOST.search(self.source) is not None

    @property
    def trains(self) -> bool:
        """Whether an optimizer stepped in a cell that is not exempt."""
        return self.steps > 0 and not self.exempt


@dataclass(frozen=True)
class Lesson:
    """The cells of one kernel, in the order in which they ran."""

    number: str
    cells: list[Cell]

    @property
    def training(self) -> list[Cell]:
        """The cells that train."""
        return [cell for cell in self.cells if cell.trains]

    @property
    def kernels(self) -> int | None:
        """Kernels in the first two steps of each training cell, added up; None if one could not be counted."""
        counts = [cell.kernels for cell in self.training]
        return None if None in counts else sum(filter(None, counts))

    @property
    def seconds(self) -> float:
        """From the kernel's start to the end of its last cell, the recording itself left out."""
        last = self.cells[-1]
        return last.ended - last.started - last.recording


def read(folder: Path) -> list[Lesson]:
    """Every kernel's record, by lesson. ValueError: a record in which no lesson starts."""
    lessons = []
    for file in sorted(folder.glob("*.jsonl")):
        cells = [Cell(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        found = [match[1] for cell in cells if (match := re.search(r'mpkit\.start\("(\d\d)"', cell.source))]
        if not found:
            raise ValueError(f"{file.name} is no lesson's record: none of its {len(cells)} cells calls mpkit.start.")
        lessons.append(Lesson(found[0], cells))
    return sorted(lessons, key=lambda lesson: lesson.number)


def violations(lessons: list[Lesson], expected: dict[str, int]) -> list[str]:
    """What is wrong, a sentence each. `expected`: how many code cells each lesson has that should have run."""
    recorded = {lesson.number for lesson in lessons}
    wrong = [f"lesson {number}: no record, so nothing is known of it" for number in expected if number not in recorded]
    for lesson in lessons:
        here, count = f"lesson {lesson.number}", expected.get(lesson.number, len(lesson.cells))
        if len(lesson.cells) != count:
            wrong.append(f"{here}: {len(lesson.cells)} of its {count} code cells are recorded")
        if not lesson.training and lesson.number not in TRAINS_NOTHING:
            wrong.append(f"{here}: no cell was seen to train")
        wrong += [f"{here}, `{cell.name}`: {why}" for cell in lesson.training if (why := _not_on_the_gpu(cell))]
        peak = lesson.cells[-1].reserved
        if peak > MOST and lesson.number not in FREE:
            wrong.append(f"{here}: {peak / GIB:.2f} GiB of GPU memory at its peak, at most {MOST / GIB:g} are allowed")
    return wrong


def _not_on_the_gpu(cell: Cell) -> str:
    """What was seen of a training cell that is no proof; "" if it is one."""
    steps = f"{cell.steps:,} optimizer step{'s' * (cell.steps != 1)}"
    seen = f"{steps}, parameters on {' and '.join(cell.devices) or 'nothing'}"
    if cell.kernels is None:
        seen += f", kernels not counted ({cell.trouble or UNCOUNTED})"
        proof = cell.allocations > 0
        seen += "" if proof else ", no GPU memory asked for"
    else:
        proof = cell.kernels > 0
        seen += f", {cell.kernels:,} CUDA kernels"
    return "" if proof and cell.devices == ["cuda"] else seen


UNCOUNTED = "all its steps were inside a capture"
HEAD = ("lesson", "training cells", "CUDA kernels", "seconds", "slowest cell", "GiB allocated", "GiB reserved")


def table(lessons: list[Lesson]) -> str:
    """One row a lesson, in Markdown."""
    rows: list[tuple[str, ...]] = []
    for lesson in lessons:
        slow, last = max(lesson.cells, key=lambda cell: cell.seconds), lesson.cells[-1]
        rows.append((
            lesson.number, str(len(lesson.training)),
            "not counted" if lesson.kernels is None else f"{lesson.kernels:,}",
            f"{lesson.seconds:.1f}", f"{slow.seconds:.1f} s, `{slow.name}`".replace("|", "\\|"),
            f"{last.allocated / GIB:.2f}", f"{last.reserved / GIB:.2f}",
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEAD, ("---",) * len(HEAD), *rows))


def notes(lessons: list[Lesson]) -> list[str]:
    """What the table does not say: where it was measured, what the recording took, how many kernels ran at once."""
    if not lessons:
        return []
    spans = [(lesson.cells[0].started, lesson.cells[-1].ended, lesson.cells[-1].reserved) for lesson in lessons]
    at_once = [[peak for began, over, peak in spans if began <= start < over] for start, _, _ in spans]
    most, memory = max(map(len, at_once)), max(map(sum, at_once)) / GIB
    gpu = next((cell.gpu for lesson in lessons for cell in lesson.cells if cell.gpu), "no GPU")
    whole = max(over for _, over, _ in spans) - min(start for start, _, _ in spans)
    said = [
        f"{gpu}, torch {lessons[0].cells[0].torch}. All lessons: {whole:.0f} s, from the first kernel's start to the "
        "end of the last cell.",
        f"At most {most} of the lessons' kernels at once; their peaks together: {memory:.2f} GiB reserved. (A process "
        "takes some hundred MiB more for CUDA itself.)",
        "CUDA kernels: in the first two optimizer steps of every training cell, and between them.",
        f"The recording took at most {max(lesson.cells[-1].recording for lesson in lessons):.1f} s of a lesson; all "
        "seconds in the table are without it.",
    ]
    blind = [cell for lesson in lessons for cell in lesson.training if cell.kernels is None]
    if blind:
        said.append(
            f"In {len(blind)} training cells kernels could not be counted ({blind[0].trouble or UNCOUNTED}). What is "
            "known of them: all parameters were on the GPU, and its memory was asked for."
        )
    return said
