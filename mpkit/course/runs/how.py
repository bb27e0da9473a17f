"""How runs compute on a GPU, in words for a picture."""

from collections.abc import Mapping

from mpkit import FP32
from mpkit.training import Run


def on_gpu(run: Run) -> bool:
    """Whether its model is there."""
    return next(run.model.parameters()).is_cuda


def one_by_one(run: Run) -> str:
    """Why a run on a GPU takes its steps one by one; "" if they are captured in a CUDA graph, or on a CPU."""
    if run.captured or not on_gpu(run):
        return ""
    return "step by step: the host decides" if run.uncaptured_because else "step by step"


def how(runs: Mapping[str, Run]) -> str:
    """A sentence about runs that train on a GPU; "" on a CPU, where every step is emulated, one by one.

    It says what is emulated there, which runs take their steps one by one, and how the flushed share was measured.
    """
    if not runs or not all(map(on_gpu, runs.values())):
        return ""
    emulated = [name for name, run in runs.items() if run.work.engine == "emulated"]
    parts = ["On the GPU, in its own formats" + (f" (emulated: {', '.join(emulated)})" if emulated else "")]
    apart = [name for name, run in runs.items() if one_by_one(run)]
    if len(apart) < len(runs):
        parts.append("captured in CUDA graphs" + (f" ({', '.join(apart)}: step by step)" if apart else ""))
    else:
        parts.append("step by step")
    every = {run.measure_every for run in runs.values() if run.measure_every and run.policy.backward != FP32}
    if every:
        parts.append(f"flushed share from a second, emulated backward pass every {max(every)} steps")
    return f"{'; '.join(parts)}."
