"""How runs compute on a GPU, in words for a picture."""

from collections.abc import Mapping

from mpkit import FP32
from mpkit.training import Run


def on_gpu(run: Run) -> bool:
    """Whether its model is there."""
    return next(run.model.parameters()).is_cuda


def one_by_one(run: Run) -> str:
    """Why a run on a GPU takes its steps one by one; "" if they are replayed from a CUDA graph, or on a CPU."""
    if run.captured or not on_gpu(run):
        return ""
    why = run.uncaptured_because.split(";")[0].replace("the host", "the CPU")
    return f"step by step: {why or 'no step is like the last'}"


def how(runs: Mapping[str, Run]) -> str:
    """How runs compute that train on a GPU, in a few sentences; "" on a CPU: every step is emulated there, one by one.

    They say what is emulated, which runs take their steps one by one and why, and how the flushed share was measured.
    """
    if not runs or not all(map(on_gpu, runs.values())):
        return ""
    said = ["On the GPU."]
    if emulated := [name for name, run in runs.items() if run.work.engine == "emulated"]:
        said.append(f"Emulated there: {_listed(emulated)}.")
    reasons: dict[str, list[str]] = {}
    for name, run in runs.items():
        reasons.setdefault(one_by_one(run), []).append(name)
    if "" in reasons:
        said.append("Steps are replayed from CUDA graphs (lesson 07).")
    said += [f"{why[0].upper()}{why[1:]}{_whose(names, runs)}." for why, names in reasons.items() if why]
    if beside := [name for name, run in runs.items() if run.measure_every and run.policy.backward != FP32]:
        every = max(runs[name].measure_every for name in beside)
        said.append(f"The flushed share is measured every {every} steps, by a second, emulated backward pass.")
        said += [f"In every step: {_listed(more)}." for more in [[n for n, r in runs.items() if r.work.meter]] if more]
    return " ".join(said)


def _whose(names: list[str], runs: Mapping[str, Run]) -> str:
    return "" if len(names) == len(runs) else f" ({_listed(names)})"


def _listed(names: list[str]) -> str:
    """Names may hold commas."""
    return "; ".join(names)
