"""CUDA's and the CPU's lists against torch's own autocasts: the CPU's as it runs, CUDA's on fake tensors."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles.autocast_table import OPS, Feed
from oracles.reference_models import classifier
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mpkit import FP16, FP32, Policy
from mpkit.policy.emulation import is_low
from mpkit.trees import tensors_in

MIXED = Policy.preset("fp16-mixed")


@contextmanager
def autocast(device: str) -> Iterator[None]:
    """The real thing on a CPU. A GPU's is asked with tensors that have a device, a shape and a dtype but no values."""
    if device == "cpu":
        with torch.autocast("cpu", dtype=torch.float16):
            yield
        return
    with FakeTensorMode():
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.float16)
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()


def fed(device: str) -> Feed:
    feed = Feed()
    if device == "cuda":
        vars(feed).update({name: t.new_empty(t.shape, device="cuda") for name, t in vars(feed).items()})
    return feed


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("name", OPS)
def test_low_where_the_autocast_of_that_device_gives_float16(name: str, device: str) -> None:
    with MIXED.apply(nn.Identity(), lists=device):
        emulated = OPS[name](Feed())
    try:
        with autocast(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            native = OPS[name](fed(device))
    except RuntimeError as error:
        if "PyTorch is not linked with support for cuda" in str(error):
            pytest.skip("this operation asks for a real GPU: tests/gpu/test_training_cuda.py")
        raise
    assert is_low(emulated) == (native.dtype == torch.float16)


def called(name: str, function: Callable[..., Any]) -> bool:
    """Whether a function of torch may be tried with any arguments."""
    parts = (
        "set_ save load manual seed compile use_ init vmap cond get_ from_ bfloat16 bernoulli thread quantize".split()
    )
    return not name.startswith("_") and callable(function) and not inspect.isclass(function) and not any(
        part in name for part in parts
    )  # fmt: skip


FUNCTIONS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (torch, F, torch.linalg, torch.special)
    for name in dir(module)
    if called(name, getattr(module, name))
}


def arguments(device: str) -> Iterator[tuple[Any, ...]]:
    """One, two or three results of a matrix product, or one and a number."""
    wide = torch.rand(4, 4) + 0.5 if device == "cpu" else torch.empty(4, 4, device="cuda")
    low = F.linear(wide, wide)
    yield from ((low,), (low, low), (low, 1), (low, low, low))


def formats(out: Any) -> set[torch.dtype]:
    return {torch.float16 if is_low(t) else t.dtype for t in tensors_in(out) if t.is_floating_point()}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_every_function_that_takes_such_arguments_gives_what_autocast_gives(device: str) -> None:
    """What a device's autocast, or the emulation, cannot run with them is left out; most of torch is not."""
    wrong, compared = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, function in FUNCTIONS.items():
            for place in range(4):
                try:
                    with autocast(device):
                        native = formats(function(*list(arguments(device))[place]))
                    with MIXED.apply(nn.Identity(), lists=device):
                        mine = formats(function(*list(arguments("cpu"))[place]))
                except Exception:
                    continue
                compared += 1
                if mine != native:
                    wrong.append((name, place, native, mine))
    assert compared > 500
    assert wrong == []


# ---- refusals ----


def test_binary_cross_entropy_is_refused_where_cudas_autocast_refuses_it() -> None:
    with autocast("cuda"), pytest.raises(RuntimeError, match="are unsafe to autocast"):
        F.binary_cross_entropy(fed("cuda").low.sigmoid(), fed("cuda").x)
    match = (
        r"F\.binary_cross_entropy is refused under this policy, as CUDA's autocast .* Give F\.binary_cross_"
        r'entropy_with_logits \(nn\.BCEWithLogitsLoss\) what comes before .* policy\.apply\(model, lists="cpu"\)\.'
    )
    for policy in (MIXED, Policy.preset("bf16-mixed"), Policy.preset("fp16-master")):
        with policy.apply(nn.Identity()), pytest.raises(RuntimeError, match=match):
            nn.BCELoss()(Feed().low.sigmoid(), Feed().x.sigmoid())


@pytest.mark.parametrize("name", ["tf32", "fp16-true", "bf16-true", "article"])
def test_binary_cross_entropy_runs_where_no_autocast_is(name: str) -> None:
    feed = Feed()
    with Policy.preset(name).apply(nn.Identity()):
        loss = F.binary_cross_entropy(feed.low.sigmoid(), feed.x.sigmoid())
    assert is_low(loss) == name.endswith("true")
    assert float(loss) == pytest.approx(float(F.binary_cross_entropy(feed.low.sigmoid(), feed.x.sigmoid())), rel=0.02)


def test_the_cpus_lists_take_it_in_fp32() -> None:
    feed = Feed()
    with MIXED.apply(nn.Identity(), lists="cpu"):
        mine = F.binary_cross_entropy(feed.low.sigmoid(), feed.x.sigmoid())
    with torch.autocast("cpu", dtype=torch.float16):
        native = F.binary_cross_entropy(feed.low.sigmoid(), feed.x.sigmoid())
    assert (is_low(mine), native.dtype) == (False, torch.float32)
    assert float(mine) == pytest.approx(float(native), rel=1e-3)


def test_other_lists_are_refused() -> None:
    with pytest.raises(ValueError, match='lists=\'xpu\' is unknown; use "cuda" or "cpu", whose autocast is to be foll'):
        MIXED.apply(classifier(), lists="xpu")
    with pytest.raises(ValueError, match="a native engine has its device's lists; lists='cpu' needs engine=\"emulated"):
        MIXED.apply(classifier(), engine="native", lists="cpu")


def test_a_policy_of_ones_own_is_not_an_autocast() -> None:
    with Policy(forward=FP16, backward=FP32).apply(nn.Identity()):
        assert not is_low(F.binary_cross_entropy(Feed().low.sigmoid(), Feed().x.sigmoid()))
