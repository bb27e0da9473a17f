"""The table of lessons, and the first cell of each."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from harness.fake_gpu import H100, P100, T4, TOO_OLD, machine

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


SWITCHES = [(torch.backends.cudnn, "deterministic", True), (torch.backends.cudnn, "benchmark", False),
            (torch.backends.cudnn, "allow_tf32", False), (torch.backends.cuda.matmul, "allow_tf32", False)]  # fmt: skip


@pytest.fixture(autouse=True)
def switches_back() -> Iterator[None]:
    """A start on CUDA sets torch's switches for good."""
    before = [getattr(place, switch) for place, switch, _ in SWITCHES]
    yield
    for (place, switch, _), value in zip(SWITCHES, before, strict=True):
        setattr(place, switch, value)


FIRST = "Lesson 04 · Scale the loss · about 60 minutes · seed 0 · one CPU thread\n"
ROUNDED = "FP16 and friends are emulated: FP32 arithmetic, every operand, result and gradient rounded.\n"
CURE = "FP16 and friends are emulated in FP32 and rounded. How to use the GPU: ask the doctor in lesson 00.\n"
NO_KERNEL = RuntimeError("CUDA error: no kernel image is available for execution on the device")


def test_without_a_gpu_start_prints_the_plan_and_returns_the_lesson(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, cuda=None)
    started = lesson.start("04")
    assert capsys.readouterr().out == FIRST + (
        "Device cpu: FP16 and friends are emulated: arithmetic in FP32,\nevery operand, result and gradient rounded.\n"
    )
    assert repr(started) == "Lesson(number='04', title='Scale the loss', device='cpu', seed=0)"
    with pytest.raises(AttributeError):
        started.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"card": H100}, f"Device cuda ({H100}). A small training step on it worked.\n"
         "FP16, BF16 and TF32 are the hardware's own; other formats are emulated on it.\n"),
        ({"card": T4}, "Device cuda (Tesla T4). A small training step on it worked.\n"
         "FP16 is the hardware's own; BF16, TF32 and other formats are emulated on it.\n"),
        ({"card": P100}, "Device cuda (Tesla P100-PCIE-16GB). A small training step on it worked.\n"
         "No small format is the hardware's own; FP16, BF16, TF32 and other formats are emulated on it.\n"),
        ({"card": H100, "step": torch.OutOfMemoryError()}, f"Device cpu. The GPU's memory is full.\n{CURE}"),
        ({"card": P100, "step": NO_KERNEL},
         f"Device cpu. This torch has no kernels for the GPU's architecture, sm_60.\n{CURE}"),
        ({"cuda": None, "nvidia": True},
         f"Device cpu. There seems to be an NVIDIA GPU, but this torch is built without CUDA.\n{CURE}"),
        ({"nvidia": True, "init": RuntimeError(TOO_OLD)},
         f"Device cpu. The NVIDIA driver is too old for this torch (CUDA 13.0).\n{CURE}"),
        ({"card": "AMD Instinct MI300X", "hip": "6.4"}, "Device cpu. "
         f"This torch is built for AMD GPUs (ROCm), and the lessons use NVIDIA GPUs only.\n{ROUNDED}"),
        ({"cuda": None, "mps": True},
         f"Device cpu. Apple's GPU (MPS) is not used: the lessons use NVIDIA GPUs only.\n{ROUNDED}"),
    ],
)  # fmt: skip
def test_the_plan_names_the_device_and_what_it_computes_itself(
    given: dict[str, Any], place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **given)
    assert lesson.start("04").device == place.split()[1].rstrip(".")
    said = capsys.readouterr()
    assert said.out == FIRST + place
    assert said.err == ""
    assert max(map(len, said.out.splitlines())) <= 100


def test_who_asks_for_the_cpu_gets_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, H100)
    assert lesson.start("04", device="cpu").device == "cpu"
    assert capsys.readouterr().out == f"{FIRST}Device cpu. It was asked for (device=cpu).\n{ROUNDED}"
    monkeypatch.setenv("MPKIT_DEVICE", "cpu")
    assert lesson.start("04").device == "cpu"
    assert capsys.readouterr().out == f"{FIRST}Device cpu. It was asked for (MPKIT_DEVICE=cpu).\n{ROUNDED}"
    assert lesson.start("04", device="cuda").device == "cuda"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_cuda_a_run_repeats_and_fp32_is_fp32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, H100)
    for place, switch, needed in SWITCHES:
        setattr(place, switch, not needed)
    lesson.start("04", device=device)
    assert [getattr(place, switch) is needed for place, switch, needed in SWITCHES] == [device == "cuda"] * 4
    assert torch.zeros(1).device.type == "cpu"


def test_a_refused_device_leaves_everything_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch)
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    with pytest.raises(
        RuntimeError, match=r"device is 'cuda', but no GPU can be used\. This machine has no CUDA device"
    ):
        lesson.start("04", device="cuda")
    with pytest.raises(ValueError, match=r"device must be 'cpu' or 'cuda', but 'tpu' came"):
        lesson.start("04", device="tpu")
    with pytest.raises(TypeError, match=r"device must be 'cpu', 'cuda' or None, but 1 \(int\) came"):
        lesson.start("04", device=1)  # type: ignore[arg-type]
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr().out == ""


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
