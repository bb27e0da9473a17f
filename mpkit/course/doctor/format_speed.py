"""How fast each format multiplies matrices on this device, natively and emulated, against FP32."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit import E4M3, E5M2, FP32, TF32, FloatFormat, cast
from mpkit.formats import FORMATS
from mpkit.policy.hardware import in_hardware
from mpkit.policy.tf32 import tf32
from mpkit.timer import median_seconds

SIZE = {"cpu": 256, "cuda": 4096}  # n of an n x n x n matrix product; a GPU needs a large one to be busy
BUDGET = 0.1  # seconds for one measurement
FLOAT8 = (8, 9)  # compute capability from which CUDA devices have FP8 (CUDA programming guide, same table as TF32's)


@dataclass(frozen=True)
class FormatSpeed:
    """Time of one format's matrix product as a multiple of FP32's: native (None: there is none) and emulated.

    `use` is "native" or "emulate": what the lessons do on this device.
    """

    fmt: FloatFormat
    native: float | None
    emulated: float
    use: str


def speeds(device: str) -> tuple[FormatSpeed, ...]:
    """Measure every format's matrix product on a device, with one CPU thread, as in the lessons."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.randn(SIZE[device], SIZE[device], generator=generator).to(device) for _ in range(2))
        base = median_seconds(lambda: a @ b, BUDGET)
        return tuple(_speed(fmt, a, b, base) for fmt in FORMATS.values())
    finally:
        torch.set_num_threads(threads)


def _speed(fmt: FloatFormat, a: Tensor, b: Tensor, base: float) -> FormatSpeed:
    product = native(fmt, a, b)
    ratio = None if product is None else median_seconds(product, BUDGET) / base
    emulated = median_seconds(lambda: cast(cast(a, fmt) @ cast(b, fmt), fmt), BUDGET) / base
    # A native product alone is not enough: a CPU's own FP16 stays out, and so does FP8, which needs scales of its own.
    use = "native" if in_hardware(fmt, a.device) else "emulate"
    return FormatSpeed(fmt, 1.0 if fmt == FP32 else ratio, emulated, use)


def native(fmt: FloatFormat, a: Tensor, b: Tensor) -> Callable[[], Tensor] | None:
    """The device's own matrix product in a format, ready to call; None where there is none."""
    if fmt == TF32 and not in_hardware(TF32, a.device):
        return None
    if fmt in (E4M3, E5M2) and not (a.is_cuda and torch.cuda.get_device_capability() >= FLOAT8):
        return None
    try:
        product = _product(fmt, a, b)
        product()
    except RuntimeError:  # "not implemented for" this dtype
        return None
    return product


def _product(fmt: FloatFormat, a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    if fmt == TF32:
        return lambda: _tf32(a, b)
    if fmt in (E4M3, E5M2):
        return _float8(fmt, a, b)
    assert fmt.dtype is not None
    x, y = a.to(fmt.dtype), b.to(fmt.dtype)
    return lambda: x @ y


def _tf32(a: Tensor, b: Tensor) -> Tensor:
    """FP32 tensors, TF32 inside."""
    with tf32(True):
        return a @ b


def _float8(fmt: FloatFormat, a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    """The second operand is E4M3 always, in column order: E5M2 times E5M2 does not exist (cuBLASLt documentation)."""
    assert fmt.dtype is not None
    x, y = a.to(fmt.dtype), b.t().contiguous().to(torch.float8_e4m3fn).t()
    one = torch.ones((), device=a.device)
    return lambda: torch._scaled_mm(x, y, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
