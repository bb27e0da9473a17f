"""What a result says of the gradients: the truth of the moment of the check, whatever was done to them after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpkit import LossScaler, StepResult

INF, NAN = math.inf, math.nan
ONE_INF, MIXED = {"encoder.weight": [1.0, INF, 2.0]}, {"encoder.weight": [1.0, INF, NAN], "head": [NAN, NAN]}


def clip_norm(params: list[Tensor]) -> None:
    nn.utils.clip_grad_norm_(params, 1.0)  # Inf / Inf is NaN, and after a NaN all values are


def clip_value(params: list[Tensor]) -> None:
    nn.utils.clip_grad_value_(params, 1.0)  # after which Inf is 1


def zero(params: list[Tensor]) -> None:
    for p in params:
        p.grad.zero_()  # type: ignore[union-attr]


def leave(params: list[Tensor]) -> None:
    """Nothing is changed."""


def stepped(
    bad: dict[str, list[float]], between: Callable[[list[Tensor]], None], fused: bool, **kinds: Any
) -> StepResult:
    """The result of unscale_, then `between`, then step. `bad`: gradients of some of three parameters, by name."""
    sizes = {"first": 3, "encoder.weight": 3, "head": 2}
    named = {name: nn.Parameter(torch.zeros(size, dtype=kinds.get(name))) for name, size in sizes.items()}
    optimizer = torch.optim.SGD(list(named.items()), lr=1.0, fused=fused)
    scaler = LossScaler()
    scaler.scale(torch.ones(()))
    for name, p in named.items():
        p.grad = torch.tensor(bad.get(name, [1.0] * sizes[name]), dtype=p.dtype)
    scaler.unscale_(optimizer)
    between(list(named.values()))
    result = scaler.step(optimizer)
    scaler.update()
    return result


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("between", [leave, clip_norm, clip_value, zero])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [(ONE_INF, "1 Inf and 0 NaN, first in encoder.weight"), (MIXED, "1 Inf and 3 NaN, first in encoder.weight")],
)
def test_after_unscale_and_clipping(
    bad: dict[str, list[float]], reason: str, between: Callable[[list[Tensor]], None], fused: bool
) -> None:
    result = stepped(bad, between, fused)
    assert result.reason == f"skipped: {reason}"
    assert (result.first_bad, f"{result.inf_count} Inf and {result.nan_count} NaN") == (
        "encoder.weight", reason.partition(",")[0],
    )  # fmt: skip


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags are noted, and nothing is read: `unscale_` may not wait for the device there."""
    monkeypatch.setattr("mpkit.scaling.evidence.Evidence.note", lambda self, found_inf: self.flag())


@pytest.mark.parametrize("between", [clip_norm, clip_value, zero])
@pytest.mark.parametrize(("bad", "kind"), [(ONE_INF, "Inf"), (MIXED, "NaN")])
@pytest.mark.parametrize("fused", [False, True])
def test_on_a_gpu_name_and_kind_outlive_clipping(
    as_on_a_gpu: None, bad: dict[str, list[float]], kind: str, between: Callable[[list[Tensor]], None], fused: bool
) -> None:
    result = stepped(bad, between, fused)
    assert result.first_bad == "encoder.weight"
    assert result.reason == (
        f"skipped: {kind}, first in encoder.weight; how many is not known, because the gradients were changed or let "
        "go after the check"
    )
    for name in ("inf_count", "nan_count"):
        with pytest.raises(RuntimeError, match="not finite, but how many is not known, because the gradients were"):
            getattr(result, name)


def test_on_a_gpu_counts_are_known_while_the_gradients_are_as_they_were(as_on_a_gpu: None) -> None:
    result = stepped(MIXED, leave, fused=True)
    assert (result.first_bad, result.inf_count, result.nan_count) == ("encoder.weight", 1, 3)
    result._evidence.release("gone")  # as the next scale() does
    assert result.first_bad == "encoder.weight"
    assert result.reason.startswith("skipped: NaN, first in encoder.weight; how many is not known")


def test_on_a_gpu_first_bad_follows_the_optimizers_order_across_dtypes(as_on_a_gpu: None) -> None:
    bad = {"first": [1.0, 1.0, 1.0], "encoder.weight": [1.0, 1.0, -INF], "head": [NAN, 0.0]}
    result = stepped(bad, clip_norm, True, first=torch.float64, head=torch.float64)
    assert result.reason.startswith("skipped: Inf, first in encoder.weight;")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_flag_reads_nothing_and_takes_gradients_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    for name in ("item", "__bool__", "__float__", "__int__", "tolist"):
        original = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda self, name=name, f=original: (reads.append(name), f(self))[1])
    monkeypatch.setattr("mpkit.scaling.evidence.Evidence.note", lambda self, found_inf: self.flag())
    table, empty, plain = nn.Parameter(torch.zeros(4, 1)), nn.Parameter(torch.zeros(0)), nn.Parameter(torch.zeros(2))
    frozen, half = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([("table", table), ("rest", empty), ("p", plain), ("f", frozen), ("h", half)], lr=1.0)
    scaler = LossScaler()
    scaler.scale(torch.ones(()))
    table.grad = torch.sparse_coo_tensor(torch.tensor([[1, 2]]), torch.tensor([[1.0], [INF]]), (4, 1))
    empty.grad, plain.grad, half.grad = torch.zeros(0), torch.ones(2), torch.ones(2, dtype=torch.bfloat16)
    scaler.unscale_(optimizer)
    assert reads == []
    result = scaler.step(optimizer)
    scaler.update()
    assert result.first_bad == "table"


def test_a_clean_step_after_clipping_says_so() -> None:
    for fused in (False, True):
        result = stepped({}, clip_norm, fused)
        assert (result.reason, result.first_bad, result.inf_count, result.nan_count) == ("stepped", None, 0, 0)
