"""Does this machine have a GPU that torch can train on, and if not: what is in the way, and what cures it?"""

import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from mpkit.formats import FP16
from mpkit.policy.hardware import in_hardware

SITE = "https://pytorch.org/get-started/locally/"
OLDER_OR_NEWER = "an older card needs a build for an older CUDA, a newer card one for a newer CUDA"
OLDER_CUDA = "update the driver; or take a build for an older CUDA (nvidia-smi shows what the driver takes)"
Case = Literal["fine", "unseen", "none", "hidden", "build", "driver", "architecture", "full", "rocm", "mps", "broken"]


@dataclass(frozen=True)
class Gpu:
    """What was found. Only the case "fine" can be trained on.

    The other cases: "unseen" nobody looked; "none" there is no GPU; "hidden" a variable hides it; "build" this torch is
    built without CUDA; "driver" it is too old for this torch; "architecture" this torch has no kernels for the card;
    "full" no memory is left; "rocm" AMD's; "mps" Apple's; "broken" anything else.

    `why` is one sentence for the learner; `cure` says what to do, "" where nothing is to be done. `name` is the card's,
    "" where it cannot be asked.
    """

    case: Case
    why: str
    cure: str = ""
    name: str = ""


def look() -> Gpu:
    """Look for the GPU and take one small training step on it. Raises nothing, prints nothing, draws no random numbers.

    The first call of a process starts CUDA, which takes a second or more where there is one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of an old driver or card, with paths; the sentence says so too
        try:
            return _with_cuda() if torch.cuda.is_available() else _without_cuda()
        except Exception as error:
            return _broken(error)


def first_step(device: str = "cuda") -> None:
    """A product, its gradient and a read-back on the device: in FP16 where it has that, else in FP32."""
    dtype = torch.float16 if in_hardware(FP16, device) else torch.float32
    with torch.enable_grad():
        weight = torch.ones(8, 8, dtype=dtype, device=device, requires_grad=True)
        (gradient,) = torch.autograd.grad((weight @ weight).sum(), weight)
    if gradient.sum().item() != 8 * 8 * 16:
        raise RuntimeError("the gradient is wrong")


def nvidia_here() -> bool:
    """Whether an NVIDIA GPU seems to be here, whatever torch is built for: its device file, or its driver's tool.

    The tool is looked for, not run. /proc/driver/nvidia is no sign: a container shows its host's, without the GPU.
    """
    return any(Path("/dev").glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None


def _with_cuda() -> Gpu:
    """Torch says that there is a GPU. Does it work?"""
    if torch.version.hip:
        return Gpu("rocm", "This torch is built for AMD GPUs (ROCm), and the lessons use NVIDIA GPUs only.")
    name = torch.cuda.get_device_name()
    try:
        first_step()
    except Exception as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "ALLOC_FAILED" in text:
            close = "close what else uses it (an open notebook counts; nvidia-smi lists them), restart the kernel"
            return Gpu("full", "The GPU's memory is full.", close, name)
        if "no kernel image" in text or not _has_kernels():
            return Gpu("architecture", f"This torch has no kernels for the GPU's architecture, {_architecture()}.",
                       f"{OLDER_OR_NEWER}: {_other_torch()}", name)  # fmt: skip
        return _broken(error)
    return Gpu("fine", "A small training step on it worked.", name=name)


def _without_cuda() -> Gpu:
    """Torch says that there is no GPU that it can use. Is there one all the same?"""
    if torch.backends.mps.is_available():
        return Gpu("mps", "Apple's GPU (MPS) is not used: the lessons use NVIDIA GPUs only.")
    if torch.version.cuda is None:
        if torch.version.hip or not nvidia_here():
            return Gpu("none", "This machine has no CUDA device.")
        return Gpu("build", "There seems to be an NVIDIA GPU, but this torch is built without CUDA.", _other_torch())
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return Gpu("hidden", "CUDA_VISIBLE_DEVICES is set so that torch sees no GPU.",
                   "unset CUDA_VISIBLE_DEVICES in the shell that starts JupyterLab, and start it again")  # fmt: skip
    try:
        # is_available() tells its reason once a process, as a warning; this raises it each time.
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:
        if "too old" in str(error):
            return Gpu("driver", f"The NVIDIA driver is too old for this torch (CUDA {torch.version.cuda}).",
                       f"{OLDER_CUDA}: {_other_torch()}")  # fmt: skip
        if nvidia_here():
            return _broken(error)
    return Gpu("none", "This machine has no CUDA device.")


def _broken(error: Exception) -> Gpu:
    """The error's kind only: its message may hold paths of this machine."""
    cure = "run torch.ones(1, device='cuda') in a fresh kernel and read what torch says"
    return Gpu("broken", f"A first small step on the GPU failed ({type(error).__name__}).", cure)


def _architecture() -> str:
    """The card's architecture in the words of `torch.cuda.get_arch_list`, such as "sm_90"."""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def _has_kernels() -> bool:
    """Whether this build has machine code (sm_XY: same X, Y not above) or PTX (compute_XY: not above) for the card."""
    own = torch.cuda.get_device_capability()
    for built in torch.cuda.get_arch_list():
        kind, _, digits = built.rstrip("abcdefghijklmnopqrstuvwxyz").partition("_")
        has = int(digits[:-1]), int(digits[-1])
        if has <= own and (kind == "compute" or has[0] == own[0]):
            return True
    return False


def _other_torch() -> str:
    """How to change torch and nothing else: another build of the version that requirements.txt pins."""
    version = torch.__version__.split("+")[0]
    return (
        f"pip uninstall torch, then the command that {SITE} gives, with torch=={version} in it, both in the kernel's "
        "environment (after make lab: .venv/bin/pip); then restart the kernel"
    )
