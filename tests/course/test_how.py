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
    captured: bool = True,
    engine: str = "native",
    every: int = 0,
    policy: str = "fp16-mixed",
    why: str = "",
    meter: bool = False,
) -> Any:
    """A run whose model says that it is on a GPU."""
    model = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(is_cuda=True)]))
    work = SimpleNamespace(engine=engine, meter=meter)
    return SimpleNamespace(model=model, work=work, captured=captured, measure_every=every,
                           policy=Policy.preset(policy), uncaptured_because=why)  # fmt: skip


def test_on_a_cpu_nothing_is_said() -> None:
    model = MLP()
    data = Batches(torch.rand(64, 64), torch.zeros(64, dtype=torch.int64), 16)
    run = start(Variant("a", Policy()), model, data, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    assert (how({"a": run}), one_by_one(run), run.captured) == ("", "", False)
    assert how({}) == ""


def test_on_a_gpu_it_says_what_is_emulated_replayed_and_measured() -> None:
    runs = {"FP32": fake(policy="fp32", every=20), "torch": fake(every=20)}
    measured = "The flushed share is measured every 20 steps, by a second, emulated backward pass."
    assert how(runs) == f"On the GPU. Steps are replayed from CUDA graphs (lesson 07). {measured}"
    runs["LogMax"] = fake(captured=False, why="LogMaxScale decides on the host; use …", every=20)
    runs["FP8, a"] = fake(engine="emulated")
    assert how(runs) == (
        "On the GPU. Emulated there: FP8, a. Steps are replayed from CUDA graphs (lesson 07). "
        f"Step by step: LogMaxScale decides on the CPU (LogMax). {measured}"
    )
    one = {"a": fake(captured=False), "b": fake(captured=False)}
    assert how(one) == "On the GPU. Step by step: no step is like the last."
    old = {"a": fake(every=20, engine="emulated"), "b": fake(False, "emulated", why="it decides", meter=True)}
    assert how(old).endswith(f"{measured} In every step: b.")


def test_the_reason_stands_beside_the_name_while_it_trains() -> None:
    note = one_by_one(fake(captured=False, why="LogMaxScale decides on the host; use …"))
    label = Outcome(Variant("LogMax", Policy()), [], note=note).label
    assert label == "LogMax (step by step: LogMaxScale decides on the CPU)"
    assert one_by_one(fake(captured=False)) == "step by step: no step is like the last"
    assert Outcome(Variant("torch", Policy()), [], note=one_by_one(fake())).label == "torch"
