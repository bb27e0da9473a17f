"""Run an unmodified model as if its tensors had another format: float32 arithmetic, rounded where hardware rounds.

Tensor cores multiply 16-bit operands and add in FP32 (Micikevicius et al. 2018, arXiv 1710.03740, section 3.3), so
rounding the operands and the result of a float32 matrix product gives the same numbers. Which operation runs in which
format follows torch's autocast: matrix work in the low format, reductions, exponentials and losses in FP32, everything
else in the widest format among its inputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from mpkit.casting import EXACT_IN_TORCH, cast, fake_cast
from mpkit.formats import FP32, FloatFormat
from mpkit.policy.layers import LAYERS
from mpkit.policy.meter import Meter
from mpkit.policy.operations import ADDED, FOLLOWS_FIRST, LISTS, UNINITIALISED, Lists, is_in_place
from mpkit.policy.recipes import LinearRecipe
from mpkit.policy.scaled_linear import Emulated, is_linear, linear_arguments, scaled_linear
from mpkit.policy.tensors import converted, memory, run_backward, same_memory
from mpkit.scaled.quantize import scaled_cast
from mpkit.trees import map_tensors, tensors_in

CASTS = (cast, fake_cast, scaled_cast)  # one of the user's says what it wants
BACKWARD_OPTIONS = {"retain_graph", "create_graph"}


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
        lists: which operations are matrix work, and which are wide.
        linear: scaled formats of the operands of linear layers, if they have their own.
        masters: True if the parameters stay FP32 where `everywhere` is, and only what is read of them is low.

    Two simplifications: the gradient of an operation that works in place is rounded where the tensor was made,
    and where a tensor has several consumers their gradients are added in FP32 and rounded once.
    """

    def __init__(
        self,
        forward: FloatFormat,
        backward: FloatFormat,
        wide: FloatFormat,
        everywhere: bool,
        meter: Meter | None,
        lists: Lists = LISTS["cuda"],
        linear: LinearRecipe | None = None,
        masters: bool = False,
    ) -> None:
        super().__init__()
        self.forward, self.backward, self.wide = forward, backward, wide
        self.everywhere, self.meter, self.lists, self.linear = everywhere, meter, lists, linear
        self.masters = masters
        autocasts = forward.bits == 16 and forward == backward and wide == FP32  # what torch does by its autocast
        self.refused = lists.refused if autocasts else frozenset()
        self.paused = False  # while an optimizer works
        self.in_forward = False  # while the model is called
        self.shadowed = False  # while another emulation is active inside this one

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Choose by the function's name what is rounded."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").removeprefix("special_")
        if name == "backward":
            given = {key: value for key, value in kwargs.items() if value is not None}
            scalar = len(args) == 1 and isinstance(args[0], Tensor) and args[0].numel() == 1
            if self.shadowed or not scalar or not given.keys() <= BACKWARD_OPTIONS:
                return func(*args, **kwargs)  # the mode rests in there: then checkpointed parts are run again in FP32
            with self:  # stay active: checkpointing runs the forward pass again in there
                return run_backward(*args, **given)
        if self._rests(func, types):
            return func(*args, **kwargs)
        self._require_allowed(name)
        stored = self.forward.bits == 16
        if name in LAYERS:
            args = self._round_all(args, True) if stored and name in self.lists.matrix else args
            with self:  # stay active: its operations come by here
                return LAYERS[name](*args, **kwargs)
        if self.linear is not None and is_linear(name, args, kwargs):
            x, weight, bias = linear_arguments(*args, **kwargs)
            return self._result(scaled_linear(x, weight, bias, self.linear, Emulated(), torch.float32))
        if name in self.lists.matrix:
            return self._result(func(*self._operands(name, args, stored), **self._named(kwargs, stored)))
        # Not in place: rounding makes a copy, and a change of that would be lost.
        if self.everywhere and self._computes() and not name.startswith("__get") and not is_in_place(name, kwargs):
            args, kwargs = self._round_parameters(args), self._round_parameters(kwargs)
        if name in self.lists.wide:
            if self.wide == FP32:
                return func(*args, **kwargs)
            return self._result(func(*self._round_all(args, True), **self._round_all(kwargs, True)))
        return self._follow(func, name, args, kwargs)

    def _rests(self, func: Any, types: Any) -> bool:
        if UninitializedParameter in types:  # a lazy layer's, which is about to get its shape
            return True
        return self.paused or self.shadowed or func in CASTS

    def _computes(self) -> bool:
        """While the model is called, or a checkpointed part of it again; else a master weight is what it is: FP32."""
        return self.in_forward or torch._C._current_graph_task_id() != -1

    def _require_allowed(self, name: str) -> None:
        if name in self.refused:
            raise RuntimeError(
                f"F.{name} is refused under this policy, as CUDA's autocast refuses it: a probability in "
                f"{self.forward} may be 0 or 1. Give F.{name}_with_logits (nn.BCEWithLogitsLoss) what comes before the "
                'sigmoid, or ask for the CPU\'s lists, which take it in FP32: policy.apply(model, lists="cpu").'
            )

    def _operands(self, name: str, args: tuple[Any, ...], stored: bool) -> tuple[Any, ...]:
        """Round the operands of a matrix operation; what is only added stays FP32 unless the format is stored."""
        added = None if stored else ADDED.get(name)
        return tuple(arg if index == added else self._round_all(arg, stored) for index, arg in enumerate(args))

    def _named(self, kwargs: dict[str, Any], stored: bool) -> dict[str, Any]:
        kept = () if stored else ("bias",)
        return {key: value if key in kept else self._round_all(value, stored) for key, value in kwargs.items()}

    def _round_parameters(self, tree: Any) -> Any:
        """A model that is stored in the low format reads low weights, whatever the operation."""
        return map_tensors(lambda x: self._low(x, True) if isinstance(x, torch.nn.Parameter) else x, tree)

    def _follow(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        """Everything else runs in the widest format among its inputs."""
        out = func(*args, **kwargs)
        inputs = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
        if isinstance(out, list | tuple) and any(isinstance(part, Tensor) for part in out):  # chunk, max(dim), …
            return map_tensors(lambda part: self._settle(part, name, inputs), out)
        if name == "__setitem__":
            self._settle(inputs[0] if inputs else None, name, inputs)
        elif isinstance(out, Tensor) and _asks_for_wide(name, args, kwargs):
            return out.view_as(out)  # a new tensor object, without the mark of the low format
        return self._settle(out, name, inputs)

    def _settle(self, out: Any, name: str, inputs: list[Tensor]) -> Any:
        """Decide whether one result is stored in the low format."""
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return out
        if shared := [t for t in inputs if same_memory(out, t)]:  # a view, a copy of the reference, or in place
            if any(is_low(t, self.forward) for t in shared):
                _mark(out, self.forward)
                if out is inputs[0]:
                    self._round_memory(out)
            return out
        if name == "__get__" or not inputs:
            return out
        # A number without dimensions has no say, as in torch's own type promotion: low * torch.tensor(1.1) stays low.
        voters = inputs[:1] if name in FOLLOWS_FIRST else [t for t in inputs if t.dim()] or inputs
        copies_master = self.masters and name == "clone" and not self._computes()  # as copy.deepcopy(model) does
        if not ((self.everywhere and not copies_master) or all(is_low(t, self.forward) for t in voters)):
            return out
        if name in UNINITIALISED:  # what is in it now is nobody's value; what is written into it will be rounded
            return _mark(out, self.forward) if self.forward.bits == 16 else out
        return self._result(out)

    def _result(self, out: Any) -> Any:
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return out
        low = self.forward.bits == 16
        if low and (hasattr(out.grad_fn, "_saved_result") or hasattr(out.grad_fn, "_saved_output")):
            self._round_memory(out)  # the way back through sigmoid, tanh, … reads the stored result
        rounded = self._round(out, self.forward if low else None, self.backward)
        return _mark(rounded, self.forward) if low else rounded

    def _round_memory(self, x: Tensor) -> None:
        """Round in place, past autograd, for which this is no step of its own."""
        data = memory(x)
        data.copy_(data.to(self.forward.dtype) if self.forward.dtype in EXACT_IN_TORCH else cast(data, self.forward))

    def _round_all(self, tree: Any, stored: bool) -> Any:
        """Round every floating tensor in args or kwargs that is not in the format yet."""
        return map_tensors(lambda x: self._low(x, stored), tree)

    def _low(self, x: Tensor, stored: bool) -> Tensor:
        if not x.is_floating_point() or is_low(x, self.forward):
            return x
        rounded = self._round(x, self.forward, self.backward if stored else None)
        return _mark(rounded, self.forward) if stored else rounded

    def _round(self, x: Tensor, forward: FloatFormat | None, backward: FloatFormat | None) -> Tensor:
        backward = None if backward == FP32 else backward
        if x.layout != torch.strided or x.is_nested:
            return converted(x, forward, backward)
        observe = self.meter.see if self.meter is not None and backward is not None else None
        return fake_cast(x, forward, backward, observe=observe)


def is_low(x: Tensor, fmt: FloatFormat | None = None) -> bool:
    """True if `x` is stored in the low format (in `fmt`, if given) of the emulation that made it."""
    stored = getattr(x, "_mpkit_low", None)
    return stored is not None and fmt in (None, stored)


def _mark(x: Tensor, fmt: FloatFormat) -> Tensor:
    x._mpkit_low = fmt  # type: ignore[attr-defined]
    return x


def _asks_for_wide(name: str, args: Any, kwargs: Any) -> bool:
    """True for x.float(), x.to(torch.float32), x.double(), x.type_as(wide): the user wants more bits from here on."""
    if name not in ("to", "type", "type_as"):
        return name in ("float", "double")
    wanted = (*args[1:], *kwargs.values())
    return any(not is_low(w) if isinstance(w, Tensor) else w in (torch.float32, torch.float64) for w in wanted)
