"""Which operation runs in which format, what is stored, and what is counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles.autocast_table import OPS, Feed
from torch import Tensor, nn

from mpkit import BF16, E4M3, FP16, FP32, TF32, FloatFormat, Meter, Policy, tally
from mpkit.policy.emulation import Emulation, is_low

MIXED = Policy.preset("fp16-mixed")
# The CPU's autocast has lists of its own: these come out low there and float32 on CUDA (or, `mv`, the other way round).
# tests/gpu/test_training_cuda.py compares the whole table with CUDA's.
CPU_DIFFERS = {
    "mv", "inner", "tensordot", "interpolate, nearest", "interpolate, bilinear", "layer_norm", "group_norm",
    "normalize", "sum", "cumsum", "logsumexp", "norm", "linalg.vector_norm", "softmax", "log_softmax", "softplus",
    "exp", "log", "** 2", "square", "asin", "1 / x", "rsqrt", "cosine_similarity",
}  # fmt: skip


def emulated(operation: Callable[[Feed], Tensor], policy: str = "fp16-mixed") -> Tensor:
    with Policy.preset(policy).apply(nn.Identity()):
        return operation(Feed())


@pytest.mark.parametrize("name", OPS)
def test_low_where_autocast_gives_float16(name: str) -> None:
    with torch.autocast("cpu", dtype=torch.float16), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native = OPS[name](Feed())
    out = emulated(OPS[name])
    cpu_says = native.dtype == torch.float16
    assert is_low(out) == (not cpu_says if name in CPU_DIFFERS else cpu_says)
    if out.dtype == torch.float32:
        assert torch.allclose(out, native.float(), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("policy", ["fp16-mixed", "bf16-mixed", "fp16-true", "bf16-true", "fp16-master"])
@pytest.mark.parametrize("name", OPS)
def test_what_is_stored_low_has_a_value_of_the_format(name: str, policy: str) -> None:
    out = emulated(OPS[name], policy)
    dtype = Policy.preset(policy).forward.dtype
    assert dtype is not None
    if is_low(out):
        assert torch.equal(out.to(dtype).to(out.dtype), out)
    elif policy.endswith("true"):
        assert name in {"float()", "to(torch.float32)", "to(device, torch.float32)", "double()", "type_as",
                        "to(another tensor)", "detach", "float32 += low"}  # fmt: skip


def test_the_mark_survives_views_and_every_part_of_a_result() -> None:
    with MIXED.apply(nn.Identity()):
        low, wide = Feed().low, Feed().x
        parts = [*low.chunk(2), *low.split([3, 5], 1), *low.unbind(), low.max(1).values, low.T, low.data, low[None, 0]]
        assert all(is_low(part) for part in parts)
        assert not any(is_low(part) for part in [*wide.chunk(2), wide.max(1).values, wide.T])
        largest = low.topk(3)
        assert type(largest).__name__ == "topk"
        assert largest.indices.dtype == torch.int64
        assert low.shape == (4, 8)


def test_operations_in_place_keep_their_target_s_format() -> None:
    with MIXED.apply(nn.Identity()):
        f = Feed()
        low, wide, part = f.low, f.x.clone(), f.low
        low += f.x
        wide += f.low
        part[:, 1] = f.x[:, 1]
        assert (is_low(low), is_low(wide), is_low(part)) == (True, False, True)
    assert torch.equal(low.half().float(), low)
    assert torch.equal(part.half().float(), part)
    assert torch.equal(part[:, 1], f.x[:, 1].half().float())
    assert not torch.equal(wide.half().float(), wide)
    assert torch.equal(f.x, Feed().x), "only the targets change"


def test_gradients_flow_through_operations_in_place() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    square = Feed().square
    with MIXED.apply(nn.Identity()):
        out = x @ square
        out.mul_(1.3)
        torch.sigmoid_(out)
        loss = out.float().sum()
    loss.backward()
    z = x.detach().half().float() @ square.half().float()
    y = torch.sigmoid((z.half() * 1.3).float()).half().float()
    slope = (y * (1 - y) * 1.3).half().float() @ square.half().float().T
    assert x.grad is not None
    assert torch.allclose(x.grad, slope.half().float(), rtol=2e-3, atol=1e-4)


def test_float_leaves_the_low_format_and_shares_its_values() -> None:
    with MIXED.apply(nn.Identity()):
        low = Feed().low
        wide = low.float()
        assert (is_low(low), is_low(wide), is_low(wide + low)) == (True, False, False)
        assert torch.equal(low, wide)
        assert is_low(low.to("cpu")), "a move to a device keeps the format"


@pytest.mark.parametrize(("name", "fmt"), [("fp16-mixed", FP16), ("bf16-mixed", BF16), ("tf32", TF32)])
def test_matrix_products_round_operands_and_what_is_stored(name: str, fmt: FloatFormat) -> None:
    """Oracle: float64 products of values cut to the format by bit masks or torch's own conversion."""
    x, w = torch.randn(16, 32), torch.randn(8, 32)
    with Policy.preset(name).apply(nn.Identity()):
        out = F.linear(x, w)
    low = [_nearest(t, fmt).double() for t in (x, w)]
    exact = low[0] @ low[1].T
    stored = _nearest(exact.float(), fmt).double() if fmt.bits == 16 else exact
    assert is_low(out) == (fmt.bits == 16)
    limit = 1.01 * fmt.epsilon if fmt.bits == 16 else 1e-6  # at most one unit apart, where FP32 sums fall across a tie
    assert torch.allclose(out.double(), stored, rtol=limit, atol=1e-5)
    assert (out.double() == stored).double().mean() > (0.98 if fmt.bits == 16 else -1)
    assert not torch.allclose(out.double(), x.double() @ w.double().T, rtol=1e-6, atol=1e-5)


def _nearest(x: Tensor, fmt: FloatFormat) -> Tensor:
    if fmt.dtype is not None:
        return x.to(fmt.dtype).float()
    drop = 23 - fmt.mantissa_bits  # round half to even on the bit pattern
    bits = x.view(torch.int32)
    half = (1 << (drop - 1)) - 1 + ((bits >> drop) & 1)
    return ((bits + half) & ~((1 << drop) - 1)).view(torch.float32)


def test_a_result_that_autograd_keeps_is_the_stored_one() -> None:
    """sigmoid(9) is 1 - 1.2e-4, in BF16 exactly 1; there the slope y (1 - y) is 0, not 1.2e-4."""
    x = torch.full((1, 1), 9.0, requires_grad=True)
    native_x = x.detach().clone().requires_grad_()
    one = torch.ones(1, 1)
    with Policy.preset("bf16-mixed").apply(nn.Identity()):
        y = torch.sigmoid(x @ one)
    y.sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        native = torch.sigmoid(native_x @ one)
    native.sum().backward()
    assert float(y.detach()) == float(native.detach()) == 1.0
    assert x.grad is not None
    assert native_x.grad is not None
    assert float(x.grad) == float(native_x.grad) == 0.0


def test_eight_bit_formats_feed_products_but_store_nothing() -> None:
    x, w = torch.randn(4, 8), torch.randn(8, 8)
    with Policy(forward=E4M3, backward=FP32).apply(nn.Identity()):
        out = F.relu(x @ w)
    dtype = torch.float8_e4m3fn
    assert not is_low(out)
    assert torch.allclose(out, F.relu(x.to(dtype).float() @ w.to(dtype).float()), atol=1e-5)


def test_optimizer_pause_switches_everything_off() -> None:
    mode = Emulation(FP16, FP16, FP32, everywhere=False, meter=None)
    mode.paused = True
    x, w = torch.randn(4, 8), torch.randn(8, 8)
    with mode:
        assert torch.equal(x @ w, torch.mm(x, w))
        assert not is_low(x @ w)


# ---- the meter ----


def test_the_meter_agrees_with_a_count_by_hand() -> None:
    """y = x w, loss = sum(y c): three gradients are rounded, c itself, c w^T and x^T c. Count their elements."""
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(6, 5, generator=draw, requires_grad=True)
    w = torch.randn(5, 4, generator=draw, requires_grad=True)
    c = torch.randn(6, 4, generator=draw) * 2.0 ** torch.randint(-30, -18, (6, 4), generator=draw)
    c[0, 0] = 0.0
    meter = Meter()
    with MIXED.apply(nn.Identity(), meter=meter):
        loss = ((x @ w).float() * c).sum()
    loss.backward()
    low_c, low_x, low_w = c.half().float(), x.detach().half().float(), w.detach().half().float()
    rounded = [c, low_c @ low_w.T, low_x.T @ low_c]
    nonzero = sum(int((g != 0).sum()) for g in rounded)
    lost = sum(int(((g != 0) & (g.half() == 0)).sum()) for g in rounded)
    assert 0.05 < lost / nonzero < 0.95
    assert lost == sum(tally(g, FP16).flushed_count for g in rounded)
    assert meter.flushed == lost / nonzero


def test_the_meter_starts_empty_and_resets() -> None:
    meter = Meter()
    assert meter.flushed == 0.0
    meter.see(torch.tensor([1e-9, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    assert meter.flushed == 0.5
    meter.see(torch.tensor([1e-9, 1e-9]), torch.tensor([0.0, 0.0]))
    assert meter.flushed == 0.75
    meter.reset()
    assert meter.flushed == 0.0


@pytest.mark.parametrize(("name", "counts"), [("fp32", 0), ("article", 0), ("fp16-mixed", 1), ("bf16-mixed", 0)])
def test_only_rounded_gradients_can_be_flushed(name: str, counts: int) -> None:
    """1e-9 is below FP16's 2^-25 and far above BF16's limit; the article's backward pass is FP32."""
    meter = Meter()
    layer = nn.Linear(4, 3)
    with Policy.preset(name).apply(layer, meter=meter):
        loss = 1e-9 * layer(torch.ones(2, 4)).float().sum()
    loss.backward()
    assert meter.flushed == counts
