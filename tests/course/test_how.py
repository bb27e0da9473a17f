"""What a picture says about how its runs compute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from mpkit import Policy
from mpkit.course.nets.models import MLP
from mpkit.course.runs.experiments import Variant, start
from mpkit.course.runs.how import how, one_by_one
from mpkit.course.runs.outcome import Outcome
from mpkit.training import Batches


def fake(
    captured: bool = True, engine: str = "native", every: int = 0, policy: str = "fp16-mixed", why: str = ""
) -> Any:
    """A run whose model says that it is on a GPU."""
    model = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(is_cuda=True)]))
    return SimpleNamespace(model=model, work=SimpleNamespace(engine=engine), captured=captured, measure_every=every,
                           policy=Policy.preset(policy), uncaptured_because=why)  # fmt: skip


def test_on_a_cpu_nothing_is_said() -> None:
    model = MLP()
    data = Batches(torch.rand(64, 64), torch.zeros(64, dtype=torch.int64), 16)
    run = start(Variant("a", Policy()), model, data, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    assert (how({"a": run}), one_by_one(run), run.captured) == ("", "", False)
    assert how({}) == ""


def test_on_a_gpu_it_says_what_is_emulated_captured_and_measured() -> None:
    runs = {"FP32": fake(policy="fp32", every=20), "torch": fake(every=20)}
    assert how(runs) == (
        "On the GPU, in its own formats; captured in CUDA graphs; "
        "flushed share from a second, emulated backward pass every 20 steps."
    )
    runs["LogMax"] = fake(captured=False, why="LogMaxScale decides on the host; use …")
    runs["FP8"] = fake(engine="emulated")
    assert how(runs).startswith(
        "On the GPU, in its own formats (emulated: FP8); captured in CUDA graphs (LogMax: step by step); flushed"
    )
    assert (
        how({"a": fake(captured=False), "b": fake(captured=False)}) == "On the GPU, in its own formats; step by step."
    )
    assert how({"a": fake(policy="fp32", every=20)}) == "On the GPU, in its own formats; captured in CUDA graphs."


def test_the_reason_stands_beside_the_name_while_it_trains() -> None:
    note = one_by_one(fake(captured=False, why="LogMaxScale decides on the host; use …"))
    assert Outcome(Variant("LogMax", Policy()), [], note=note).label == "LogMax (step by step: the host decides)"
    assert one_by_one(fake(captured=False)) == "step by step"
    assert Outcome(Variant("torch", Policy()), [], note=one_by_one(fake())).label == "torch"
