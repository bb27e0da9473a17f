"""Wrappers around optimizers: in FP32 they change nothing; in 16 bits they do what torch, numpy or chance say."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpkit
from mpkit import BF16, E4M3, FP16, FP32, FloatFormat, Policy
from mpkit.course.nets.models import MLP
from mpkit.course.runs.experiments import Variant, compare
from mpkit.optim.keeper import WeightKeeper
from mpkit.optim.wrappers import Kahan, MasterWeights, Rounded
from mpkit.training.batches import Batches

Keeper = Callable[[torch.optim.Optimizer, FloatFormat], WeightKeeper]
KEEPERS: dict[str, Keeper] = {
    "master": MasterWeights,
    "nearest": Rounded,
    "stochastic": lambda optimizer, fmt: Rounded(optimizer, fmt, "stochastic"),
    "kahan": Kahan,
}
# Every optimizer of torch, but those that take only sparse gradients or only matrices.
CLASSES = [cls for cls in vars(torch.optim).values() if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)]
OPTIMIZERS = [cls for cls in CLASSES if cls.__name__ not in {"Optimizer", "SparseAdam", "Muon"}]
DRAW = torch.Generator().manual_seed(1)
INPUTS, TARGETS = torch.randn(32, 8, generator=DRAW), torch.randn(32, 4, generator=DRAW)


def small_net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(INPUTS), TARGETS)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _ in range(count):
        optimizer.step(closure)


def same(a: Iterable[Tensor], b: Iterable[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


# ---- against plain FP32 ----


def test_the_list_of_optimizers_is_not_empty() -> None:
    assert {"SGD", "Adam", "AdamW", "LBFGS", "Adagrad"} <= {cls.__name__ for cls in OPTIMIZERS}


@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda cls: cls.__name__)
def test_in_fp32_every_wrapper_is_the_plain_optimizer_bit_for_bit_and_resumes(cls: Any, keeper: str) -> None:
    wrap = KEEPERS[keeper]
    plain, wrapped, resumed = small_net(), small_net(), small_net()
    optimizers = cls(plain.parameters(), lr=0.05), wrap(cls(wrapped.parameters(), lr=0.05), FP32)
    for model, optimizer in zip((plain, wrapped), optimizers, strict=True):
        steps(model, optimizer, 3)
    again = wrap(cls(resumed.parameters(), lr=0.05), FP32)
    resumed.load_state_dict(wrapped.state_dict())
    again.load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    for model, optimizer in zip((plain, wrapped, resumed), (*optimizers, again), strict=True):
        steps(model, optimizer, 3)
    assert same(plain.parameters(), wrapped.parameters())
    assert same(plain.parameters(), resumed.parameters())
    assert not same(plain.parameters(), small_net().parameters()), "the weights moved"
    assert optimizers[1].updates.lost_share == again.updates.lost_share == 0.0


@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("fmt", [BF16, FP16])
def test_a_16_bit_run_resumes_to_the_bit(fmt: FloatFormat, keeper: str) -> None:
    wrap = KEEPERS[keeper]
    whole, half, resumed = small_net(), small_net(), small_net()
    first = wrap(torch.optim.Adam(whole.parameters(), lr=1e-3), fmt)
    steps(whole, first, 8)
    second = wrap(torch.optim.Adam(half.parameters(), lr=1e-3), fmt)
    steps(half, second, 5)
    third = wrap(torch.optim.Adam(resumed.parameters(), lr=1e-3), fmt)
    resumed.load_state_dict(half.state_dict())
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    steps(resumed, third, 3)
    assert same(whole.parameters(), resumed.parameters())
    assert int(first.updates.moved) == int(third.updates.moved) > 0
    assert int(first.updates.lost) == int(third.updates.lost)
    assert all(torch.equal(p, mpkit.cast(p.detach(), fmt)) for p in whole.parameters()), "on the grid"


def test_the_optimizers_own_state_comes_along() -> None:
    """Wrapped after three steps, Adam goes on as if it had been wrapped all the time (Adagrad has state from birth)."""
    plain, wrapped = small_net(), small_net()
    adam, inner = (torch.optim.Adam(model.parameters()) for model in (plain, wrapped))
    steps(plain, adam, 6)
    steps(wrapped, inner, 3)
    steps(wrapped, MasterWeights(inner, FP32), 3)
    assert same(plain.parameters(), wrapped.parameters())


# ---- each scheme, with the gradients given ----


def follow(keeper: str, fmt: FloatFormat, start: Tensor, grads: Tensor, real: bool = False) -> tuple[Tensor, Any]:
    """Weights after SGD with lr 1 through given gradients (steps, weights); in the real dtype or emulated."""
    param = nn.Parameter(start.to(fmt.dtype) if real else start.clone())
    optimizer = KEEPERS[keeper](torch.optim.SGD([param], lr=1.0), fmt)
    for grad in grads:
        param.grad = grad.to(param.dtype)
        optimizer.step()
    return param.detach(), optimizer


def gradients(fmt: FloatFormat, seed: int = 0) -> tuple[Tensor, Tensor]:
    """200 weights around 1 and 60 gradients of all sizes down to a hundredth of a spacing; both on the grid of fmt."""
    draw = torch.Generator().manual_seed(seed)
    start = torch.randn(200, generator=draw)
    grads = torch.randn(60, 200, generator=draw) * fmt.epsilon * 2.0 ** (torch.rand(200, generator=draw) * 8 - 6)
    return mpkit.cast(start, fmt), mpkit.cast(grads, fmt)


@pytest.mark.parametrize("fmt", [BF16, FP16])
def test_nearest_is_torchs_own_arithmetic_in_that_dtype(fmt: FloatFormat) -> None:
    start, grads = gradients(fmt)
    expected = start.to(fmt.dtype)
    for grad in grads:
        expected = (expected.float() - grad).to(fmt.dtype)
    for real in (False, True):
        found, _ = follow("nearest", fmt, start, grads, real)
        assert found.dtype == (fmt.dtype if real else torch.float32)
        assert torch.equal(found.float(), expected.float())


@pytest.mark.parametrize("fmt", [BF16, FP16])
@pytest.mark.parametrize("real", [False, True], ids=["emulated", "real"])
def test_master_weights_are_a_plain_fp32_run_and_its_rounded_copy(fmt: FloatFormat, real: bool) -> None:
    start, grads = gradients(fmt)
    master = start.clone()
    for grad in grads:
        master -= grad
    found, optimizer = follow("master", fmt, start, grads, real)
    assert torch.equal(found.float(), master.to(fmt.dtype).float())
    assert torch.equal(optimizer.state_dict()["kept"][0], master)
    assert optimizer.updates.lost_share == 0.0


def test_float32_parameters_give_their_full_value_to_the_master_copy() -> None:
    param = nn.Parameter(torch.tensor([1.0 + 2.0**-20]))
    optimizer = MasterWeights(torch.optim.SGD([param], lr=1.0), BF16)
    assert param.item() == 1.0
    assert optimizer.state_dict()["kept"][0].item() == 1.0 + 2.0**-20


@pytest.mark.parametrize(("fmt", "dtype"), [(BF16, ml_dtypes.bfloat16), (FP16, np.float16)])
@pytest.mark.parametrize("real", [False, True], ids=["emulated", "real"])
def test_kahan_splits_the_sum_as_numpy_does(fmt: FloatFormat, dtype: Any, real: bool) -> None:
    start, grads = gradients(fmt)
    high, low = start.numpy().astype(dtype), np.zeros(200, dtype)
    for grad in grads.numpy():
        total = high.astype(np.float32) + low.astype(np.float32) - grad
        high = total.astype(dtype)
        low = (total - high.astype(np.float32)).astype(dtype)
    found, optimizer = follow("kahan", fmt, start, grads, real)
    kept = optimizer.state_dict()["kept"][0]
    assert kept.dtype == (fmt.dtype if real else torch.float32)
    assert np.array_equal(found.float().numpy(), high.astype(np.float32))
    assert np.array_equal(kept.float().numpy(), low.astype(np.float32))


@pytest.mark.parametrize("fmt", [BF16, FP16])
def test_kahan_ends_next_to_the_exact_sum_and_nearest_does_not(fmt: FloatFormat) -> None:
    start = torch.ones(1)
    grads = torch.full((1000, 1), -fmt.epsilon / 16)  # a sixteenth of the spacing at 1: the sum is 1 + 62.5 spacings
    exact = 1 + 1000 * fmt.epsilon / 16
    assert follow("nearest", fmt, start, grads)[0].item() == 1.0
    assert abs(follow("kahan", fmt, start, grads)[0].item() - exact) <= fmt.spacing(exact)
    assert abs(follow("master", fmt, start, grads)[0].item() - exact) <= fmt.spacing(exact) / 2


@pytest.mark.parametrize("fmt", [BF16, FP16])
def test_stochastic_rounding_is_right_in_the_mean(fmt: FloatFormat) -> None:
    """A quarter of a spacing, 20 times: each weight is a walk of Bernoulli steps, mean 5, variance 20 · 1/4 · 3/4."""
    count, times = 4000, 20
    start, grads = torch.ones(count), torch.full((times, count), -fmt.epsilon / 4)
    found, optimizer = follow("stochastic", fmt, start, grads)
    spacings = (found - 1) / fmt.epsilon
    assert torch.equal(spacings, spacings.round()), "always on the grid"
    mean, variance = times / 4, times * 3 / 16
    assert abs(spacings.mean().item() - mean) < 5 * (variance / count) ** 0.5
    assert abs(spacings.var().item() / variance - 1) < 0.15
    assert abs(optimizer.updates.lost_share - 0.75) < 0.01


def test_the_seed_decides_the_random_roundings() -> None:
    start, grads = gradients(BF16)
    runs = []
    for seed in (0, 0, 1):
        param = nn.Parameter(start.clone())
        optimizer = Rounded(torch.optim.SGD([param], lr=1.0), BF16, "stochastic", seed=seed)
        for grad in grads:
            param.grad = grad
            optimizer.step()
        runs.append(param.detach())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("weight", "update", "lost"),
    [
        (1.0, 2.0**-9, True),  # a quarter of the spacing 2^-7
        (1.0, 2.0**-8, True),  # exactly half of the spacing 2^-7
        (1.0, 1.01 * 2.0**-8, False),
        (1.0, -(2.0**-9), True),  # below 1 the spacing is 2^-8: again a tie, again to 1
        (1.0, -1.01 * 2.0**-9, False),
        (1.0 + 2.0**-7, 2.0**-8, False),  # the tie goes to the even neighbour, which is another number
        (0.0, 1e-30, False),
    ],
)
def test_what_is_lost_in_bf16(weight: float, update: float, lost: bool) -> None:
    _, optimizer = follow("nearest", BF16, torch.tensor([weight]), torch.tensor([[-update]]))
    assert (int(optimizer.updates.moved), int(optimizer.updates.lost)) == (1, int(lost))
    assert optimizer.updates.lost_share == float(lost)


def test_a_zero_update_is_not_counted() -> None:
    _, optimizer = follow("nearest", BF16, torch.ones(3), torch.tensor([[0.0, 1.0, 2.0**-12]]))
    assert (int(optimizer.updates.moved), int(optimizer.updates.lost)) == (2, 1)


def test_a_weight_that_overflows_stays_inf_and_the_compensation_stays_a_number() -> None:
    found, optimizer = follow("kahan", FP16, torch.tensor([60000.0]), torch.tensor([[-30000.0], [0.0]]))
    assert found.item() == float("inf")
    assert optimizer.state_dict()["kept"][0].item() == 0.0


# ---- as an optimizer among others ----


def test_a_scheduler_and_groups_reach_the_wrapped_optimizer() -> None:
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    sgd = torch.optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.5}])
    optimizer = MasterWeights(sgd, FP16)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    late = nn.Parameter(torch.full((1,), 1.0001))
    optimizer.add_param_group({"params": [c, late], "lr": 2.0, "initial_lr": 2.0})
    assert late.item() == 1.0, "rounded at once"
    for param in (a, b, c):
        param.grad = -torch.ones(1)
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == [1.0, 0.5, 2.0]
    scheduler.base_lrs.append(2.0)
    scheduler.step()
    assert [group["lr"] for group in sgd.param_groups][:2] == [0.5, 0.25]
    optimizer.step()
    assert [p.item() for p in (a, b)] == [1.5, 0.75]
    optimizer.zero_grad()
    assert a.grad is None


def test_a_saved_learning_rate_comes_back() -> None:
    model, other = small_net(), small_net()
    optimizer, again = (Kahan(torch.optim.SGD(m.parameters(), lr=0.1), BF16) for m in (model, other))
    optimizer.param_groups[0]["lr"] = 0.025
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["lr"] == again.optimizer.param_groups[0]["lr"] == 0.025
    again.param_groups[0]["lr"] = 1.0
    assert again.optimizer.param_groups[0]["lr"] == 1.0, "still shared"


def test_a_parameter_without_a_gradient_stays() -> None:
    a, b = (nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = Kahan(torch.optim.SGD([a, b], lr=1.0), BF16)
    a.grad = torch.ones(1)
    optimizer.step()
    assert (a.item(), b.item()) == (0.0, 1.0)


def test_nothing_in_fp32_is_left_behind_after_a_step() -> None:
    """Two bytes a weight for rounded weights and four with Kahan, besides the optimizer's own state."""
    for keeper, extra in (("nearest", 0), ("kahan", 2), ("master", 4)):
        param = nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
        optimizer = KEEPERS[keeper](torch.optim.SGD([param], lr=1.0), BF16)
        param.grad = torch.ones_like(param)
        optimizer.step()
        slots = optimizer._slots.values()
        held = sum(t.numel() * t.element_size() for s in slots for t in (s.extra, s.grad) if t is not None)
        assert held == extra * 1000
        assert param.dtype == torch.bfloat16
        assert all(slot.stored.data_ptr() == param.data_ptr() for slot in slots), "its own memory, as before"


@pytest.mark.parametrize("scaler", [lambda: mpkit.LossScaler(), lambda: torch.amp.GradScaler("cpu")])
@pytest.mark.parametrize("keeper", KEEPERS)
def test_a_scaler_skips_and_unscales_as_ever(keeper: str, scaler: Callable[[], Any]) -> None:
    plain, wrapped = small_net(), small_net()
    for model, wrap in ((plain, lambda optimizer, _: optimizer), (wrapped, KEEPERS[keeper])):
        optimizer, scale = wrap(torch.optim.Adam(model.parameters(), lr=0.01), FP32), scaler()
        for step in range(6):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(INPUTS), TARGETS) * (float("inf") if step == 2 else 1.0)
            scale.scale(loss).backward()
            if step % 2:
                scale.unscale_(optimizer)
            scale.step(optimizer)
            scale.update()
        assert scale.get_scale() == 2.0**15
    assert same(plain.parameters(), wrapped.parameters())
    assert all(p.isfinite().all() for p in wrapped.parameters())


@pytest.mark.parametrize("scaler", [lambda: mpkit.LossScaler(), lambda: torch.amp.GradScaler("cpu")])
def test_real_fp16_gradients_are_unscaled_in_fp32(scaler: Callable[[], Any]) -> None:
    """A true gradient of 2^-30 is below FP16, but 2^16 times that is not. The master copy gets all of it."""
    param = nn.Parameter(torch.zeros(1, dtype=torch.float16))
    optimizer, scale = MasterWeights(torch.optim.SGD([param], lr=1.0), FP16), scaler()
    scale.scale((param.float() * 2.0**-30).sum()).backward()
    assert param.grad is not None
    assert param.grad.item() == 2.0**-14
    scale.step(optimizer)
    scale.update()
    assert optimizer.state_dict()["kept"][0].item() == -(2.0**-30)
    assert param.item() == 0.0


def test_it_trains_inside_fit_and_under_a_policy_as_fp32_parameters_do() -> None:
    """Operands are rounded to BF16 anyway, so a BF16 copy of FP32 masters gives the same run as the masters."""
    draw = torch.Generator().manual_seed(0)
    data = Batches(torch.rand(64, 64, generator=draw), torch.randint(0, 10, (64,), generator=draw), 32)
    policy = Policy.preset("bf16-mixed")
    runs = compare(
        [Variant("parameters", policy), Variant("masters", policy, wrap=lambda opt: MasterWeights(opt, BF16)),
         Variant("pure", policy, wrap=lambda opt: Rounded(opt, BF16))],
        lambda: MLP(seeds=range(2)), data, lambda net: torch.optim.Adam(net.parameters(), lr=1e-4), steps=20,
        score=lambda net: net.linear_layers()[0].weight.flatten(1).norm(dim=1),
    )  # fmt: skip
    losses = {name: [r.loss for r in run.records] for name, run in runs.items()}
    assert losses["parameters"] == losses["masters"]
    assert losses["parameters"] != losses["pure"]
    assert runs["parameters"].lost is None
    assert runs["masters"].lost == 0.0
    assert runs["pure"].lost is not None
    assert runs["pure"].lost > 0.5


# ---- errors ----


def test_errors_say_what_to_do() -> None:
    param = nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([param], lr=0.1)
    with pytest.raises(TypeError, match=r"Kahan wraps one torch optimizer, but list came; pass the plain torch opt"):
        Kahan([param], BF16)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"MasterWeights wraps one torch optimizer, but Kahan came; pass the plain"):
        MasterWeights(Kahan(sgd, BF16), BF16)
    with pytest.raises(TypeError, match=r"a format is asked for, but 'bf16' .* write mpkit.BF16"):
        Kahan(sgd, "bf16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rounding='even' is unknown; use one of nearest, zero, up, down, stochastic"):
        Rounded(sgd, BF16, "even")  # type: ignore[arg-type]
    half = nn.Parameter(torch.ones(2, dtype=torch.float16))
    with pytest.raises(TypeError, match=r"shape \(2,\) is torch.float16, .* live in BF16; use float32 parameters"):
        Rounded(torch.optim.SGD([half], lr=0.1), BF16)


def test_a_state_of_another_wrapper_is_refused_and_changes_nothing() -> None:
    model = small_net()
    optimizer = Kahan(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), BF16)
    steps(model, optimizer, 1)
    before = optimizer.state_dict()
    other = MasterWeights(torch.optim.SGD(small_net().parameters(), lr=0.1), BF16).state_dict()
    with pytest.raises(ValueError, match=r"saved by MasterWeights\(SGD, BF16\), but Kahan\(SGD, BF16\) is to load it"):
        optimizer.load_state_dict(other)
    with pytest.raises(ValueError, match=r"saved by an optimizer without a wrapper, but Kahan"):
        optimizer.load_state_dict(torch.optim.SGD(small_net().parameters(), lr=0.1).state_dict())
    assert same(before["kept"], optimizer.state_dict()["kept"])
    assert repr(Rounded(torch.optim.Adam(small_net().parameters()), FP16)) == "Rounded(Adam, FP16, 'nearest')"


# ---- what other hands do ----


@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("value", [3.0, 0.0])
@pytest.mark.parametrize("fmt", [BF16, FP32])
def test_a_weight_that_other_hands_have_changed_counts(keeper: str, fmt: FloatFormat, value: float) -> None:
    """A checkpoint that is loaded after wrapping, or a clamp, is not undone by the next step."""
    model = small_net()
    optimizer = KEEPERS[keeper](torch.optim.SGD(model.parameters(), lr=1e-3), fmt)
    steps(model, optimizer, 3)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
            p.grad = torch.zeros_like(p)
    optimizer.step()
    assert all((p == value).all() for p in model.parameters())
    optimizer.step()
    assert all((p == value).all() for p in model.parameters())


@pytest.mark.parametrize("first", ["model", "optimizer"])
@pytest.mark.parametrize("keeper", KEEPERS)
def test_model_and_optimizer_may_be_loaded_in_either_order(keeper: str, first: str) -> None:
    model, other = small_net(), small_net()
    one, two = (KEEPERS[keeper](torch.optim.Adam(m.parameters(), lr=1e-4), BF16) for m in (model, other))
    steps(model, one, 5)
    saved = copy.deepcopy((model.state_dict(), one.state_dict()))
    for what in (0, 1) if first == "model" else (1, 0):
        (other, two)[what].load_state_dict(saved[what])  # type: ignore[arg-type]
    steps(model, one, 4)
    steps(other, two, 4)
    assert same(model.parameters(), other.parameters())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("keeper", [MasterWeights, Rounded, Kahan])
def test_a_copy_of_model_and_optimizer_goes_on_by_itself(keeper: Any, clone: Any) -> None:
    settings = ("stochastic",) if keeper is Rounded else ()
    model = small_net()
    optimizer = keeper(torch.optim.Adam(model.parameters(), lr=1e-4), BF16, *settings)
    steps(model, optimizer, 3)
    twin, twins_optimizer = clone((model, optimizer))
    before = [p.detach().clone() for p in model.parameters()]
    steps(twin, twins_optimizer, 3)
    assert same(before, model.parameters()), "the original stays"
    steps(model, optimizer, 3)
    assert same(twin.parameters(), model.parameters())


def test_a_saved_state_is_a_copy_and_survives_a_file(tmp_path: Path) -> None:
    model = small_net()
    optimizer = MasterWeights(torch.optim.Adam(model.parameters(), lr=1e-4), BF16)
    steps(model, optimizer, 2)
    state = optimizer.state_dict()
    kept = [one.clone() for one in state["kept"]]
    torch.save(state, tmp_path / "state.pt")
    steps(model, optimizer, 2)
    assert same(kept, state["kept"])
    assert same(kept, torch.load(tmp_path / "state.pt", weights_only=True)["kept"])


def test_state_belongs_to_the_models_parameters() -> None:
    """As in torch: logging may look up Adam's moments, and an empty look-up harms nothing."""
    model = small_net()
    optimizer = Kahan(torch.optim.Adam(model.parameters()), BF16)
    assert optimizer.state[next(model.parameters())] == {}
    steps(model, optimizer, 2)
    moments = optimizer.state[next(model.parameters())]
    assert moments["exp_avg"].dtype == torch.float32
    assert float(moments["step"]) == 2
    assert len(optimizer.state_dict()["state"]) == 4


def test_16_bit_state_goes_on_in_fp32() -> None:
    param = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    inner = torch.optim.Adam([param], lr=0.1)
    param.grad = torch.ones_like(param)
    inner.step()
    assert inner.state[param]["exp_avg"].dtype == torch.bfloat16
    optimizer = Kahan(inner, BF16)
    optimizer.step()
    assert optimizer.state[param]["exp_avg"].dtype == torch.float32
    resumed = Kahan(torch.optim.Adam([nn.Parameter(torch.ones(3, dtype=torch.bfloat16))], lr=0.1), BF16)
    resumed.load_state_dict(optimizer.state_dict())
    assert all(s["exp_avg"].dtype == torch.float32 for s in resumed.state.values())


def test_parameters_may_come_and_go_behind_the_wrappers_back() -> None:
    a, b = (nn.Parameter(torch.full((1,), 1.001)) for _ in range(2))
    inner = torch.optim.SGD([a], lr=1.0)
    optimizer = MasterWeights(inner, BF16)
    inner.add_param_group({"params": [b]})
    for param in (a, b):
        param.grad = torch.ones(1)
    optimizer.step()
    assert b.item() == mpkit.cast(torch.tensor(0.001), BF16).item()
    optimizer.param_groups.pop()
    optimizer.step()
    assert b.item() == mpkit.cast(torch.tensor(0.001), BF16).item()
    assert len(optimizer.state_dict()["kept"]) == 1


class Broken(torch.optim.SGD):
    """Changes the first weight, then fails."""

    def step(self, closure: Any = None) -> Any:
        self.param_groups[0]["params"][0].data.add_(1.0)
        raise ArithmeticError("half way")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keeper", KEEPERS)
def test_a_step_that_fails_leaves_the_model_as_it_was(keeper: str, dtype: torch.dtype) -> None:
    model = small_net().to(dtype)
    optimizer = KEEPERS[keeper](Broken(model.parameters(), lr=0.1), BF16)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(ArithmeticError, match="half way"):
        optimizer.step()
    assert same(before, model.parameters())
    assert all(p.dtype == dtype and p.grad is not None and p.grad.dtype == dtype for p in model.parameters())


def test_a_closure_that_fails_leaves_16_bit_parameters() -> None:
    model = small_net().bfloat16()
    optimizer = Kahan(torch.optim.SGD(model.parameters(), lr=0.1), BF16)

    def closure() -> float:
        assert all(p.dtype == torch.bfloat16 for p in model.parameters()), "the model sees its own dtype"
        raise ArithmeticError("in the closure")

    with pytest.raises(ArithmeticError, match="in the closure"):
        optimizer.step(closure)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())


def test_errors_come_before_anything_has_changed() -> None:
    good, bad = nn.Parameter(torch.full((2,), 1.001)), nn.Parameter(torch.ones(2, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"torch\.float64, but the weights are to live in BF16"):
        MasterWeights(torch.optim.SGD([good, bad], lr=0.1), BF16)
    assert good[0].item() == pytest.approx(1.001)
    optimizer = MasterWeights(torch.optim.SGD([good], lr=0.1), BF16)
    for params in (bad, [bad]):
        with pytest.raises(TypeError, match=r"torch\.float64"):
            optimizer.add_param_group({"params": params})
    assert len(optimizer.param_groups) == 1


def test_a_state_of_another_model_is_refused() -> None:
    big, small = (nn.Parameter(torch.ones(n)) for n in (4, 1))
    saved = MasterWeights(torch.optim.SGD([small], lr=0.1), BF16).state_dict()
    with pytest.raises(ValueError, match="saved for parameters of other shapes; build the same model first"):
        MasterWeights(torch.optim.SGD([big], lr=0.1), BF16).load_state_dict(saved)


def test_kahan_with_real_fp8_weights() -> None:
    param = nn.Parameter(torch.ones(2, dtype=torch.float8_e4m3fn))
    optimizer = Kahan(torch.optim.SGD([param], lr=1.0), E4M3)
    for _ in range(8):
        param.grad = torch.full((2,), -1 / 64).to(torch.float8_e4m3fn)
        optimizer.step()
    assert param.dtype == torch.float8_e4m3fn
    assert param.float().tolist() == [1.125, 1.125], "eight updates of an eighth of a spacing"


def test_a_weight_that_is_nan_is_not_counted_as_moved() -> None:
    _, optimizer = follow("nearest", BF16, torch.tensor([float("nan"), 1.0]), torch.full((3, 2), 2.0**-12))
    assert (int(optimizer.updates.moved), int(optimizer.updates.lost)) == (3, 3)


def test_an_empty_group_is_fine() -> None:
    optimizer = Rounded(torch.optim.SGD([{"params": []}], lr=0.1), BF16)
    optimizer.step()
    assert optimizer.updates.lost_share == 0.0
