"""A linear layer whose three products have operands in scaled formats."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpkit.casting import in_a_transform
from mpkit.policy.recipes import LinearRecipe
from mpkit.rounding import Rounding
from mpkit.scaled.quantize import scaled_cast
from mpkit.scaled.scaled_format import ScaledFormat
from mpkit.trees import map_leaves, map_tensors, tensors_in


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
    function = _Transformed if in_a_transform() else _ScaledLinear
    y: Tensor = function.apply(x, weight, recipe, products, dtype)  # type: ignore[no-untyped-call]
    return y if bias is None else y + bias.to(dtype)


class _ScaledLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, recipe: LinearRecipe, products: Products, dtype: torch.dtype
    ) -> Tensor:
        rows, columns = _operands(x, weight, recipe, products)
        _keep(ctx, x, weight, rows, columns, recipe, products)
        return _result(x, rows, columns, products, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # An emulation is active while it runs a backward pass, and would round these operands a second time.
        with torch._C.DisableTorchFunction():
            x, weight = _kept(ctx)
            return *_gradients(grads[0], x, weight, ctx.dtypes, ctx.recipe, ctx.products), None, None, None


class _Transformed(_ScaledLinear):
    """The same as torch.func's grad and vmap ask for it: what is kept is made once more."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, recipe: LinearRecipe, products: Products, dtype: torch.dtype) -> Tensor:  # type: ignore[override]
        return _result(x, *_operands(x, weight, recipe, products), products, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, weight, recipe, products, _ = inputs
        _keep(ctx, x, weight, *_operands(x, weight, recipe, products), recipe, products)


def _operands(x: Tensor, weight: Tensor, recipe: LinearRecipe, products: Products) -> tuple[Any, Any]:
    rows = products.operand(_as_matrix(x), recipe.input, "nearest")
    return rows, products.operand(weight, recipe.weight, "nearest")


def _result(x: Tensor, rows: Any, columns: Any, products: Products, dtype: torch.dtype) -> Tensor:
    y = products.product(rows, columns, dtype, False)
    return y.view(*x.shape[:-1], y.shape[1])


def _as_matrix(x: Tensor) -> Tensor:
    """All dimensions but the last as rows, also where there are no columns, of which reshape(-1, 0) makes nothing."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _keep(
    ctx: Any, x: Tensor, weight: Tensor, rows: Any, columns: Any, recipe: LinearRecipe, products: Products
) -> None:
    """For the way back: an operand as it was rounded where that can be used again, else its source; never both.

    All tensors in it go through autograd, so that hooks on what is saved (checkpoints, offloading) see them.
    """
    straight = recipe.grad is None
    kept = (rows if straight or turns(recipe.input) else x, columns if straight or turns(recipe.weight) else weight)
    ctx.save_for_backward(*tensors_in(kept))
    ctx.places = map_tensors(lambda _: Tensor, kept)
    ctx.dtypes, ctx.recipe, ctx.products = (x.dtype, weight.dtype), recipe, products


def _kept(ctx: Any) -> Any:
    saved = iter(ctx.saved_tensors)
    return map_leaves(lambda leaf: next(saved) if leaf is Tensor else leaf, ctx.places)


def _gradients(
    grad: Tensor, x: Any, weight: Any, dtypes: tuple[torch.dtype, torch.dtype], recipe: LinearRecipe, products: Products
) -> tuple[Tensor, Tensor]:
    """Of x and of the weight, which come as they were kept."""
    g = _as_matrix(grad)
    if recipe.grad is None:  # straight through: as if nothing had been rounded on the way to the operands
        dx, dw = (g @ weight.to(g.dtype)).to(dtypes[0]), (g.t() @ x.to(g.dtype)).to(dtypes[1])
    else:
        how = recipe.grad_rounding
        by_row = products.operand(g, recipe.grad, how)
        by_column = _along_rows(products, by_row if turns(recipe.grad) else g, recipe.grad, how)
        dx = products.product(by_row, _along_rows(products, weight, recipe.weight), dtypes[0], True)
        dw = products.product(by_column, _along_rows(products, x, recipe.input), dtypes[1], True)
    return dx.view(*grad.shape[:-1], dx.shape[1]), dw


def _along_rows(products: Products, kept: Any, fmt: ScaledFormat, rounding: Rounding = "nearest") -> Any:
    """The transpose of what is kept, rounded for a sum along its rows."""
    return products.turned(kept) if turns(fmt) else products.operand(_as_matrix(kept).t(), fmt, rounding)
