"""On a machine with a GPU a lesson takes it, and says what it computes by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

import mpkit
from mpkit.course.device import choose
from mpkit.course.doctor import report as doctor
from mpkit.course.gpu import first_step, look

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
SWITCHES = [(torch.backends.cudnn, "deterministic", True), (torch.backends.cudnn, "benchmark", False),
            (torch.backends.cudnn, "allow_tf32", False), (torch.backends.cuda.matmul, "allow_tf32", False)]  # fmt: skip


@pytest.fixture(autouse=True)
def left_to_itself(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable decides, and torch's switches are put back."""
    monkeypatch.delenv("MPKIT_DEVICE", raising=False)
    before = [getattr(place, switch) for place, switch, _ in SWITCHES]
    yield
    for (place, switch, _), value in zip(SWITCHES, before, strict=True):
        setattr(place, switch, value)


def test_a_lesson_takes_the_gpu_and_sets_its_switches(capsys: pytest.CaptureFixture[str]) -> None:
    for place, switch, needed in SWITCHES:
        setattr(place, switch, not needed)
    lesson = mpkit.start("04")
    assert lesson.device == "cuda"
    _, place_line, formats = capsys.readouterr().out.splitlines()
    assert place_line == f"Device cuda ({torch.cuda.get_device_name()}). A small training step on it worked."
    if torch.cuda.get_device_capability() >= (8, 0):
        assert formats == "FP16, BF16 and TF32 are the hardware's own; other formats are emulated on it."
    assert [getattr(place, switch) for place, switch, _ in SWITCHES] == [needed for *_, needed in SWITCHES]
    assert torch.zeros(1).device.type == "cpu"
    assert torch.ones(1, device=lesson.device).is_cuda


def test_the_variable_gives_the_cpu_and_the_argument_beats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPKIT_DEVICE", "cpu")
    assert mpkit.start("04").device == "cpu"
    assert mpkit.start("04", device="cuda").device == "cuda"


def test_the_first_step_works_and_draws_nothing() -> None:
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    first_step()
    assert look().case == "fine"
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(), states[1])


def test_start_seeds_the_gpu() -> None:
    def draw(seed: int) -> float:
        return float(torch.rand((), device=mpkit.start("04", seed=seed).device))

    assert draw(5) == draw(5) != draw(6)


def test_the_doctor_agrees_with_the_lessons() -> None:
    report = doctor.examine()
    assert (report.device, report.size) == ("cuda", 4096)
    use = {speed.fmt: speed.use for speed in report.formats}
    own = choose().native
    assert {fmt for fmt in use if use[fmt] == "native"} == {mpkit.FP32, *own}
    assert all(speed.native is not None for speed in report.formats if speed.fmt in own)
    assert "fit together" in report.text()


def test_a_full_card_is_a_reason_for_the_cpu_and_no_crash() -> None:
    """In a process of its own, which may take no memory at all of the GPU."""
    code = "import mpkit, torch; torch.cuda.set_per_process_memory_fraction(0.0); print(mpkit.start('04').device)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[1:] == [
        "Device cpu. The GPU's memory is full.",
        "FP16 and friends are emulated in FP32 and rounded. How to use the GPU: ask the doctor in lesson 00.",
        "cpu",
    ]
    assert done.stderr == ""


def test_a_hidden_card_is_said_to_be_hidden() -> None:
    code = "import mpkit; print(mpkit.start('04').device)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert done.stdout.splitlines()[1] == "Device cpu. CUDA_VISIBLE_DEVICES is set so that torch sees no GPU."
    assert done.stderr == ""
