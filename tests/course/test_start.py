"""The table of lessons, and the first cell of each."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from mpkit.course import start as lesson
from mpkit.course import table

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_lessons_are_numbered_from_00_to_12_and_named_by_a_verb() -> None:
    assert [entry.number for entry in table.LESSONS] == [f"{n:02d}" for n in range(13)]
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", entry.filename) for entry in table.LESSONS)
    assert all(entry.question.endswith("?") for entry in table.LESSONS)


def test_ready_lessons_are_those_that_exist() -> None:
    there = {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    assert there == {entry.filename for entry in table.LESSONS if entry.ready}


@pytest.mark.parametrize("gpu", [False, True])
def test_start_prints_the_same_plan_on_every_machine_and_returns_the_lesson(
    gpu: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lessons emulate on CPU tensors, also where there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if gpu:  # seeding would reach for the GPU
        monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    started = lesson.start("04")
    assert capsys.readouterr().out == (
        "Lesson 04 · Scale the loss · about 45 minutes · seed 0 · one CPU thread\n"
        "Device cpu: FP16 and friends are emulated: arithmetic in FP32,\n"
        "every operand, result and gradient rounded.\n"
    )
    assert repr(started) == "Lesson(number='04', title='Scale the loss', device='cpu', seed=0)"
    with pytest.raises(AttributeError):
        started.seed = 1  # type: ignore[misc]


def test_start_makes_every_generator_repeat_itself() -> None:
    def draws(seed: int) -> tuple[float, float, float]:
        lesson.start("00", seed=seed)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draws(5) == draws(5)
    assert all(a != b for a, b in zip(draws(5), draws(6), strict=True))


def test_start_sets_one_thread_and_legible_pictures() -> None:
    torch.set_num_threads(2)
    lesson.start("00")
    assert torch.get_num_threads() == 1
    assert matplotlib.rcParams["font.size"] >= 11
    assert matplotlib.rcParams["axes.spines.top"] is False


@pytest.mark.parametrize("number", ["13", "4", "", "scale_the_loss"])
def test_an_unknown_lesson_lists_the_known_ones(number: str) -> None:
    with pytest.raises(ValueError, match=rf"there is no lesson '{number}'.*00 start_here, .*12 judge_the_article"):
        lesson.start(number)


def test_wrong_arguments_name_the_cure() -> None:
    with pytest.raises(TypeError, match=r"string of two digits such as '04', but 4 came"):
        lesson.start(4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"seed must be an int, but 0.5 \(float\) came"):
        lesson.start("00", seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"from 0 to 2\*\*32 - 1, but -1 came"):
        lesson.start("00", seed=-1)


def test_importing_the_lesson_table_and_the_doctor_costs_no_notebook_library() -> None:
    code = (
        "import sys, mpkit.course.start, mpkit.course.doctor.report\n"
        "print([name for name in ('matplotlib', 'ipywidgets', 'IPython') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert out.stdout.strip() == "[]"
