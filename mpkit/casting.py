"""Round tensors to any float format, bit for bit, while they stay in their own dtype."""

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from mpkit.formats import E4M3, TF32, FloatFormat, require_format
from mpkit.rounding import Overflow, Rounding, by_half, convert, raise_if_too_large, round_to
from mpkit.trees import is_distributed, map_tensors

# torch's own conversions round to nearest even and are faster than arithmetic. E4M3 is not here: torch 2.11 turns
# what is too large into NaN, torch 2.12 and later into 448, and a CPU takes longer for it than for the arithmetic.
EXACT_IN_TORCH = (torch.float16, torch.bfloat16, torch.float8_e5m2)


def cast(
    x: Tensor,
    fmt: FloatFormat,
    rounding: Rounding = "nearest",
    overflow: Overflow | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Round every element of `x` to the nearest value of `fmt`; the result keeps x's shape and dtype.

    Args:
        x: floating-point tensor of any dtype, shape, stride and device. It is not changed.
        fmt: the format to round to, such as `mpkit.FP16`.
        rounding: "nearest" (ties to even, the default of IEEE 754 and of GPUs), "zero" (cut off), "up" (towards +Inf),
            "down" (towards -Inf), or "stochastic" (up with a probability equal to the distance from the lower
            neighbour, in steps of 2^-16; representable values never move).
        overflow: what a magnitude beyond `fmt.max` becomes. "inf": as IEEE 754 says, that is Inf (under directed
            rounding `fmt.max` on the side that rounds towards zero); NaN in E4M3, which has no Inf; refused in E2M1 and
            its like, which have neither. "saturate": `fmt.max`, for Inf too. "raise": an OverflowError. Default: "inf"
            for formats with Inf, "saturate" for the others.
        generator: source of random bits for "stochastic". Under torch.compile it interrupts the graph; without one, the
            compiled kernel draws for itself, by torch's seed, and other bits than an eager call.

    Subnormals are exact, NaN stays NaN, -0 stays -0. A float64 input is rounded once, not by way of float32.
    A float16 or bfloat16 input comes back in that dtype, which must be able to hold the result.
    Under `torch.set_flush_denormal(True)` float32's own subnormals count as zero. Forward-mode AD goes by torch.func.
    Of a DTensor each rank rounds its own part; a sum that is still partial is refused.
    If `x` requires a gradient, the gradient passes through unchanged (straight-through); see `fake_cast`.

    Raises:
        TypeError: `fmt` is not a FloatFormat, or `x` is not a floating-point tensor, or a DTensor of partial sums.
        ValueError: unknown `rounding` or `overflow`; overflow="inf" for a format without Inf and NaN.
        OverflowError: overflow="raise" and a finite value is too large (or Inf, for a format without Inf and NaN).
    """
    fmt = require_format(fmt)
    require_tensor(x)
    if overflow is None:
        overflow = "inf" if fmt.has_inf else "saturate"
    _check_settings(rounding, overflow, fmt)
    if asked_by_a_mode():
        return handle_torch_function(cast, (x,), x, fmt, rounding, overflow, generator)
    if (x.requires_grad and torch.is_grad_enabled()) or in_a_transform():
        return _function().apply(x, fmt, None, rounding, overflow, generator, None)  # type: ignore[no-any-return, no-untyped-call]
    if is_distributed(x):
        return _each_part(x, fmt, rounding, overflow, generator)
    wide = x.detach().resolve_neg() if x.dtype in (torch.float32, torch.float64) else x.detach().float()
    if overflow == "raise":
        raise_if_too_large(wide, fmt, rounding)
    exact = fmt.dtype in EXACT_IN_TORCH or (fmt.dtype == E4M3.dtype and overflow == "saturate" and wide.is_cuda)
    # torch.compile removes a conversion there and back, and the rounding with it.
    eager_nearest = rounding == "nearest" and not torch.compiler.is_compiling()
    float32_already = fmt.mantissa_bits == 23 and fmt.exponent_bits == 8
    if wide.dtype == torch.float32 and eager_nearest and exact:
        return convert(wide, fmt, overflow).to(x.dtype)
    if wide.dtype == torch.float32 and eager_nearest and fmt == TF32 and overflow == "inf" and wide.is_cuda:
        return by_half(wide.contiguous()).to(x.dtype)  # in half the passes
    if wide.dtype == torch.float32 and float32_already:
        return (wide.clamp(-fmt.max, fmt.max) if overflow == "saturate" else wide).to(x.dtype, copy=True)
    return round_to(wide, fmt, rounding, generator, overflow).to(x.dtype)


def fake_cast(
    x: Tensor,
    forward: FloatFormat | None = None,
    backward: FloatFormat | None = None,
    rounding: Rounding = "nearest",
    overflow: Overflow | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Round `x` to `forward`, and the gradient that comes back through it to `backward`; None leaves it alone.

    `fake_cast(x, mpkit.FP16)` is the straight-through estimator: rounding has derivative 0 almost everywhere, so the
    gradient is taken as if nothing had been rounded (Bengio et al. 2013, arXiv 1308.3432, section 4).
    `observe`, if given, is called on the way back with the gradient before and after rounding.
    """
    require_tensor(x)
    forward = None if forward is None else require_format(forward)
    backward = None if backward is None else require_format(backward)
    if asked_by_a_mode():
        return handle_torch_function(fake_cast, (x,), x, forward, backward, rounding, overflow, observe)
    plain = rounding == "nearest" and overflow in (None, "inf") and observe is None and x.dtype == torch.float32
    plain = plain and not torch.compiler.is_compiling()  # a compiler removes such a pair, and the rounding with it
    if plain and forward is not None and forward == backward and forward.dtype in EXACT_IN_TORCH:
        return x.to(forward.dtype).to(x.dtype)  # autograd sends the gradient through the same two conversions
    return _function().apply(x, forward, backward, rounding, overflow, None, observe)  # type: ignore[no-any-return, no-untyped-call]


class FakeCast(torch.autograd.Function):
    """Rounding with one format on the way forward and another on the way back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, forward: Any, backward: Any, rounding: Any, overflow: Any, generator: Any, observe: Any
    ) -> Any:
        """Round the value."""
        ctx.settings = (backward, rounding, overflow, generator)
        ctx.observe = observe
        return x.clone() if forward is None else cast(x, forward, rounding, overflow, generator)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Round the gradient."""
        backward, *how = ctx.settings
        with torch._C.DisableTorchFunction():  # the trace sees gradients through hooks, and names this one itself
            rounded = grads[0] if backward is None else cast(grads[0], backward, *how)
        if ctx.observe is not None:
            ctx.observe(grads[0], rounded)
        return (rounded, *[None] * 6)


class TransformedCast(FakeCast):
    """The same as torch.func's grad, vmap and jvp ask for it. By itself: binding the arguments takes its time."""

    @staticmethod
    def forward(x: Tensor, forward: Any, _backward: Any, *how: Any) -> Any:  # type: ignore[override]
        """Round the value."""
        return x.clone() if forward is None else cast(x, forward, *how[:3])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what `backward` and `jvp` read."""
        _, ctx.rounds, *settings, ctx.observe = inputs
        ctx.settings = tuple(settings)

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[Any, ...], x: Tensor, *how: Any) -> tuple[Tensor, Any]:
        """Each element is rounded by itself, so a dimension more makes no difference."""
        return TransformedCast.apply(x, *how), in_dims[0]  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        """A tangent is rounded as its value is, which is what a conversion to a 16-bit dtype does."""
        return tangent.clone() if ctx.rounds is None else cast(tangent, ctx.rounds, *ctx.settings[1:])


def cast_floating(tree: Any, dtype: torch.dtype) -> Any:
    """Convert every floating-point tensor in nested dicts, lists and tuples to a real torch dtype.

    Integer and bool tensors and everything else are returned as they are.
    """
    return map_tensors(lambda x: x.to(dtype) if x.is_floating_point() else x, tree)


def in_a_transform() -> bool:
    """Is a transform of torch.func at work?"""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _function() -> type[FakeCast]:
    return TransformedCast if in_a_transform() else FakeCast


def _each_part(x: Any, fmt: FloatFormat, *how: Any) -> Tensor:
    """Round a DTensor: its own part on each rank. TypeError: the parts have still to be added."""
    if any(place.is_partial() for place in x.placements):
        raise TypeError("a DTensor of partial sums came, and sums are rounded when they are whole: x.full_tensor().")
    part = cast(x.to_local(), fmt, *how)
    sizes = {"shape": x.shape, "stride": x.stride()}
    return type(x).from_local(part, x.device_mesh, x.placements, run_check=False, **sizes)  # type: ignore[no-any-return]


def asked_by_a_mode() -> bool:
    """Is a torch function mode active? It is told of one operation, the cast with its format, and not of its steps."""
    return not torch.compiler.is_compiling() and torch._C._is_torch_function_mode_enabled()


def require_tensor(x: Any) -> None:
    """TypeError, with the cure, unless `x` is a dense floating-point tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"a tensor is asked for, but {type(x).__name__} came; wrap it: torch.tensor(x).")
    if x.layout != torch.strided:
        raise TypeError(f"a dense tensor is asked for, but a {x.layout} one came; round its values: x.values().")
    if not x.is_floating_point():
        raise TypeError(f"a floating-point tensor is asked for, but {x.dtype} came; convert it first: x.float().")


def _check_settings(rounding: str, overflow: str, fmt: FloatFormat) -> None:
    if rounding not in get_args(Rounding):
        raise ValueError(f"rounding={rounding!r} is unknown; use one of {', '.join(get_args(Rounding))}.")
    if overflow not in get_args(Overflow):
        raise ValueError(f"overflow={overflow!r} is unknown; use one of {', '.join(get_args(Overflow))}.")
    if overflow == "inf" and not fmt.has_nan:
        raise ValueError(
            f'overflow="inf" is asked for, but {fmt} has neither Inf nor NaN; use overflow="saturate", which stops at '
            f'{fmt.max:.6g}, or overflow="raise".'
        )
