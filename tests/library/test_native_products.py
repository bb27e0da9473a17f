"""What the hardware's products of scaled formats are given: decoded by ml_dtypes, and by the layouts as documented."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, SwizzleType

from mpkit import BF16, E2M1, E5M2, FP32, Policy
from mpkit.policy import LinearRecipe
from mpkit.policy.kernels import BY_ROW_ON_CPU, require_native, scaling_of
from mpkit.policy.native_products import Matrix, Native, _arguments
from mpkit.policy.policy import PRESETS
from mpkit.scaled import FP8_BLOCK, FP8_ROW, FP8_TENSOR, INT8_ROW, MXFP8, NVFP4, ScaledFormat, quantize
from mpkit.scaled.layouts import e2m1_codes, in_tiles, two_a_byte

ROWS = LinearRecipe("rows", FP8_ROW, FP8_ROW, FP8_ROW.but(values=E5M2))
SQUARE = FP8_BLOCK.but(block=(128, 128))


def data(rows: int = 48, columns: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def matrix(x: Tensor, fmt: ScaledFormat) -> Matrix:
    return Native().operand(x, fmt, "nearest")


@pytest.mark.skipif(not BY_ROW_ON_CPU, reason="a CPU of this torch has no scales by row")
@pytest.mark.parametrize("forward", [FP32, BF16])
@pytest.mark.parametrize(("rows", "out"), [(48, 40), (7, 10)])
def test_scales_by_row_are_the_emulated_ones(forward: Any, rows: int, out: int) -> None:
    """Three products, each against the emulation: equal but for the order of sums."""
    policy = Policy(FP32, forward, forward, FP32, FP32, ROWS)
    found = []
    for engine in ("native", "emulated"):
        torch.manual_seed(0)
        layer, x = nn.Linear(64, out, bias=False), data(rows).requires_grad_()
        with policy.apply(layer, engine=engine):
            y = layer(x)
            (y.float() * data(rows, out, 5)).sum().backward()
        assert x.grad is not None
        assert layer.weight.grad is not None
        found.append([y.detach().float(), x.grad, layer.weight.grad])
    near = 2.0**-20 if forward == FP32 else 2.0**-8
    for got, expected in zip(*found, strict=True):
        assert (got - expected).abs().max() <= near * expected.abs().max()
        assert got.shape == expected.shape


def test_no_rows_and_no_columns() -> None:
    layer, x = nn.Linear(64, 10), data(0).requires_grad_()
    for policy in (PRESETS["fp8-mixed"], Policy(linear=ROWS)):
        layer.zero_grad()
        with policy.apply(layer, engine="native"):
            y = layer(x)
            y.sum().backward()
        assert y.shape == (0, 10)
        assert layer.weight.grad is not None
        assert not layer.weight.grad.any()


def test_e2m1_codes_are_those_of_ml_dtypes() -> None:
    codes = np.arange(16, dtype=np.uint8)
    values = torch.from_numpy(codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32))
    assert e2m1_codes(values).tolist() == codes.tolist()
    packed = two_a_byte(e2m1_codes(values)[None]).view(torch.uint8)
    assert packed.shape == (1, 8)
    assert [hex(byte) for byte in packed[0].tolist()] == [
        "0x10", "0x32", "0x54", "0x76", "0x98", "0xba", "0xdc", "0xfe",
    ]  # fmt: skip


def offset(row: int, column: int, columns: int) -> int:
    """Where the cuBLAS guide puts a scale: tiles of 512, each 32 rows of 16, and whole tiles along the columns."""
    tile = row // 128 * -(-columns // 4) + column // 4
    return tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column % 4


@pytest.mark.parametrize(("rows", "columns"), [(128, 4), (300, 9), (1, 1), (129, 5)])
def test_tiles_are_as_documented(rows: int, columns: int) -> None:
    scales = torch.arange(1.0, rows * columns + 1).view(rows, columns)
    flat = in_tiles(scales)
    assert flat.numel() == -(-rows // 128) * -(-columns // 4) * 512
    for row in range(rows):
        for column in range(columns):
            assert flat[offset(row, column, columns)] == scales[row, column]
    assert flat.sum() == scales.sum()  # and zeros elsewhere


def untiled(flat: np.ndarray[Any, Any], rows: int, columns: int) -> np.ndarray[Any, Any]:
    return np.array([[flat[offset(r, c, columns)] for c in range(columns)] for r in range(rows)])


@pytest.mark.parametrize("block", [(1, 16), (16, 16)])
def test_nvfp4_as_the_kernel_reads_it_is_what_quantize_says(block: Any) -> None:
    """Codes by ml_dtypes, scales out of their tiles, times the scale of the whole."""
    x, fmt = data(48, 128) * torch.logspace(-2, 2, 48)[:, None], NVFP4.but(block=block)
    values, (codes, whole), scalings, swizzles = _arguments(matrix(x, fmt))
    assert scalings == [ScalingType.BlockWise1x16, ScalingType.TensorWise]
    assert swizzles == [SwizzleType.SWIZZLE_32_4_4, SwizzleType.NO_SWIZZLE]
    packed = values.view(torch.uint8).numpy()
    nibbles = np.stack([packed & 15, packed >> 4], -1).reshape(packed.shape[0], -1)
    small = nibbles.astype(np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    scales = untiled(codes.float().numpy(), small.shape[0], small.shape[1] // 16) * float(whole)
    back = small * scales.repeat(16, 1)
    np.testing.assert_array_max_ulp(back[:48, :128], quantize(x, fmt).dequantize().numpy(), 2)
    assert not back[48:].any()


def test_a_nan_in_nvfp4_stays_in_its_block() -> None:
    x = data(48, 128)
    x[0, 0], x[0, 1] = torch.nan, 1e6
    _, (codes, whole), _, _ = _arguments(matrix(x, NVFP4))
    assert codes.float().isnan().sum() == 1
    x[0, :16] = 0
    assert float(whole) == pytest.approx(float(x.abs().max()) / (6 * 448))


def test_mxfp8_as_the_kernel_reads_it_is_what_quantize_says() -> None:
    x = data(40, 96) * torch.logspace(-6, 6, 40)[:, None]
    values, (codes,), scalings, swizzles = _arguments(matrix(x, MXFP8))
    assert (scalings, swizzles) == ([ScalingType.BlockWise1x32], [SwizzleType.SWIZZLE_32_4_4])
    kept = codes.view(torch.uint8).numpy().view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    scales = untiled(kept, values.shape[0], values.shape[1] // 32)
    back = values.float().numpy() * scales.repeat(32, 1)
    assert np.array_equal(back[:40, :96], quantize(x, MXFP8).dequantize().numpy())


@pytest.mark.parametrize(("rows", "columns"), [(300, 200), (128, 128), (8, 600)])
def test_scales_by_128_have_the_shapes_and_strides_that_the_kernel_asks_for(rows: int, columns: int) -> None:
    """As ScaledBlas.cpp checks them: 1 x 128 along the rows' dimension, 128 x 128 in whole groups of four."""
    wide = -(-columns // 128)
    values, (scales,), _, _ = _arguments(matrix(data(rows, columns), FP8_BLOCK))
    filled = values.shape[0]
    assert (filled % 16, values.shape[1]) == (0, 128 * wide)
    assert (scales.shape, scales.stride(0)) == ((filled, wide), 1)
    assert scales.stride(1) == filled or wide == 1
    values, (scales,), _, _ = _arguments(matrix(data(rows, columns), SQUARE))
    high, groups = -(-rows // 128), -(-wide // 4) * 4
    assert values.shape == (128 * high, 128 * wide)
    assert (scales.shape, scales.stride()) == ((groups, high), (1, groups))
    turned = Native().turned(matrix(data(rows, columns), SQUARE))
    assert torch.equal(turned.scales, quantize(data(rows, columns).t(), SQUARE).scales)


class Device:
    """A stand-in for a GPU's name, capability and CUDA version."""

    def __init__(self, patch: pytest.MonkeyPatch, capability: tuple[int, int], cuda: str = "13.0") -> None:
        patch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        patch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
        patch.setattr(torch.version, "cuda", cuda)

    def runs(self, recipe: LinearRecipe) -> bool:
        try:
            require_native(recipe, torch.device("cuda"))
        except ValueError:
            return False
        return True


@pytest.mark.parametrize(("capability", "cuda", "expected"), [
    ((8, 0), "13.0", []),
    ((8, 9), "13.0", ["fp8-mixed", "rows"]),
    ((9, 0), "12.8", ["fp8-mixed", "rows"]),
    ((9, 0), "12.9", ["fp8-mixed", "fp8-block", "rows"]),
    ((9, 0), "13.0", ["fp8-mixed", "fp8-block", "rows"]),
    ((10, 0), "13.0", ["fp8-mixed", "mxfp8", "nvfp4", "rows"]),
])  # fmt: skip
def test_which_gpu_runs_what(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], cuda: str, expected: list[str]
) -> None:
    device = Device(monkeypatch, capability, cuda)
    recipes = {name: one.linear for name, one in PRESETS.items() if one.linear} | {"rows": ROWS}
    assert [name for name, recipe in recipes.items() if device.runs(recipe)] == expected


def test_auto_takes_the_gpus_products(monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch, (9, 0))
    assert PRESETS["fp8-block"].engine_on("cuda") == "native"
    assert PRESETS["fp8-mixed"].engine_on("cuda") == "native"


@pytest.mark.parametrize(("name", "text"), [
    ("fp8-block", r"fp8-block runs natively on an NVIDIA GPU of compute capability 9\.x with CUDA 12\.9 or later; "
                  r"on device 'cpu' use engine=\"emulated\"\."),
    ("mxfp8", r"mxfp8 runs natively on an NVIDIA GPU of compute capability 10\.0 or later; on device 'cpu'"),
    ("nvfp4", r"nvfp4 runs natively on an NVIDIA GPU of compute capability 10\.0 or later; on device 'cpu'"),
    ("int8-mixed", r'engine="native" runs FP8 with one scale a tensor, a row, 128 or 32 values, and NVFP4, in all three'
                   r' products; int8-mixed needs engine="emulated"\.'),
])  # fmt: skip
def test_what_does_not_run_here_says_where_it_does(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        PRESETS[name].apply(nn.Linear(64, 40), engine="native")
    assert PRESETS[name].engine_on("cpu") == "emulated"


def test_which_formats_no_product_takes() -> None:
    """Power: the presets themselves have their kernels."""
    assert scaling_of(FP8_TENSOR) is ScalingType.TensorWise
    odd = [MXFP8.but(rule="exact"), MXFP8.but(wide_scales=True),
           INT8_ROW, FP8_BLOCK.but(block=(None, 1)), NVFP4.but(block=(1, 32)),
           ScaledFormat("E2M1, tensor", E2M1)]  # fmt: skip
    assert [scaling_of(fmt) for fmt in odd] == [None] * 6
    both = LinearRecipe("both", FP8_TENSOR.but(values=E5M2), FP8_TENSOR, FP8_TENSOR.but(values=E5M2))
    squares = LinearRecipe("squares", SQUARE, SQUARE, FP8_BLOCK)
    mixed = LinearRecipe("mixed", FP8_TENSOR, FP8_ROW, FP8_TENSOR)
    for recipe in (both, squares, mixed):
        with pytest.raises(ValueError, match=f'in all three products; {recipe.name} needs engine="emulated"'):
            require_native(recipe, torch.device("cpu"))
