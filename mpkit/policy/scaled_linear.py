"""A linear layer whose three products have operands in scaled formats."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpkit.policy.recipes import LinearRecipe
from mpkit.rounding import Rounding
from mpkit.scaled.quantize import scaled_cast
from mpkit.scaled.scaled_format import ScaledFormat


class Products(Protocol):
    """How matrices in scaled formats are made and multiplied: emulated, or by the hardware."""

    def operand(self, x: Tensor, fmt: ScaledFormat, rounding: Rounding) -> Any:
        """The matrix `x`, rounded along its last dimension."""

    def turned(self, operand: Any) -> Any:
        """Its transpose, if the scales allow it; see `turns`."""

    def product(self, a: Any, b: Any, dtype: torch.dtype, backward: bool) -> Tensor:
        """a b^T, (m, n) of (m, k) and (n, k), as `dtype`; `backward`: it is a gradient."""


class Emulated:
    """Rounded float32 operands, multiplied and added in float32, as tensor cores that add exactly would."""

    def operand(self, x: Tensor, fmt: ScaledFormat, rounding: Rounding) -> Tensor:
        """The matrix `x`, rounded."""
        return scaled_cast(x.detach().float(), fmt, rounding)

    def turned(self, operand: Tensor) -> Tensor:
        """Its transpose."""
        return operand.t()

    def product(self, a: Tensor, b: Tensor, dtype: torch.dtype, backward: bool) -> Tensor:
        """a b^T."""
        return (a @ b.t()).to(dtype)


def turns(fmt: ScaledFormat) -> bool:
    """Do rounding and transposing commute, since its blocks are square?"""
    return fmt.block[0] == fmt.block[1]


def is_linear(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Is this a call of F.linear with a matrix of weights?"""
    return name == "linear" and linear_arguments(*args, **kwargs)[1].dim() == 2


def linear_arguments(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of F.linear, whichever way they were given."""
    return input, weight, bias


def scaled_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, recipe: LinearRecipe, products: Products, dtype: torch.dtype
) -> Tensor:
    """x W^T + b in `dtype`, with gradients as `recipe` says.

    Args:
        x: (…, in features), weight: (out features, in features), bias: (out features) or None.
    """
    y: Tensor = _ScaledLinear.apply(x, weight, recipe, products, dtype)  # type: ignore[no-untyped-call]
    return y if bias is None else y + bias.to(dtype)


class _ScaledLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, recipe: LinearRecipe, products: Products, dtype: torch.dtype
    ) -> Tensor:
        rows = products.operand(x.reshape(-1, x.shape[-1]), recipe.input, "nearest")
        columns = products.operand(weight, recipe.weight, "nearest")
        ctx.save_for_backward(x, weight)
        ctx.rounded, ctx.recipe, ctx.products = (rows, columns), recipe, products
        return products.product(rows, columns, dtype, False).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        rows, columns = ctx.rounded
        # An emulation is active while it runs a backward pass, and would round these operands a second time.
        with torch._C.DisableTorchFunction():
            return _gradients(x, weight, grads[0], rows, columns, ctx.recipe, ctx.products)


def _gradients(
    x: Tensor, weight: Tensor, grad: Tensor, rows: Any, columns: Any, recipe: LinearRecipe, products: Products
) -> Any:
    """Of x and of the weight, and None for the rest; `rows` and `columns` are x and the weight as they were rounded."""
    g = grad.reshape(-1, len(weight))
    if recipe.grad is None:  # straight through: as if nothing had been rounded on the way to the operands
        dx, dw = (g @ columns.to(g.dtype)).to(x.dtype), (g.t() @ rows.to(g.dtype)).to(weight.dtype)
    else:
        by_row = products.operand(g, recipe.grad, recipe.grad_rounding)
        by_column = _along_rows(products, by_row, g, recipe.grad, recipe.grad_rounding)
        columns = _along_rows(products, columns, weight, recipe.weight)
        rows = _along_rows(products, rows, x.reshape(-1, x.shape[-1]), recipe.input)
        dx = products.product(by_row, columns, x.dtype, True)
        dw = products.product(by_column, rows, weight.dtype, True)
    return dx.view_as(x), dw, None, None, None


def _along_rows(
    products: Products, rounded: Any, source: Tensor, fmt: ScaledFormat, rounding: Rounding = "nearest"
) -> Any:
    """The transpose of `source`, rounded for a sum along its rows; `rounded` is what was rounded for the other one."""
    return products.turned(rounded) if turns(fmt) else products.operand(source.t(), fmt, rounding)
