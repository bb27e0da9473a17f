"""`guard` in loops that do more than one step a call or less: what a bad step must not move, and what it must say."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpkit import guard

BAD = 5


def data() -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    batches = [torch.randn(32, 8, generator=draw) for _ in range(10)]
    batches[BAD] = batches[BAD] * 4e5
    return batches


SCALED = pytest.mark.parametrize("scaled", [False, True])


def small(scaled: bool = False) -> tuple[nn.Sequential, torch.optim.SGD, torch.amp.GradScaler]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return model, optimizer, torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.float16):
        return model(x).float().square().mean()  # type: ignore[no-any-return]


@SCALED
def test_micro_batches_are_judged_with_the_step_that_ends_them(scaled: bool) -> None:
    """A guarded call for each of four micro-batches: healthy ones train to the bit as without a guard."""
    ends: list[nn.Sequential] = []
    for guarded in (False, True):
        model, optimizer, scaler = small(scaled)

        def step(number: int, x: Tensor, model: Any = model, optimizer: Any = optimizer, scaler: Any = scaler) -> None:
            scaler.scale(loss_of(model, x) / 4).backward()
            if number % 4 == 3:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()

        run: Any = guard(step, model, optimizer, scaler) if guarded else step
        for number in range(8):
            run(number, data()[number % 4])
        ends.append(model)
    assert not run.events
    assert all(torch.equal(a, b) for a, b in zip(ends[0].state_dict().values(), ends[1].state_dict().values(),
                                                 strict=True))  # fmt: skip
    before = {k: v.clone() for k, v in ends[1].state_dict().items()}
    run(8, data()[BAD])
    for number in (9, 10, 11):
        run(number, data()[0])
    [event] = run.events
    assert str(event).endswith(
        "this call was finite: the cause is in a call before it that did not step, of which there were 3"
    )
    assert all(torch.equal(v, before[k]) for k, v in ends[1].state_dict().items())


@SCALED
def test_what_follows_the_optimizer_happens_once(scaled: bool, recwarn: Any) -> None:
    """A scheduler, an average of weights and a log behind the optimizer's step, with one bad batch."""
    model, optimizer, scaler = small(scaled)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)
    average, log = torch.optim.swa_utils.AveragedModel(model), []

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss = loss_of(model, x)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        average.update_parameters(model)
        log.append(float(loss))

    guarded = guard(step, model, optimizer, scaler)
    for x in data():
        guarded(x)
    assert len(guarded.events) == 1
    assert (scheduler.last_epoch, int(average.n_averaged), len(log)) == (10, 10, 10)
    assert not [str(w.message) for w in recwarn if "lr_scheduler" in str(w.message)]


@SCALED
def test_another_optimizer_and_its_scheduler_step_once(scaled: bool) -> None:
    """A critic steps before the generator whose step is bad."""
    torch.manual_seed(0)
    model, critic = nn.Linear(8, 8), nn.Linear(8, 1)
    optimizer, other = torch.optim.Adam(model.parameters(), lr=0.01), torch.optim.Adam(critic.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(other, 1, 0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=scaled)
    weights: list[Tensor] = []

    def step(x: Tensor) -> None:
        other.zero_grad()
        near = x.clamp(-3, 3)
        scaler.scale(critic(near).mean() - critic(model(near).detach()).mean()).backward()
        scaler.step(other)
        scheduler.step()
        weights.append(critic.weight.detach().clone())
        optimizer.zero_grad()
        scaler.scale(-loss_of(nn.Sequential(model, critic), x)).backward()
        scaler.step(optimizer)
        scaler.update()

    guarded = guard(step, model, optimizer, scaler)
    for x in data()[: BAD + 1]:
        guarded(x)
    [event] = guarded.events
    assert event.first is not None
    assert (int(other.state[critic.weight]["step"]), scheduler.last_epoch) == (BAD + 1, BAD + 1)
    assert torch.equal(critic.weight, weights[BAD])


class Average(nn.Module):
    """Keeps a mean of its outputs in a buffer that is a new tensor each time."""

    avg: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 1)
        self.register_buffer("avg", torch.zeros(()))
        self.register_buffer("last", None)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        self.last = y.detach()
        self.avg = 0.9 * self.avg + 0.1 * y.detach().float().abs().mean()
        return y


def test_a_buffer_that_is_assigned_anew_goes_back_too() -> None:
    torch.manual_seed(0)
    model = Average()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss_of(model, x).backward()
        optimizer.step()

    guarded = guard(step, model, optimizer)
    guarded(data()[BAD])
    assert (float(model.avg), model.last) == (0.0, None)
    guarded(data()[0])
    good, last = model.avg, model.last
    guarded(data()[BAD])
    assert model.avg is good
    assert model.last is last
    assert 0 < float(good) < 1
    assert len(guarded.events) == 2


def test_a_closure_is_refused() -> None:
    model, _, _ = small()
    optimizer = torch.optim.LBFGS(model.parameters())
    guarded = guard(lambda: optimizer.step(lambda: loss_of(model, data()[0])), model, optimizer)  # type: ignore[arg-type, return-value]
    with pytest.raises(RuntimeError, match=r"a closure came, which computes them inside it\. Call backward first"):
        guarded()


class Wrapper:
    """As accelerate's: its step is the scaler's."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        self.optimizer, self.scaler = optimizer, scaler

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        return self.optimizer.state

    def step(self, closure: Any = None) -> None:
        self.scaler.step(self.optimizer, closure)
        self.scaler.update()


@SCALED
@pytest.mark.parametrize("given", ["outer", "inner"])
def test_an_optimizer_that_wraps_another_is_guarded(given: str, scaled: bool) -> None:
    model, inner, scaler = small(scaled)
    outer = Wrapper(inner, scaler)

    def step(x: Tensor) -> None:
        inner.zero_grad()
        scaler.scale(loss_of(model, x)).backward()
        outer.step()

    guarded = guard(step, model, outer if given == "outer" else inner, scaler)  # type: ignore[arg-type]
    guarded(data()[0])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    guarded(data()[BAD])
    assert [event.step for event in guarded.events] == [1]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_step_that_raises_leaves_finite_buffers() -> None:
    model, optimizer, _ = small()

    def step(x: Tensor) -> None:
        if not bool(loss_of(model, x).isfinite()):
            raise FloatingPointError("the loss is not finite")

    guarded = guard(step, model, optimizer)
    guarded(data()[0])
    before = model[1].running_mean.clone()  # type: ignore[operator, union-attr]
    with pytest.raises(FloatingPointError, match="the loss is not finite"):
        guarded(data()[BAD])
    assert torch.equal(model[1].running_mean, before) or bool(model[1].running_mean.isfinite().all())  # type: ignore[arg-type, operator, union-attr]


def test_a_rerun_that_raises_is_told_and_not_raised() -> None:
    model, optimizer, scaler = small(True)
    batches = iter([data()[BAD]])

    def step() -> None:
        scaler.scale(loss_of(model, next(batches))).backward()
        scaler.step(optimizer)
        scaler.update()

    guarded = guard(step, model, optimizer, scaler)
    guarded()
    assert str(guarded.events[0]).endswith("run again, it raised StopIteration: ")


def test_a_bad_first_step_has_the_scale_that_it_ran_with() -> None:
    model, optimizer, scaler = small(True)
    scales: list[float] = []

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss = scaler.scale(loss_of(model, x))
        scales.append(scaler.get_scale())
        loss.backward()
        scaler.step(optimizer)
        scaler.update()

    guarded = guard(step, model, optimizer, scaler)
    guarded(data()[BAD])
    assert guarded.events[0].scale == 1024.0
    assert (scales, scaler.get_scale()) == ([1024.0, 1024.0], 512.0)


def _one_bad_rank(rank: int, path: str, scaled: bool, fused: bool) -> None:
    """The second of two processes has a bad batch. One that waits for the other longer than a minute raises."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}/meet", rank=rank, world_size=2,
                                         timeout=timedelta(seconds=60))  # fmt: skip
    model, _, scaler = small(scaled)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=fused)
    whole = nn.parallel.DistributedDataParallel(model)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(loss_of(whole, x)).backward()
        scaler.step(optimizer)
        scaler.update()

    guarded = guard(step, model, optimizer, scaler)
    for batch in (0, BAD if rank else 0, 0):
        guarded(data()[batch])
    ends = {"weights": [p.tolist() for p in model.parameters()], "scale": scaler.get_scale(),
            "finite": all(bool(t.isfinite().all()) for t in model.state_dict().values())}  # fmt: skip
    Path(path, str(rank)).write_text("\n".join(map(str, guarded.events)), "utf8")
    Path(path, f"{rank}.json").write_text(json.dumps(ends), "utf8")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("scaled", "fused"), [(False, False), (True, False), (True, True)])
def test_a_clean_rank_says_that_another_one_was_bad(tmp_path: Path, scaled: bool, fused: bool) -> None:
    """Both withhold it, both run it again, and none waits for the other without end."""
    torch.multiprocessing.spawn(_one_bad_rank, (str(tmp_path), scaled, fused), 2)
    clean, bad = ((tmp_path / name).read_text("utf8") for name in ("0", "1"))
    withheld = f"step 1 withheld at scale {1024 if scaled else 1}: "
    assert clean == f"{withheld}run again, it was finite here: the cause is on another rank, whose guard names it"
    assert bad.startswith(withheld)
    assert "run again" not in bad
    ends = [json.loads((tmp_path / f"{rank}.json").read_text("utf8")) for rank in (0, 1)]
    assert ends[0] == ends[1]
    assert ends[0]["finite"]
    assert ends[0]["scale"] == (512.0 if scaled else 1.0)
