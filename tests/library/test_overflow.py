"""found_inf against isfinite, tally against torch's and ml_dtypes' own casts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

import mpkit.overflow
from mpkit.formats import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat
from mpkit.overflow import RangeReport, found_inf, tally

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def all_bfloat16() -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16).float()


def random_bits(n: int = 300_001) -> Tensor:
    return torch.randint(-(2**31), 2**31, (n,)).int().view(torch.float32)


def edges(fmt: FloatFormat) -> Tensor:
    """Every threshold of the format with its float32 neighbours, both signs."""
    points = torch.tensor(
        [fmt.flush_at, fmt.smallest_subnormal, fmt.smallest_normal, fmt.max, min(fmt.overflow_at, 3.4e38)]
    )
    up, down = torch.nextafter(points, torch.tensor(math.inf)), torch.nextafter(points, torch.tensor(0.0))
    around = torch.cat([points, up, down, torch.tensor([0.0, math.inf, math.nan, 1.0])])
    return torch.cat([around, -around])


def brute_force(x: Tensor, rounded: Tensor, fmt: FloatFormat) -> dict[str, int]:
    """Counts from a real cast. In `rounded` an overflow shows as Inf or NaN."""
    finite = torch.isfinite(x)
    lost = finite & ~torch.isfinite(rounded)
    flushed = finite & (x != 0) & (rounded == 0)
    small = finite & (x != 0) & ~flushed & (x.double().abs() < fmt.smallest_normal)
    return {
        "total": x.numel(),
        "zeros": int((x == 0).sum()),
        "flushed_count": int(flushed.sum()),
        "subnormal_count": int(small.sum()),
        "overflowed_count": int(lost.sum()),
        "inf_count": int(torch.isinf(x).sum()),
        "nan_count": int(torch.isnan(x).sum()),
    }


def assert_equal(report: RangeReport, expected: dict[str, int]) -> None:
    assert {name: getattr(report, name) for name in expected} == expected
    rest = report.total - sum(expected.values()) + expected["total"]
    assert report.normal_count == rest


@pytest.mark.parametrize("make", [all_bfloat16, random_bits])
@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
def test_tally_equals_torch_casts(fmt: FloatFormat, make: object) -> None:
    x = torch.cat([make(), edges(fmt)])  # type: ignore[operator]
    assert fmt.dtype is not None
    report = tally(x, fmt)
    assert_equal(report, brute_force(x, x.to(fmt.dtype).float(), fmt))
    assert report.amax == x[torch.isfinite(x)].abs().max().item()
    assert report.flushed_count > 0
    assert report.overflowed_count > 0


@pytest.mark.parametrize(
    ("fmt", "dtype"), [(E4M3, ml_dtypes.float8_e4m3fn), (E5M2, ml_dtypes.float8_e5m2)], ids=["E4M3", "E5M2"]
)
def test_tally_equals_ml_dtypes(fmt: FloatFormat, dtype: type) -> None:
    x = torch.cat([all_bfloat16(), random_bits(), edges(fmt)])
    with np.errstate(all="ignore"):
        rounded = torch.from_numpy(x.numpy().astype(dtype).astype(np.float32))
    assert_equal(tally(x, fmt), brute_force(x, rounded, fmt))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e5m2])
def test_tally_reads_every_dtype(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, 1.0, 2.0**-16, math.inf, math.nan]).to(dtype)
    report = tally(x, E4M3)
    counts = (report.zeros, report.normal_count, report.flushed_count, report.inf_count, report.nan_count)
    assert counts == (1, 1, 1, 1, 1)


def test_float32_loses_nothing_in_fp32_and_float64_is_compared_exactly() -> None:
    report = tally(random_bits(), FP32)
    assert (report.flushed_count, report.overflowed_count) == (0, 0)
    assert report.subnormal_count > 0
    tiny = torch.tensor([2.0**-150, 2.0**-150 * (1 + 2.0**-52), 2.0**-1074], dtype=torch.float64)
    assert tally(tiny, FP32).flushed_count == 2
    large = torch.tensor([FP32.overflow_at, math.nextafter(FP32.overflow_at, 0), 1e300], dtype=torch.float64)
    assert tally(large, FP32).overflowed_count == 2
    near = torch.tensor([65520.0, math.nextafter(65520.0, 0)], dtype=torch.float64)
    assert tally(near, FP16).overflowed_count == 1


def test_tally_of_bf16_sees_below_the_reach_of_float32_comparisons() -> None:
    x = torch.tensor([2.0**-149, 2.0**-134, 2.0**-134 + 2.0**-149, 2.0**-133])
    assert tally(x, BF16).flushed_count == 2
    assert tally(x, TF32).flushed_count == 1  # 2^-149 only: TF32 reaches down to 2^-137


def test_e4m3_rounds_464_back_to_448() -> None:
    assert tally(torch.tensor([464.0, 464.0001]), E4M3).overflowed_count == 1


def test_shares_are_of_the_non_zero_elements() -> None:
    report = tally(torch.tensor([0.0, 0.0, 2.0**-25, 2.0**-20, 1.0, 65520.0, math.inf, -math.inf]), FP16)
    shares = (report.flushed, report.subnormal, report.overflowed, report.nonfinite)
    assert shares == (1 / 6, 1 / 6, 1 / 6, 2 / 6)
    assert report.amax == 65520.0
    assert report.headroom_bits == pytest.approx(math.log2(65504 / 65520))


@pytest.mark.parametrize("x", [torch.zeros(3), torch.zeros(0), torch.tensor(0.0)])
def test_nothing_but_zeros(x: Tensor) -> None:
    report = tally(x, FP16)
    assert (report.flushed, report.subnormal, report.overflowed, report.nonfinite) == (0.0, 0.0, 0.0, 0.0)
    assert report.headroom_bits == math.inf
    assert report.zeros == report.total == x.numel()
    assert "0 non-zero (no finite value but zero)" in str(report)


def test_blocks_add_up() -> None:
    x = torch.randn(2 * mpkit.overflow.BLOCK + 17) * 1e-6
    assert_equal(tally(x, FP16), brute_force(x, x.half().float(), FP16))
    assert tally(x[::3], FP16).total == len(x[::3])


def test_one_readable_line() -> None:
    x = torch.tensor([0.0, 2.0**-26, 2.0**-20, 1.0, 2.0, math.nan])
    line = (
        "FP16: 20.0 % flushed, 20.0 % subnormal, 0 overflowed, 1 NaN of 5 non-zero "
        "(largest 2.0e+00, 15.0 bits of headroom)"
    )
    assert str(tally(x, FP16)) == repr(tally(x, FP16)) == line


def test_tally_names_the_cure() -> None:
    with pytest.raises(TypeError, match=r"x is torch\.int64; leave it out .* or convert it: x\.float\(\)"):
        tally(torch.arange(3), FP16)
    with pytest.raises(TypeError, match=r"write mpkit\.FP16"):
        tally(torch.ones(3), "fp16")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e5m2])
def test_found_inf_sees_one_bad_element_anywhere(dtype: torch.dtype, bad: float) -> None:
    for place in (0, 500, 999):
        x = torch.randn(1000)
        assert found_inf([torch.ones(2), x.to(dtype)]).item() == 0.0
        x[place] = bad
        flag = found_inf([torch.ones(2), x.to(dtype)])
        assert (flag.item(), flag.dtype, flag.dim()) == (1.0, torch.float32, 0)


def test_found_inf_float8_e4m3() -> None:
    x = torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn)
    assert found_inf([x]).item() == 1.0
    assert found_inf([x[:1]]).item() == 0.0


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_found_inf_of_unusual_layouts(bad: float) -> None:
    base = torch.zeros(4, 3, 5, 5)
    base[1, 2, 3, 4] = bad
    good_half, bad_half = base[:1], base[1:]
    sparse = bad_half.reshape(3, -1).to_sparse()
    layouts = [
        bad_half.transpose(1, 3),
        bad_half.to(memory_format=torch.channels_last),
        base[..., 4],
        torch.tensor(bad),
        torch.tensor([bad]).expand(1000, 1000),
        sparse,
        sparse.to_sparse_csr(),
    ]
    for x in layouts:
        assert found_inf([x]).item() == 1.0
    assert found_inf([good_half.transpose(1, 3), base[..., 3], torch.ones(1).expand(5, 5)]).item() == 0.0


def test_found_inf_adds_duplicate_entries_of_a_sparse_gradient() -> None:
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 0]]), torch.tensor([3e38, 3e38]), (2,), check_invariants=False)
    assert found_inf([sparse]).item() == 1.0


def test_found_inf_is_no_sum_or_norm() -> None:
    assert found_inf([torch.full((200,), 3e38)]).item() == 0.0  # their float32 sum is Inf
    assert found_inf([torch.full((4,), 1e300, dtype=torch.float64)]).item() == 0.0


def test_found_inf_of_nothing_and_of_generators() -> None:
    assert found_inf([]).item() == 0.0
    assert found_inf([]).device.type == "cpu"
    assert found_inf([None, torch.zeros(0)]).item() == 0.0
    assert found_inf(torch.tensor([1.0, math.nan])).item() == 1.0
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0](torch.full((1, 2), math.inf)).sum().backward()  # the second layer gets no gradient

    def grads() -> Iterator[Tensor | None]:
        return (p.grad for p in model.parameters())

    assert found_inf(grads()).item() == 1.0
    model.zero_grad()
    assert found_inf(grads()).item() == 0.0


def test_found_inf_never_touches_its_inputs() -> None:
    x = torch.tensor([1.0, math.inf], requires_grad=True)
    y = x * 2
    before = (y._version, y.detach().clone())
    flag = found_inf([x, y])
    assert y._version == before[0]
    assert torch.equal(y, before[1])
    assert not flag.requires_grad


def test_found_inf_names_the_cure() -> None:
    with pytest.raises(TypeError, match=r"tensor 1 is torch\.int64; leave it out"):
        found_inf([torch.ones(1), torch.ones(1, dtype=torch.int64)])
    with pytest.raises(TypeError, match=r"torch\.view_as_real"):
        found_inf([torch.ones(1, dtype=torch.complex64)])
    with pytest.raises(TypeError, match="tensor 0 is float"):
        found_inf([1.0])  # type: ignore[list-item]


def test_reports_of_parts_add_up_to_the_report_of_the_whole() -> None:
    x = torch.randn(1000) * 1e-6
    x[:4] = torch.tensor([0.0, 1e6, math.inf, math.nan])
    assert tally(x[:300], FP16) + tally(x[300:], FP16) == tally(x, FP16)
    with pytest.raises(ValueError, match="a report for FP16 and one for BF16 cannot be added; use one format"):
        tally(x, FP16) + tally(x, BF16)
