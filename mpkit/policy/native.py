"""Run a model under a policy with the hardware's own FP16, BF16 and TF32, instead of rounding float32."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from mpkit.casting import cast_floating
from mpkit.formats import BF16, FP16, FP32, TF32, FloatFormat
from mpkit.policy.hardware import in_hardware
from mpkit.policy.operations import MATRIX, OPAQUE
from mpkit.policy.tf32 import tf32

DTYPES = {FP16: torch.float16, BF16: torch.bfloat16}
Kind = Literal["fp32", "tf32", "autocast", "stored", "low forward"]


def kind_of(params: FloatFormat, forward: FloatFormat, backward: FloatFormat, loss: FloatFormat) -> Kind:
    """How hardware can do what a policy says. ValueError: it cannot."""
    if params == forward == backward == loss == FP32:
        return "fp32"
    if (params, forward, backward, loss) == (FP32, TF32, TF32, FP32):
        return "tf32"
    if forward in DTYPES and loss in (FP32, forward):
        if params == backward == forward:
            return "stored"
        if (params, loss) == (FP32, FP32) and backward in (forward, FP32):
            return "autocast" if backward == forward else "low forward"
    raise ValueError(
        f"no engine of the hardware runs params {params}, forward {forward}, backward {backward}, loss {loss}; "
        'engine="native" runs the presets, engine="emulated" runs every policy.'
    )


@contextmanager
def natively(kind: Kind, forward: FloatFormat, loss: FloatFormat, model: nn.Module) -> Iterator[None]:
    """Inside the block, `model` runs as `kind` says. ValueError: TF32 on a device that has none.

    "fp32" and "low forward" switch TF32 off for matrix products and convolutions, "tf32" on, until the block ends, so
    the backward pass belongs inside. "autocast" is torch's. "stored": every weight is read in the low format and the
    inputs are converted, except batch and instance norms, whose weights stay FP32 as their kernels ask. "low forward":
    matrix work in the low format, everything that comes back through it in FP32.
    """
    where = next((p.device for p in model.parameters()), torch.device("cpu"))
    device = where.type
    if kind == "tf32" and not in_hardware(TF32, where):
        has = f"on the {device}" if device != "cuda" else f"on a {torch.cuda.get_device_name(where)}, which has none"
        raise ValueError(
            f"TF32 is a mode of NVIDIA's tensor cores (Ampere and later), and this model is {has}; "
            'move it to such a GPU or use engine="emulated".'
        )
    with ExitStack() as stack:
        if kind in ("fp32", "tf32", "low forward"):  # else left alone: cuDNN would choose its algorithms a second time
            stack.enter_context(tf32(kind == "tf32"))
        if kind == "stored":
            stack.enter_context(_stored(model, DTYPES[forward]))
        if kind == "autocast" or (kind == "stored" and loss == FP32):
            stack.enter_context(torch.autocast(device, dtype=DTYPES[forward]))
        if kind == "low forward":
            stack.enter_context(LowForward(DTYPES[forward]))
        yield


@contextmanager
def _stored(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """During the model's forward pass its modules see low copies of their weights; gradients reach the FP32 ones."""
    owners = [
        (module, name)
        for module in model.modules()
        if not isinstance(module, _NormBase)
        for name, p in module._parameters.items()
        if p is not None
    ]

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        for module, name in owners:  # an attribute hides the parameter of the same name
            module.__dict__[name] = module._parameters[name].to(dtype)  # type: ignore[union-attr]
        return cast_floating(args, dtype), cast_floating(kwargs, dtype)

    def after(*_: Any) -> None:
        for module, name in owners:
            module.__dict__.pop(name, None)

    hooks = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class LowForward(TorchFunctionMode):
    """The article's pipeline: matrix work forward in `dtype`, its gradients in FP32.

    autograd gives a gradient the dtype of its tensor, so results are handed on as float32 tensors (with 16-bit values).
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Replace matrix operations."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in OPAQUE:
            raise NotImplementedError(
                f"{name} hides its matrix products; write the layer with torch.nn.Linear, matmul or "
                "scaled_dot_product_attention."
            )
        if name not in MATRIX:
            return func(*args, **kwargs)
        leaves, spec = tree_flatten((args, kwargs))
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
    def backward(ctx: Any, *grads: Tensor) -> Any:
        leaves, wanted = list(ctx.others), []
        for place, low in zip(ctx.places, ctx.saved_tensors, strict=True):
            leaves[place] = low.float() if _floats(low) else low
            if ctx.needs_input_grad[place + 3]:  # func, spec and dtype come first
                leaves[place].requires_grad_()
                wanted.append(place)
        with torch.enable_grad(), torch.autocast(grads[0].device.type, enabled=False):
            args, kwargs = tree_unflatten(leaves, ctx.spec)
            out = ctx.func(*args, **kwargs)
        found = torch.autograd.grad(out, [leaves[place] for place in wanted], grads[0])
        by_place = dict(zip(wanted, found, strict=True))
        return (None, None, None, *(by_place.get(place) for place in range(len(leaves))))


def _floats(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
