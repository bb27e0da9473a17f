"""Let autograd record a matrix product without computing it: what its gradients need are the operands alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def _convolution(
    x: Tensor, weight: Tensor, _bias: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    transposed: bool, output_padding: Sequence[int], groups: int,
) -> list[int]:  # fmt: skip
    """Shape of a convolution's result (torch/docs Conv2d and ConvTranspose2d, "Shape")."""
    sizes, kernels = x.shape[2:], weight.shape[2:]

    def along(place: int) -> int:
        size, reach = sizes[place], dilation[place % len(dilation)] * (kernels[place] - 1)
        step, pad = stride[place % len(stride)], padding[place % len(padding)]
        if transposed:
            return (size - 1) * step - 2 * pad + reach + output_padding[place % len(output_padding)] + 1
        return (size + 2 * pad - reach - 1) // step + 1

    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    return [x.shape[0], channels, *map(along, range(len(sizes)))]


SHAPES: dict[Any, Callable[..., Sequence[int]]] = {
    aten.mm.default: lambda a, b: (a.shape[0], b.shape[1]),
    aten.addmm.default: lambda _, a, b, **__: (a.shape[0], b.shape[1]),
    aten.bmm.default: lambda a, b: (*a.shape[:2], b.shape[2]),
    aten.baddbmm.default: lambda _, a, b, **__: (*a.shape[:2], b.shape[2]),
    aten.mv.default: lambda a, b: (a.shape[0],),
    aten.addmv.default: lambda _, a, b, **__: (a.shape[0],),
    aten.convolution.default: _convolution,
}
# The functions that multiply once. In one that multiplies twice, such as attention, the first result is an operand.
ONCE = frozenset("linear matmul __matmul__ __rmatmul__ linalg_matmul mm bmm mv addmm addmv baddbmm".split()) | {
    f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)
}


class Unmultiplied(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, a product of `SHAPES` gives memory of the right shape that nobody has written to; all else is computed.

    For a function of `ONCE`, whose result is not looked at.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Leave the product out."""
        kwargs = kwargs or {}
        if (shape := SHAPES.get(func)) is None:
            return func(*args, **kwargs)
        return args[0].new_empty(list(shape(*args, **kwargs)))
