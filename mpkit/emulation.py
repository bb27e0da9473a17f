"""Run an unmodified model as if its tensors had another format: float32 arithmetic, rounded where hardware rounds.

Tensor cores multiply 16-bit operands and add in FP32 (Micikevicius et al. 2018, arXiv 1710.03740, section 3.3), so
rounding the operands and the result of a float32 matrix product gives the same numbers. Which operation runs in which
format follows torch's autocast: matrix work in the low format, reductions, exponentials and losses in FP32, everything
else in the widest format among its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mpkit.casting import cast, fake_cast
from mpkit.formats import FP32, FloatFormat

# torch/docs amp "CUDA Ops that can autocast to float16".
MATRIX = frozenset(
    "linear matmul __matmul__ __rmatmul__ mm bmm mv addmm addmv addr addbmm baddbmm einsum chain_matmul "
    "linalg_matmul linalg_multi_dot conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
    "scaled_dot_product_attention prelu".split()
)
# torch/docs amp "CUDA Ops that autocast to float32", and the losses.
WIDE = frozenset(
    "softmax log_softmax softmin exp expm1 log log10 log1p log2 pow __pow__ __rpow__ float_power reciprocal rsqrt "
    "__rdiv__ __rtruediv__ acos asin cosh sinh tan erfinv sum prod cumsum cumprod norm dist cdist renorm logsumexp "
    "layer_norm group_norm rms_norm local_response_norm linalg_norm linalg_vector_norm linalg_matrix_norm normalize "
    "cosine_similarity pdist gumbel_softmax softplus interpolate cross_entropy nll_loss mse_loss l1_loss "
    "smooth_l1_loss huber_loss kl_div binary_cross_entropy_with_logits poisson_nll_loss gaussian_nll_loss "
    "cosine_embedding_loss hinge_embedding_loss margin_ranking_loss soft_margin_loss triplet_margin_loss".split()
)
FOLLOWS_FIRST = frozenset({"batch_norm", "instance_norm"})  # statistics in FP32, result in the input's format
OPAQUE = frozenset(
    "multi_head_attention_forward lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell".split()
)


class Meter:
    """Counts the gradient values that rounding turns into zero. Nothing is read from the device until you look."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self._nonzero: Tensor | int = 0
        self._kept: Tensor | int = 0

    def see(self, grad: Tensor, rounded: Tensor) -> None:
        """Count one gradient tensor before and after rounding."""
        self._nonzero = self._nonzero + torch.count_nonzero(grad)
        self._kept = self._kept + torch.count_nonzero(rounded)

    @property
    def flushed(self) -> float:
        """Share (0 to 1) of the non-zero gradient values that became zero; 0 if there was none."""
        nonzero = int(self._nonzero)
        return (nonzero - int(self._kept)) / nonzero if nonzero else 0.0


class Emulation(TorchFunctionMode):
    """Rounds what passes through torch functions while it is active.

    Args:
        forward: format of matrix operands. A 16-bit format also stores the results; TF32 and 8-bit formats only feed
            the multipliers, and results stay FP32.
        backward: format of gradients.
        wide: format in which reductions, exponentials and losses run.
        everywhere: True if the whole model is stored in the low format (as after `model.half()`), so that nothing
            is promoted to FP32 by a wide input.
        meter: counts flushed gradients, if given.

    Two simplifications: the gradient of an operation that works in place is rounded where the tensor was made,
    and where a tensor has several consumers their gradients are added in FP32 and rounded once.
    """

    def __init__(
        self, forward: FloatFormat, backward: FloatFormat, wide: FloatFormat, everywhere: bool, meter: Meter | None
    ) -> None:
        super().__init__()
        self.forward, self.backward, self.wide = forward, backward, wide
        self.everywhere, self.meter = everywhere, meter
        self.paused = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Choose by the function's name what is rounded."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").removeprefix("special_")
        if self.paused or name == "backward":
            return func(*args, **kwargs)
        if name in OPAQUE:
            raise NotImplementedError(
                f"{name} hides its matrix products from emulation, so their rounding would be missing; "
                "write the layer with torch.nn.Linear, matmul or scaled_dot_product_attention."
            )
        if name in MATRIX:
            stored = self.forward.bits == 16
            args, kwargs = self._round_all(args, stored), self._round_all(kwargs, stored)
            return self._result(func(*args, **kwargs), stored)
        if name in WIDE:
            if self.wide == FP32:
                return func(*args, **kwargs)
            return self._result(func(*self._round_all(args, True), **self._round_all(kwargs, True)), True)
        return self._follow(func, name, args, kwargs)

    def _follow(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        """Everything else runs in the widest format among its inputs."""
        out = func(*args, **kwargs)
        inputs = [t for t in _tensors((args, kwargs)) if t.is_floating_point()]
        if isinstance(out, list | tuple) and any(isinstance(part, Tensor) for part in out):  # chunk, max(dim), …
            return _rebuild(out, [self._settle(part, name, inputs) for part in out])
        if name == "__setitem__":
            self._settle(inputs[0] if inputs else None, name, inputs)
        elif isinstance(out, Tensor) and _asks_for_wide(name, args, kwargs):
            return out.view_as(out)  # a new tensor object, without the mark of the low format
        return self._settle(out, name, inputs)

    def _settle(self, out: Any, name: str, inputs: list[Tensor]) -> Any:
        """Decide whether one result is stored in the low format."""
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return out
        if shared := [t for t in inputs if _same_memory(out, t)]:  # a view, a copy of the reference, or in place
            if any(is_low(t) for t in shared):
                _mark(out)
                if out is inputs[0]:
                    self._round_memory(out)
            return out
        if name == "__get__" or not inputs:
            return out
        voters = inputs[:1] if name in FOLLOWS_FIRST else [t for t in inputs if t.dim()] or inputs
        return self._result(out, True) if self.everywhere or all(is_low(t) for t in voters) else out

    def _result(self, out: Any, stored: bool) -> Any:
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return out
        low = stored and self.forward.bits == 16
        if low and (hasattr(out.grad_fn, "_saved_result") or hasattr(out.grad_fn, "_saved_output")):
            self._round_memory(out)  # the way back through sigmoid, tanh, … reads the stored result
        rounded = self._round(out, self.forward if low else None, self.backward)
        return _mark(rounded) if low else rounded

    def _round_memory(self, x: Tensor) -> None:
        """Round in place, past autograd, for which this is no step of its own."""
        x.data.copy_(cast(x.data, self.forward))

    def _round_all(self, tree: Any, stored: bool) -> Any:
        """Round every floating tensor in args or kwargs that is not in the format yet."""
        if isinstance(tree, Tensor):
            if not tree.is_floating_point() or is_low(tree):  # what is stored in the format needs no rounding
                return tree
            return self._round(tree, self.forward, self.backward if stored else None)
        if isinstance(tree, dict):
            return {key: self._round_all(value, stored) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(self._round_all(value, stored) for value in tree)
        return tree

    def _round(self, x: Tensor, forward: FloatFormat | None, backward: FloatFormat | None) -> Tensor:
        backward = None if backward == FP32 else backward
        observe = self.meter.see if self.meter is not None and backward is not None else None
        return fake_cast(x, forward, backward, observe=observe)


def is_low(x: Tensor) -> bool:
    """True if `x` is stored in the low format under the emulation that made it."""
    return getattr(x, "_mpkit_low", False)


def _mark(x: Tensor) -> Tensor:
    x._mpkit_low = True  # type: ignore[attr-defined]
    return x


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a is b or a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() != 0


def _asks_for_wide(name: str, args: Any, kwargs: Any) -> bool:
    """True for x.float(), x.to(torch.float32), x.double(), x.type_as(wide): the user wants more bits from here on."""
    if name not in ("to", "type", "type_as"):
        return name in ("float", "double")
    wanted = (*args[1:], *kwargs.values())
    return any(not is_low(w) if isinstance(w, Tensor) else w in (torch.float32, torch.float64) for w in wanted)


def _rebuild(like: Any, parts: list[Any]) -> Any:
    """A list, tuple or named tuple of `like`'s type."""
    return like._make(parts) if hasattr(like, "_make") else type(like)(parts)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(tuple(tree.values()))
    elif isinstance(tree, Iterable) and isinstance(tree, list | tuple):
        for item in tree:
            yield from _tensors(item)
