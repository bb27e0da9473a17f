"""The article's pipeline on hardware: matrix work forward in a low format, its gradients in FP32."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from mpkit.policy.layers import LAYERS
from mpkit.policy.operations import MATRIX
from mpkit.policy.unmultiplied import ONCE, Unmultiplied


class LowForward(TorchFunctionMode):
    """Inside, matrix work runs forward in `dtype`, and its gradients in FP32.

    autograd gives a gradient the dtype of its tensor, so results are handed on as float32 tensors (with 16-bit values).
    As under torch.autocast, what has no float32 operand or writes into `out=` is left alone. A gradient of a gradient
    is refused: it would pass by the rounding.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.shadowed = False  # while another policy is active inside this one

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Replace matrix operations."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.shadowed:
            return func(*args, **kwargs)
        if name in LAYERS:
            with self:  # stay active: its operations come by here
                return LAYERS[name](*args, **kwargs)
        if name not in MATRIX or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        leaves, spec = tree_flatten((args, kwargs))
        if not any(isinstance(leaf, Tensor) and leaf.dtype == torch.float32 for leaf in leaves):
            return func(*args, **kwargs)
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(
                "torch.func (grad, vmap, jvp) is asked for under a policy whose hardware engine computes gradients by "
                'itself; use engine="emulated", or another policy.'
            )
        if any(isinstance(leaf, Tensor) and leaf.is_nested and leaf.layout == torch.strided for leaf in leaves):
            raise NotImplementedError(f"{name} of a nested tensor came; make it with layout=torch.jagged.")
        return _LowMatrix.apply(func, spec, self.dtype, *leaves)  # type: ignore[no-untyped-call]


class _LowMatrix(torch.autograd.Function):
    """One matrix operation: forward in a low dtype, backward in FP32 from the operands as they were rounded."""

    @staticmethod
    def forward(ctx: Any, func: Callable[..., Any], spec: TreeSpec, dtype: torch.dtype, *leaves: Any) -> Tensor:
        low = [leaf.to(dtype) if _floats(leaf) else leaf for leaf in leaves]
        ctx.func, ctx.spec = func, spec
        ctx.others = [None if isinstance(leaf, Tensor) else leaf for leaf in low]
        ctx.places = [place for place, leaf in enumerate(low) if isinstance(leaf, Tensor)]
        ctx.save_for_backward(*(low[place] for place in ctx.places))
        args, kwargs = tree_unflatten(low, spec)
        return func(*args, **kwargs).float()  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        leaves, wanted = list(ctx.others), []
        for place, low in zip(ctx.places, ctx.saved_tensors, strict=True):
            leaves[place] = low.float() if _floats(low) else low
            if ctx.needs_input_grad[place + 3]:  # func, spec and dtype come first
                leaves[place].requires_grad_()
                wanted.append(place)
        # Autograd knows how to differentiate the operation, so it runs again, but for the product, which nobody needs.
        light: Any = Unmultiplied() if getattr(ctx.func, "__name__", "") in ONCE else nullcontext()  # type: ignore[no-untyped-call]
        with torch.autocast(grads[0].device.type, enabled=False):  # the caller's, which may be on in a backward pass
            with torch.enable_grad(), light:
                args, kwargs = tree_unflatten(leaves, ctx.spec)
                out = ctx.func(*args, **kwargs)
            found = torch.autograd.grad(out, [leaves[place] for place in wanted], grads[0])
        by_place = dict(zip(wanted, found, strict=True))
        return (None, None, None, *(by_place.get(place) for place in range(len(leaves))))


def _floats(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
