"""How runs compute on a GPU, in words for the foot of a picture."""

from collections.abc import Mapping

from mpkit import FP32
from mpkit.training import Run


def how(runs: Mapping[str, Run]) -> str:
    """A sentence or two about runs that train on a GPU; "" on a CPU, where every step is emulated, one by one.

    It says what the hardware rounds and what is emulated, which runs take their steps one by one and why, and how the
    flushed share was measured.
    """
    if not runs or not all(next(run.model.parameters()).is_cuda for run in runs.values()):
        return ""
    emulated = [name for name, run in runs.items() if run.work.engine == "emulated"]
    parts = ["On the GPU, in its own formats" + (f"; emulated: {', '.join(emulated)}" if emulated else "")]
    one_by_one = [name for name, run in runs.items() if not run.captured]
    if len(one_by_one) == len(runs):
        parts.append("step by step")
    elif one_by_one:
        parts.append(f"captured in CUDA graphs; step by step, because the host decides there: {', '.join(one_by_one)}")
    else:
        parts.append("captured in CUDA graphs")
    apart = {run.measure_every for run in runs.values() if run.measure_every and run.policy.backward != FP32}
    if apart:
        parts.append(f"flushed share from a second, emulated backward pass every {max(apart)} steps")
    return f"{'; '.join(parts)}."
