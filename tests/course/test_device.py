"""The one choice of device, on machines that are not here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.fake_gpu import H100, P100, T4, TOO_OLD, machine

from mpkit.course import gpu
from mpkit.course.device import choose
from mpkit.formats import BF16, FP16, TF32

OTHER_TORCH = (
    "pip uninstall torch, then the command that https://pytorch.org/get-started/locally/ gives, "
    f"with torch=={torch.__version__.split('+')[0]} in it, both in the kernel's environment (after make lab: "
    ".venv/bin/pip); then restart the kernel"
)
OLDER = "an older card needs a build for an older CUDA, a newer card one for a newer CUDA: "
NO_KERNEL = RuntimeError("CUDA error: no kernel image is available for execution on the device\n at /opt/x.cpp:3")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

# What the machine is, then its case, the sentence and the cure.
UNUSABLE: list[tuple[dict[str, Any], str, str, str]] = [
    ({"cuda": None}, "none", "This machine has no CUDA device.", ""),
    ({"cuda": None, "hip": "6.4", "nvidia": True}, "none", "This machine has no CUDA device.", ""),
    ({}, "none", "This machine has no CUDA device.", ""),
    ({"init": RuntimeError("No CUDA GPUs are available")}, "none", "This machine has no CUDA device.", ""),
    ({"cuda": None, "nvidia": True}, "build",
     "There seems to be an NVIDIA GPU, but this torch is built without CUDA.", OTHER_TORCH),
    ({"nvidia": True, "init": RuntimeError(TOO_OLD)}, "driver",
     "The NVIDIA driver is too old for this torch (CUDA 13.0).",
     f"update the driver; or take a build for an older CUDA (nvidia-smi shows what the driver takes): {OTHER_TORCH}"),
    ({"nvidia": True, "init": RuntimeError("Unexpected error. Error 804")}, "broken",
     "A first small step on the GPU failed (RuntimeError).",
     "run torch.ones(1, device='cuda') in a fresh kernel and read what torch says"),
    ({"card": P100, "step": NO_KERNEL}, "architecture",
     "This torch has no kernels for the GPU's architecture, sm_60.", f"{OLDER}{OTHER_TORCH}"),
    ({"card": P100, "step": NO_KERNEL, "built_for": ["sm_60"]}, "architecture",
     "This torch has no kernels for the GPU's architecture, sm_60.", f"{OLDER}{OTHER_TORCH}"),
    ({"card": P100, "step": RuntimeError("CUBLAS_STATUS_ARCH_MISMATCH")}, "architecture",
     "This torch has no kernels for the GPU's architecture, sm_60.", f"{OLDER}{OTHER_TORCH}"),
    ({"card": H100, "step": FULL}, "full", "The GPU's memory is full.",
     "close what else uses it (an open notebook counts; nvidia-smi lists them), restart the kernel"),
    ({"card": H100, "step": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")}, "full",
     "The GPU's memory is full.",
     "close what else uses it (an open notebook counts; nvidia-smi lists them), restart the kernel"),
    ({"card": H100, "step": RuntimeError("CUDA error: misaligned address at /opt/x.cpp")}, "broken",
     "A first small step on the GPU failed (RuntimeError).",
     "run torch.ones(1, device='cuda') in a fresh kernel and read what torch says"),
    ({"card": "AMD Instinct MI300X", "cuda": None, "hip": "6.4"}, "rocm",
     "This torch is built for AMD GPUs (ROCm), and the lessons use NVIDIA GPUs only.", ""),
    ({"cuda": None, "mps": True}, "mps", "Apple's GPU (MPS) is not used: the lessons use NVIDIA GPUs only.", ""),
]  # fmt: skip


@pytest.mark.parametrize(("given", "case", "why", "cure"), UNUSABLE)
def test_where_the_gpu_cannot_be_used_it_is_the_cpu_with_the_reason(
    given: dict[str, Any], case: str, why: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **given)
    choice = choose()
    assert (choice.name, choice.why, choice.native) == ("cpu", why, ())
    assert (choice.gpu.case, choice.gpu.why, choice.gpu.cure) == (case, why, cure)
    wanted = f"no GPU can be used. {why} {f'To use it: {cure}. ' if cure else ''}To go on without: "
    with pytest.raises(RuntimeError) as stop:
        choose("cuda")
    assert str(stop.value) == f"device is 'cuda', but {wanted}leave device away."
    monkeypatch.setenv("MPKIT_DEVICE", "cuda")
    with pytest.raises(RuntimeError) as stop:
        choose()
    assert str(stop.value) == f"MPKIT_DEVICE is 'cuda', but {wanted}unset MPKIT_DEVICE, or set it to cpu."


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_a_variable_may_hide_the_gpu(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, nvidia=True, init=RuntimeError("No CUDA GPUs are available"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    found = gpu.look()
    assert (found.case, found.why) == ("hidden", "CUDA_VISIBLE_DEVICES is set so that torch sees no GPU.")
    assert found.cure == "unset CUDA_VISIBLE_DEVICES in the shell that starts JupyterLab, and start it again"


@pytest.mark.parametrize(
    ("card", "native", "formats"),
    [
        (H100, (FP16, BF16, TF32), "FP16, BF16 and TF32 are the hardware's own; other formats are emulated on it."),
        (T4, (FP16,), "FP16 is the hardware's own; BF16, TF32 and other formats are emulated on it."),
        (P100, (), "No small format is the hardware's own; FP16, BF16, TF32 and other formats are emulated on it."),
    ],
)
def test_a_gpu_that_works_is_taken(card: str, native: object, formats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, card)
    choice = choose()
    assert (choice.name, choice.why) == ("cuda", "A small training step on it worked.")
    assert choice.native == native
    assert choice.formats() == formats
    assert choice.gpu == gpu.Gpu("fine", "A small training step on it worked.", "", card)


def test_what_was_asked_for_comes_first_and_then_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, H100)
    assert choose("cpu").why == "It was asked for (device=cpu)."
    assert choose("cuda").why == "It was asked for (device=cuda)."
    for value, other in (("cpu", "cuda"), ("cuda", "cpu")):
        monkeypatch.setenv("MPKIT_DEVICE", value)
        assert (choose().name, choose().why) == (value, f"It was asked for (MPKIT_DEVICE={value}).")
        assert (choose(other).name, choose(other).why) == (other, f"It was asked for (device={other}).")
    monkeypatch.setenv("MPKIT_DEVICE", "")
    assert choose().name == "cuda"
    monkeypatch.setenv("MPKIT_DEVICE", "gpu")
    assert choose("cpu").name == "cpu"


def test_who_asks_for_the_cpu_leaves_the_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, H100)
    monkeypatch.setattr("mpkit.course.device.look", lambda: pytest.fail("looked"))
    assert choose("cpu").gpu.case == "unseen"


@pytest.mark.parametrize("word", ["gpu", "cuda:0", "CPU", ""])
def test_another_word_names_the_two(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    end = f"must be 'cpu' or 'cuda', but {word!r} came. Without it, a lesson takes the GPU where one works."
    with pytest.raises(ValueError, match="must be") as stop:
        choose(word)
    assert str(stop.value) == f"device {end}"
    if word:
        monkeypatch.setenv("MPKIT_DEVICE", word)
        with pytest.raises(ValueError, match="must be") as stop:
            choose()
        assert str(stop.value) == f"MPKIT_DEVICE {end}"


def test_what_is_no_string_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^device must be 'cpu', 'cuda' or None, but 0 \(int\) came\.$"):
        choose(0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"but device\(type='cpu'\) \(device\) came"):
        choose(torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("built_for", "has"),
    [
        (["sm_60"], True), (["sm_61"], False), (["sm_50"], False), (["sm_70"], False), (["compute_50"], True),
        (["compute_70"], False), (["sm_75", "sm_100", "sm_120", "compute_120"], False), ([], False),
        (["sm_90a", "sm_60"], True),
    ],
)  # fmt: skip
def test_which_builds_have_kernels_for_a_card(built_for: list[str], has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code serves its own major version from its minor on, PTX every later one."""
    machine(monkeypatch, P100, step=RuntimeError("something else"), built_for=built_for)
    assert gpu.look().case == ("broken" if has else "architecture")


def test_looking_never_raises_or_warns(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    def warn_and_fail() -> bool:
        gpu.warnings.warn("CUDA initialization: the driver, in /a/path", stacklevel=1)
        raise OSError("/a/path")

    machine(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", warn_and_fail)
    assert gpu.look().why == "A first small step on the GPU failed (OSError)."
    assert not recwarn.list


def test_the_first_step_computes_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        gpu.first_step("cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_wrong_gradient_is_no_working_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda self, other: self * other)
    with pytest.raises(RuntimeError, match="the gradient is wrong"):
        gpu.first_step("cpu")


def test_signs_of_an_nvidia_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[Path] = []
    monkeypatch.setattr(Path, "glob", lambda self, _: iter(devices))
    monkeypatch.setattr(gpu.shutil, "which", lambda _: None)
    assert not gpu.nvidia_here()
    devices.append(Path("/dev/nvidia0"))
    assert gpu.nvidia_here()
    devices.clear()
    monkeypatch.setattr(gpu.shutil, "which", lambda name: f"/bin/{name}")
    assert gpu.nvidia_here()


def test_importing_the_course_starts_no_cuda() -> None:
    code = "import torch, mpkit.course.start, mpkit.course.doctor.report; print(torch.cuda.is_initialized())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"
