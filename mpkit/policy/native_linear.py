"""Linear layers on the hardware's own FP8 products: torch._scaled_mm, which a CPU has too."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mpkit.formats import FloatFormat
from mpkit.policy.layers import LAYERS
from mpkit.policy.recipes import LinearRecipe
from mpkit.policy.scaled_linear import is_linear, linear_arguments, scaled_linear
from mpkit.rounding import Rounding
from mpkit.scaled.quantize import quantize
from mpkit.scaled.scaled_format import ScaledFormat

# torch._scaled_mm takes whole groups of so many values (its checks, aten/src/ATen/native/cuda/ScaledBlas.cpp).
GROUP = 16
SINCE = (8, 9)  # compute capability of the first GPUs that multiply in FP8


def require_native(recipe: LinearRecipe, device: torch.device) -> None:
    """ValueError: this recipe has no native engine, or `device` none for it."""
    formats = (recipe.input, recipe.weight, recipe.grad)
    if not all(fmt and fmt.block == (None, None) and isinstance(fmt.values, FloatFormat) for fmt in formats):
        raise ValueError(
            f'engine="native" runs FP8 with one scale a tensor (fp8-mixed); {recipe} needs engine="emulated".'
        )
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < SINCE:
        name = torch.cuda.get_device_name(device)
        raise ValueError(f'{recipe} needs a GPU that multiplies in FP8, and {name} does not; use engine="emulated".')


class NativeLinear(TorchFunctionMode):
    """Inside, F.linear with a matrix of weights runs by `recipe` on FP8 tensors, and its result is `dtype`."""

    def __init__(self, recipe: LinearRecipe, dtype: torch.dtype) -> None:
        super().__init__()
        self.recipe, self.dtype = recipe, dtype
        self.shadowed = False  # while another policy is active inside this one

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Replace linear layers."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if not self.shadowed and name in LAYERS:
            with self:  # stay active: its linear layers come by here
                return LAYERS[name](*args, **kwargs)
        if self.shadowed or not is_linear(name, args, kwargs):
            return func(*args, **kwargs)
        x, weight, bias = linear_arguments(*args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            return scaled_linear(x, weight, bias, self.recipe, Native(), self.dtype)


@dataclass(frozen=True)
class Fp8Matrix:
    """FP8 values, filled up with zeros to whole groups; their scale; and how large the matrix really is."""

    values: Tensor
    scale: Tensor
    shape: tuple[int, int]


class Native:
    """FP8 tensors, multiplied by torch._scaled_mm."""

    def operand(self, x: Tensor, fmt: ScaledFormat, rounding: Rounding) -> Fp8Matrix:
        """`x` divided by its one scale and converted to its FP8 dtype."""
        assert isinstance(fmt.values, FloatFormat)
        assert fmt.values.dtype is not None
        small = quantize(x, fmt, rounding)
        values = F.pad(small.values, (0, -x.shape[1] % GROUP, 0, -x.shape[0] % GROUP))
        return Fp8Matrix(values.to(fmt.values.dtype), small.scales.view(()), (x.shape[0], x.shape[1]))

    def turned(self, operand: Fp8Matrix) -> Fp8Matrix:
        """Its transpose, in the order that the kernel reads."""
        return Fp8Matrix(operand.values.t().contiguous(), operand.scale, operand.shape[::-1])

    def product(self, a: Fp8Matrix, b: Fp8Matrix, dtype: torch.dtype, backward: bool) -> Tensor:
        """a b^T. Forward sums stay in the tensor cores' short accumulators ("fast"), as in Transformer Engine."""
        full = torch._scaled_mm(a.values, b.values.t(), a.scale, b.scale, out_dtype=dtype, use_fast_accum=not backward)
        return full[: a.shape[0], : b.shape[0]]
