"""Which processors are here, where the lessons compute and why, and what keeps a GPU from being used."""

import torch

from mpkit.course.device import VARIABLE, Choice, choose
from mpkit.course.doctor.environment import Finding
from mpkit.course.gpu import Gpu

NO_GPU = (
    "No GPU is needed: on a CPU the lessons emulate every small format in FP32, with the same rounding. "
    "Only the speed differs, and the order in which sums are added."
)
EIGHT_BITS = "FP8 needs scales of its own, and is emulated too."


def names() -> tuple[str, ...]:
    """The CPU and the name of each GPU that torch can name."""
    try:
        return ("CPU", *(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())))
    except Exception:  # a GPU that does not answer has a finding of its own
        return ("CPU",)


def findings(gpu: Gpu) -> tuple[str, list[Finding]]:
    """Where the lessons compute, "cpu" or "cuda", and what there is to say about it."""
    try:
        choice = choose(gpu=gpu)
    except (ValueError, RuntimeError) as error:
        refused = f"Lessons will not start. {error}"
        return "cpu", [
            Finding("bad", refused, f"unset {VARIABLE} in the shell that starts JupyterLab, and start it again"),
            *_of_gpu(gpu),
        ]
    return choice.name, [*_of_lessons(choice), *_of_gpu(gpu)]


def _of_lessons(choice: Choice) -> list[Finding]:
    if choice.name == "cuda":
        text = f"The lessons train on the GPU. {choice.why} {choice.formats()} {EIGHT_BITS}"
        return [Finding("good", text)]
    asked = [Finding("note", f"The lessons compute on the CPU. {choice.why}")] if choice.gpu.case == "unseen" else []
    return [*asked, Finding("good", NO_GPU)]


def _of_gpu(gpu: Gpu) -> list[Finding]:
    """Nothing where there is no GPU. A GPU that cannot be used is no fault: the lessons run without one."""
    if gpu.case == "none":
        return []
    if gpu.case == "fine":
        return [Finding("good", f"The GPU ({gpu.name}), its driver and this torch fit together.")]
    return [Finding("note", f"No GPU is used. {gpu.why}", gpu.cure)]


def threads(device: str) -> list[Finding]:
    """Threads that get in each other's way, where the CPU computes."""
    if device != "cpu" or torch.get_num_threads() <= 1:
        return []
    return [
        Finding(
            "note",
            f"torch uses {torch.get_num_threads()} threads. On a busy machine that makes small steps slow.",
            'mpkit.start("00") sets one thread; in a script: torch.set_num_threads(1)',
        )
    ]
