"""Linear layers on the hardware's own FP8 products: torch._scaled_mm, which a CPU has too."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mpkit.formats import FloatFormat
from mpkit.policy.layers import LAYERS
from mpkit.policy.recipes import LinearRecipe
from mpkit.policy.scaled_linear import Operand, is_linear, linear_arguments, scaled_linear
from mpkit.scaled.blocks import largest_magnitudes
from mpkit.scaled.scales import scale_of

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
            return scaled_linear(x, weight, bias, self.recipe, native_product, self.dtype)


def native_product(a: Operand, b: Operand, dtype: torch.dtype, backward: bool) -> Tensor:
    """a (m, k) and b (n, k), each divided by its scale and converted to its FP8 dtype, give a b^T in `dtype`.

    Forward sums stay in the tensor cores' short accumulators ("fast accumulation"), as in Transformer Engine.
    """
    (left, left_scale), (right, right_scale) = _operand(*a), _operand(*b)
    product = torch._scaled_mm(left, right.t(), left_scale, right_scale, out_dtype=dtype, use_fast_accum=not backward)
    return product[: len(a[0]), : len(b[0])]


def _operand(x: Tensor, fmt: Any, _rounding: Any) -> tuple[Tensor, Tensor]:
    """FP8 values, filled up with zeros to whole groups, and their scale."""
    x = x.float()
    scale = scale_of(largest_magnitudes(x[None, :, None, :]).view(()), fmt.values.max, fmt.rule)
    small = (x / scale).clamp_(-fmt.values.max, fmt.values.max)
    rows, columns = small.shape
    small = F.pad(small, (0, -columns % GROUP, 0, -rows % GROUP))
    return small.to(fmt.values.dtype).contiguous(), scale
