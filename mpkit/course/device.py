"""The one choice of device: where the lessons compute, and why there."""

import os
from dataclasses import dataclass

from mpkit.course.gpu import Gpu, look
from mpkit.formats import BF16, FP16, TF32, FloatFormat
from mpkit.policy.hardware import in_hardware

VARIABLE = "MPKIT_DEVICE"
UNSEEN = Gpu("unseen", "The CPU was asked for, so nobody looked for a GPU.")
SMALL = (FP16, BF16, TF32)


@dataclass(frozen=True)
class Choice:
    """Where the lessons compute, "cuda" or "cpu", and in one sentence why there.

    `native` has those of FP16, BF16 and TF32 that the device computes in by itself, none on a CPU; FP32 is everyone's.
    `gpu` is what was found of a GPU; its case is "unseen" where the CPU was asked for.
    """

    name: str
    why: str
    native: tuple[FloatFormat, ...] = ()
    gpu: Gpu = UNSEEN

    def formats(self) -> str:
        """One sentence: which small formats are the hardware's own, and that the others are emulated on the device."""
        emulated = _listed([fmt.name for fmt in SMALL if fmt not in self.native] + ["other formats"])
        own = _listed([fmt.name for fmt in self.native]) or "No small format"
        verb = "are" if len(self.native) > 1 else "is"
        return f"{own} {verb} the hardware's own; {emulated} are emulated on it."


def choose(asked: str | None = None, gpu: Gpu | None = None) -> Choice:
    """Choose: what was asked for, else the environment variable MPKIT_DEVICE, else CUDA where one step works there.

    A GPU of AMD or Apple is not used. An NVIDIA GPU without small formats of its own (compute capability below 7.0) is.

    Args:
        asked: "cpu" or "cuda". None: MPKIT_DEVICE decides, if it is set and not empty. "cpu" leaves the GPU untouched.
        gpu: what somebody has found of it just now; None: look.

    Raises:
        TypeError: `asked` is not a string.
        ValueError: `asked` or MPKIT_DEVICE is another word than these two.
        RuntimeError: "cuda" was asked for, and no GPU can be used.
    """
    if asked is not None and not isinstance(asked, str):
        raise TypeError(f"device must be 'cpu', 'cuda' or None, but {asked!r} ({type(asked).__name__}) came.")
    if asked is None:
        word, by, without = os.environ.get(VARIABLE) or None, VARIABLE, f"unset {VARIABLE}, or set it to cpu"
    else:
        word, by, without = asked, "device", "leave device away"
    if word not in (None, "cpu", "cuda"):
        raise ValueError(
            f"{by} must be 'cpu' or 'cuda', but {word!r} came. Without it, a lesson takes the GPU where one works."
        )
    if word == "cpu":
        return Choice("cpu", f"It was asked for ({by}=cpu).")
    gpu = gpu or look()
    if gpu.case == "fine":
        why = f"It was asked for ({by}=cuda)." if word else gpu.why
        return Choice("cuda", why, tuple(fmt for fmt in SMALL if in_hardware(fmt, "cuda")), gpu)
    if word == "cuda":
        cure = f"To use it: {gpu.cure}. " if gpu.cure else ""
        raise RuntimeError(f"{by} is 'cuda', but no GPU can be used. {gpu.why} {cure}To go on without: {without}.")
    return Choice("cpu", gpu.why, gpu=gpu)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
