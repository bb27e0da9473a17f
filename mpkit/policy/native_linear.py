"""Linear layers on the hardware's own products of scaled formats, which a CPU has too: see `mpkit.policy.kernels`."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from mpkit.policy.layers import LAYERS
from mpkit.policy.native_products import Native
from mpkit.policy.recipes import LinearRecipe
from mpkit.policy.scaled_linear import is_linear, linear_arguments, scaled_linear


class NativeLinear(TorchFunctionMode):
    """Inside, F.linear with a matrix of weights runs by `recipe` on small tensors, and its result is `dtype`."""

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
