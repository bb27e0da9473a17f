"""The course's own runs on a GPU: captured where they can be, told so, stopped and resumed, with the CPU's findings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import FP16, DynamicScale, LossScaler, Policy, fit, start
from mpkit.course.lesson_05.live_rules import LiveScales
from mpkit.course.lesson_05.scaler_race import ScalerRacePanel
from mpkit.course.lesson_06.live_race import COMPETITORS, TASKS, LiveRace, standings
from mpkit.course.lesson_06.precision_race import PrecisionRacePanel
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP, Autoencoder
from mpkit.course.nets.resnet import ResNet
from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.runs.experiments import Variant, compare
from mpkit.course.runs.how import how
from mpkit.course.runs.snapshots import record_gradients
from mpkit.optim import Kahan
from mpkit.scaling import preset
from mpkit.training import Run, StepData

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_rules_race_on_the_gpu_and_tell_how() -> None:
    rules = {"torch": preset("torch"), "megatron": preset("megatron"), "LogMax": preset("openseq2seq-logmax")}
    race = LiveScales("bad-start", rules, 60, "cuda")
    while race.advance():
        pass
    captured = {name: run.captured for name, run in race.runs.items()}
    assert captured == {"FP32": True, "torch": True, "megatron": True, "LogMax": False}
    assert {run.work.engine for run in race.runs.values()} == {"native"}
    for lap in race.laps.values():
        assert np.flatnonzero(~np.isnan(lap.flushed)).tolist() == [0, 20, 40]
    assert how(race.runs) == (
        "On the GPU. Steps are replayed from CUDA graphs (lesson 07). Step by step: LogMaxScale decides on the "
        "CPU (LogMax). "
        "The flushed share is measured every 20 steps, by a second, emulated backward pass."
    )


def test_a_loss_that_is_weighted_anew_in_each_step_is_not_captured() -> None:
    race = LiveScales("falling-loss", {"torch": preset("torch")}, 45, "cuda")
    while race.advance():
        pass
    assert not any(run.captured for run in race.runs.values())
    cpu = LiveScales("falling-loss", {"torch": preset("torch")}, 45)
    while cpu.advance():
        pass
    assert race.laps["torch"].scales.tolist() == cpu.laps["torch"].scales.tolist()


def test_the_panels_say_how_they_computed() -> None:
    panel = ScalerRacePanel("bad start", ("torch", "LogMax"), "cuda").run_to_end(steps=40)
    assert "On the GPU. Steps are replayed" in panel.said()
    assert "On the GPU" not in str(panel), "what a cell prints is the same on every machine"
    race = PrecisionRacePanel(device="cuda")
    race.run_to_end(steps=40)
    assert "every 20 steps" in race.said()
    assert "On the GPU" not in str(race)


def test_a_race_can_be_stopped_between_two_reads() -> None:
    race = LiveRace([COMPETITORS["FP32"], COMPETITORS["BF16"]], TASKS["classifier"], steps=60, device="cuda")
    for _ in range(7):
        race.advance()
    race.stop()
    assert not race.advance()
    assert [len(records) for records in race.records.values()] == [7, 7]


@pytest.mark.parametrize("task", TASKS)
def test_precisions_stand_as_on_the_cpu(task: str) -> None:
    names = ("FP32", "FP16, no scaling", "FP16, dynamic", "BF16", "article")
    found = {}
    for device in ("cpu", "cuda"):
        race = LiveRace([COMPETITORS[name] for name in names], TASKS[task], steps=150, device=device)
        while race.advance():
            pass
        found[device] = standings(race)
    print(task, found)
    assert found["cpu"] == found["cuda"]


def test_recorded_gradients_are_those_of_the_cpu() -> None:
    views = {}
    for device in ("cpu", "cuda"):
        net = Autoencoder(seeds=[0]).to(device)
        adam = torch.optim.Adam(net.parameters(), lr=2e-3, fused=True)
        recording = record_gradients(net, digits(device).reconstruction(), adam, at=(60,))
        views[device] = [recording.what_if(60, FP16, k) for k in (0, 8, 16)]
    for cpu, cuda in zip(views["cpu"], views["cuda"], strict=True):
        assert cpu.total.flushed == pytest.approx(cuda.total.flushed, abs=0.005)
        assert cpu.total.overflowed == cuda.total.overflowed
        for a, b in zip(cpu.cosines, cuda.cosines, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:  # what is left of a direction depends on the order of sums
                assert a == pytest.approx(b, abs=0.02 if a > 0.99 else 0.3)


def test_flushed_shares_agree_with_the_cpu_step_by_step() -> None:
    """Measured beside captured native steps on the GPU, and counted in every emulated step on the CPU."""
    shares = {}
    for device in ("cpu", "cuda"):
        outcome = compare(
            [Variant("a", Policy.preset("fp16-mixed"))], lambda device=device: Autoencoder(seeds=range(3)).to(device),
            digits(device).reconstruction(), lambda net: torch.optim.Adam(net.parameters(), lr=2e-3, fused=True), 61,
            lambda net: torch.zeros(1),
        )["a"]  # fmt: skip
        shares[device] = {r.step: r.flushed for r in outcome.records if r.flushed is not None}
    assert sorted(shares["cuda"]) == [0, 20, 40, 60]
    for step, share in shares["cuda"].items():
        assert share == pytest.approx(shares["cpu"][step], abs=0.02), step
    assert shares["cuda"][0] > 0.05


class Images:
    """Batches of random images on the GPU."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        self.inputs = torch.randn(4, 16, 3, 32, 32, generator=draw).cuda()
        self.targets = torch.randint(0, 10, (4, 16), generator=draw).cuda()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        return self.inputs[step % 4], self.targets[step % 4]


def conv_net() -> tuple[nn.Module, StepData]:
    torch.manual_seed(0)
    return ResNet(10, stages=((8, 1), (16, 1)), stem=8).cuda(), Images()


def transformer() -> tuple[nn.Module, StepData]:
    corpus = text("cuda")
    return Transformer(len(corpus.characters), seed=0).cuda(), corpus.batches()


def wrapped_mlp() -> tuple[nn.Module, StepData]:
    return MLP(seeds=range(5)).cuda(), digits("cuda").classification()


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("make", [conv_net, transformer, wrapped_mlp])
def test_a_resumed_run_is_bit_equal_under_the_lessons_settings(
    make: Callable[[], tuple[nn.Module, StepData]], capture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend, flag in ((torch.backends.cudnn, "deterministic"), (torch.backends.cudnn, "allow_tf32")):
        monkeypatch.setattr(backend, flag, getattr(backend, flag))  # put back what `start` sets
    start("08")

    def run() -> Run:
        model, data = make()
        adam: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        return fit(
            model, data, optimizer=Kahan(adam, FP16) if make is wrapped_mlp else adam, steps=30, engine="auto",
            policy=Policy.preset("fp16-mixed"), scaler=LossScaler(DynamicScale(2.0**24, growth_interval=5)),
            loss_fn=getattr(model, "loss", F.cross_entropy), capture=capture, read_every=5 if capture else 1,
        )  # fmt: skip

    whole, first = list(run()), run()
    for _ in range(15):
        next(first)
    second = run()
    second.load_state_dict(first.state_dict())
    assert list(second) == whole[15:]
    assert math.isfinite(whole[-1].loss)
