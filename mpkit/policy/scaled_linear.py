"""A linear layer whose three products have operands in scaled formats."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpkit.policy.recipes import LinearRecipe
from mpkit.rounding import Rounding
from mpkit.scaled.quantize import scaled_cast
from mpkit.scaled.scaled_format import ScaledFormat

Operand = tuple[Tensor, ScaledFormat, Rounding]
# a (m, k) and b (n, k), which are rounded along k, give a b^T (m, n) in a dtype. The last one says: in a backward pass?
Product = Callable[[Operand, Operand, torch.dtype, bool], Tensor]


def emulated_product(a: Operand, b: Operand, dtype: torch.dtype, backward: bool) -> Tensor:
    """Rounded float32 operands, multiplied and added in float32, as tensor cores that add exactly would."""
    left, right = (scaled_cast(x.float(), fmt, rounding) for x, fmt, rounding in (a, b))
    return (left @ right.t()).to(dtype)


def is_linear(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Is this a call of F.linear with a matrix of weights?"""
    return name == "linear" and linear_arguments(*args, **kwargs)[1].dim() == 2


def linear_arguments(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of F.linear, whichever way they were given."""
    return input, weight, bias


def scaled_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, recipe: LinearRecipe, product: Product, dtype: torch.dtype
) -> Tensor:
    """x W^T + b in `dtype`, with gradients as `recipe` says.

    Args:
        x: (…, in features), weight: (out features, in features), bias: (out features) or None.
    """
    y: Tensor = _ScaledLinear.apply(x, weight, recipe, product, dtype)  # type: ignore[no-untyped-call]
    return y if bias is None else y + bias.to(dtype)


class _ScaledLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, recipe: LinearRecipe, product: Product, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = (recipe, product)
        rows = x.reshape(-1, x.shape[-1])
        y = product((rows, recipe.input, "nearest"), (weight, recipe.weight, "nearest"), dtype, False)
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        recipe, product = ctx.how
        rows, g = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, len(weight))
        if recipe.grad is None:
            dx, dw = _straight_through(rows, weight, g, recipe)
        else:
            by_row = (g, recipe.grad, recipe.grad_rounding)
            by_column = (g.t(), recipe.grad, recipe.grad_rounding)
            dx = product(by_row, (weight.t(), recipe.weight, "nearest"), x.dtype, True)
            dw = product(by_column, (rows.t(), recipe.input, "nearest"), weight.dtype, True)
        return dx.view_as(x), dw, None, None, None


def _straight_through(x: Tensor, weight: Tensor, g: Tensor, recipe: LinearRecipe) -> tuple[Tensor, Tensor]:
    """The gradients of a product of rounded operands, as if nothing had been rounded on the way to them."""
    rounded_x, rounded_weight = scaled_cast(x, recipe.input), scaled_cast(weight, recipe.weight)
    dx = g @ rounded_weight.to(g.dtype)
    dw = g.t() @ rounded_x.to(g.dtype)
    return dx.to(x.dtype), dw.to(weight.dtype)
