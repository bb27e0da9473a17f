"""`make test-gpu` proves that the lessons train on the GPU: what is made of the records of its kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpuproof
import kernelrecord
import pytest
from harness.gpu_cells import CELL, START

ON_CPU = "lesson 04, `runs = watch(`: 400 optimizer steps, parameters on cpu, 0 CUDA kernels"


def lessons(folder: Path, *kernels: list[dict[str, Any]]) -> list[gpuproof.Lesson]:
    """What is read of the lines that these kernels wrote, each dict in place of some of CELL's."""
    for number, cells in enumerate(kernels):
        lines = [json.dumps({**CELL, **cell}) + "\n" for cell in cells]
        (folder / f"{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    return gpuproof.read(folder)


def said(folder: Path, cell: dict[str, Any], start: dict[str, Any] = START) -> list[str]:
    """The violations of a lesson of two cells."""
    return gpuproof.violations(lessons(folder, [start, cell]), {"04": 2})


def test_a_lesson_that_trains_on_the_gpu_is_proven(tmp_path: Path) -> None:
    assert said(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ({"kernels": 0}, "`runs = watch(`: 400 optimizer steps, parameters on cuda, 0 CUDA kernels"),
        ({"devices": ["cpu"], "kernels": 0}, ON_CPU.split(", ", 1)[1]),
        ({"devices": ["cpu", "cuda"], "steps": 1, "kernels": 7},
         "`runs = watch(`: 1 optimizer step, parameters on cpu and cuda, 7 CUDA kernels"),
        ({"devices": [], "steps": 1}, "`runs = watch(`: 1 optimizer step, parameters on nothing, 812 CUDA kernels"),
        ({"kernels": None, "trouble": "no", "allocations": 0},
         "`runs = watch(`: 400 optimizer steps, parameters on cuda, kernels not counted (no), no GPU memory asked for"),
        ({"kernels": None, "devices": ["cpu"]}, "`runs = watch(`: 400 optimizer steps, parameters on cpu, kernels not "
         "counted (all its steps were inside a capture)"),
    ],
)  # fmt: skip
def test_a_training_cell_elsewhere_is_refused(tmp_path: Path, cell: dict[str, Any], text: str) -> None:
    assert said(tmp_path, cell) == [f"lesson 04, {text}"]


def test_kernels_that_cannot_be_counted_are_told(tmp_path: Path) -> None:
    assert said(tmp_path, {"kernels": None, "trouble": kernelrecord.NO_COUNT}) == []
    read = gpuproof.read(tmp_path)
    assert gpuproof.notes(read)[-1] == (
        "In 1 training cells kernels could not be counted (the profiler counts no kernel here, not even one that is "
        "known to run). What is known of them: all parameters were on the GPU, and its memory was asked for."
    )
    assert "| 04 | 1 | not counted |" in gpuproof.table(read)


def test_an_exercise_may_train_on_the_cpu(tmp_path: Path) -> None:
    exercise = {"source": 'def train(w):\n    ...\n\ncheck("04.1", train)', "devices": ["cpu"], "kernels": 0}
    assert gpuproof.violations(lessons(tmp_path, [START, {}, exercise]), {"04": 3}) == []
    assert said(tmp_path, exercise) == ["lesson 04: no cell was seen to train"]


def test_a_cell_about_the_cpu_may_train_there(tmp_path: Path) -> None:
    on_purpose = {"source": "net = deepcopy(small).to(HOST)\nfit(net)", "devices": ["cpu"], "kernels": 0}
    assert gpuproof.violations(lessons(tmp_path, [START, {}, on_purpose]), {"04": 3}) == []
    assert said(tmp_path, on_purpose | {"source": "fit(net.to(GHOST))"}) != []


@pytest.mark.parametrize("source", ["spot_check(model)", "fit(net)  # as in check(…)", 'print(check("04.1", fit))'])
def test_no_other_cell_is_an_exercise(tmp_path: Path, source: str) -> None:
    cell = {"source": source, "devices": ["cpu"], "kernels": 0}
    assert said(tmp_path, cell) == [ON_CPU.replace("runs = watch(", source)]


def test_more_than_four_gib_are_refused(tmp_path: Path) -> None:
    big = {"allocated": 2**30, "reserved": 9 * 2**29}
    wrong = "lesson 04: 4.50 GiB of GPU memory at its peak, at most 4 are allowed"
    assert said(tmp_path, big) == [wrong]
    assert said(tmp_path, {"reserved": 2**32}) == []
    seventh = lessons(tmp_path, [{**START, "source": 'mpkit.start("07")'}, big])
    assert gpuproof.violations(seventh, {"07": 2}) == []


def test_what_was_not_recorded_is_not_proven(tmp_path: Path) -> None:
    read = lessons(tmp_path, [START, {}])
    assert gpuproof.violations(read, {"04": 3, "05": 9}) == [
        "lesson 05: no record, so nothing is known of it",
        "lesson 04: 2 of its 3 code cells are recorded",
    ]
    assert said(tmp_path, {"steps": 0, "devices": []}) == ["lesson 04: no cell was seen to train"]
    started = {**START, "source": 'mpkit.start("00")'}
    assert gpuproof.violations(lessons(tmp_path, [started]), {"00": 1}) == [], "lesson 00 trains nothing"
    with pytest.raises(ValueError, match=r"^0.jsonl is no lesson's record: none of its 1 cells calls mpkit.start\.$"):
        lessons(tmp_path, [{}])


def test_the_report_has_a_row_for_each_lesson(tmp_path: Path) -> None:
    zero = {**START, "source": 'mpkit.start("00")', "started": 10.0, "ended": 20.0, "seconds": 1.5, "recording": 0.0}
    read = lessons(tmp_path, [START, {"kernels": 12}, {"seconds": 7.25, "source": "a | b"}], [zero],
                   [{**START, "source": 'mpkit.start("05")', "started": 111.0, "ended": 119.0}])  # fmt: skip
    assert gpuproof.table(read).splitlines() == [
        "| lesson | training cells | CUDA kernels | seconds | slowest cell | GiB allocated | GiB reserved |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        '| 00 | 0 | 0 | 10.0 | 1.5 s, `mpkit.start("00")` | 0.25 | 0.50 |',
        "| 04 | 2 | 824 | 10.0 | 7.2 s, `a \\| b` | 0.25 | 0.50 |",
        '| 05 | 0 | 0 | 6.0 | 6.5 s, `mpkit.start("05")` | 0.25 | 0.50 |',
    ]
    first, at_once, *_ = gpuproof.notes(read)
    assert first.startswith("NVIDIA H100, torch 2.11.0. All lessons: 109 s,")
    assert at_once.startswith("At most 2 of the lessons' kernels at once; their peaks together: 1.00 GiB reserved.")
    assert gpuproof.notes([]) == []
