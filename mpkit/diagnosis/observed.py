"""What a step does: which calls it makes, in which order, and what the gradients are when the optimizer gets them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mpkit.diagnosis.clips import Clips
from mpkit.diagnosis.patching import replaced
from mpkit.diagnosis.turn import SCALER, Turn, gradient_norm, gradients
from mpkit.trees import map_leaves, tensors_in


class Observed:
    """While `watching()` is active: the calls of the loop by name in `calls`, and what they were given.

    Args:
        optimizers: all of the step that are known; its first one is meant where there is one answer for all.
        scaler, scheduler: those of the step, or None.
        params: name → parameter whose gradients are kept.
        factor: what the scaled loss is multiplied by in addition; gradients are not divided by it.
        answer: what get_scale answers to the script is multiplied by it.
        unscale_first: gradients are unscaled before they are clipped, whether the step does so or not.
        plant: a parameter whose gradient holds Inf when the step begins, and gets it again in every backward pass.
        raw: keep what backward leaves.
    """

    def __init__(self, optimizers: list[Any], scaler: Any, scheduler: Any, params: dict[str, Tensor],
                 factor: float = 1.0, answer: float = 1.0, unscale_first: bool = False, plant: Tensor | None = None,
                 raw: bool = False) -> None:  # fmt: skip
        self.turns = [Turn(one) for one in optimizers]
        self._scaler, self._scheduler, self._params = scaler, scheduler, params
        self.clips = Clips(self.turns, params, unscale_first, self._called)
        self._factor, self._answer, self._plant, self._raw = factor, answer, plant, raw
        self._final: set[str] = set()  # whose gradients the optimizer has had
        self._in_backward = False
        self._entered = ExitStack()  # what `watching` has put in place
        self.calls: list[str] = []
        self.script: list[str] = []  # those of them that the script makes itself: not inside of the scaler
        self._inside = False  # of a call of the scaler
        self.asked = False  # was the scale asked for before backward?
        self.asks = 0  # how often it was asked for by the script
        self.scale = 1.0  # that the loss was multiplied with
        self.backward_loss: float | None = None
        self.backward_calls = 0
        self.stepped = False
        self._scaled: list[Any] = []  # what scale gave
        self.beside = False  # backward was called on something else
        self.added_to_old = False  # when backward began, what was planted before the step was still there
        # Ids of the tensors that optimizers stepped with a gradient, and that are not in `params`; only if `raw`.
        self.fed: set[int] = set()
        self.old = 0.0  # norm of the gradients when the first backward pass began; only if those it leaves are kept
        self.raw: dict[str, Tensor] = {}  # gradients as the last backward pass left them, without the scale
        self.grads: dict[str, Tensor] = {}  # … and as the optimizer got them, if it did

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A block whose calls are observed."""
        with ExitStack() as stack:
            enter = stack.enter_context
            self._entered = stack
            if self._scaler is not None:
                self.listen(self._scaler)
            if self._scheduler is not None:
                enter(replaced(self._scheduler, "step", functools.partial(self._named, "scheduler.step")))
            enter(replaced(torch.optim.Optimizer, "zero_grad", functools.partial(self._named, "zero_grad")))
            enter(replaced(nn.Module, "zero_grad", functools.partial(self._named, "zero_grad")))
            for owner in (torch.Tensor, torch.autograd):  # a mode may answer the former by itself
                enter(replaced(owner, "backward", self._going_back))
            enter(replaced(clip_grad, "_get_total_norm", self.clips.measuring))
            for module in (clip_grad, nn.utils):
                enter(replaced(module, "clip_grad_value_", self.clips.clipping_values))
            enter(replaced(clip_grad, "_clip_grads_with_norm_", self.clips.clipping))
            hook = register_optimizer_step_pre_hook(self._stepping)
            stack.callback(hook.remove)
            if self._plant is not None:
                self._plant.grad = torch.full_like(self._plant, math.inf)
            yield

    @property
    def clip_norm(self) -> float | None:
        """What clipping measured last."""
        return self.clips.norm

    def listen(self, scaler: Any) -> None:
        """To the calls of this scaler until the block ends, as to one that was given; call it inside the block."""
        self._scaler = self.clips.scaler = scaler
        enter = self._entered.enter_context
        enter(replaced(scaler, "scale", self._scaling))
        enter(replaced(scaler, "get_scale", self._asking))
        for name in SCALER[1:]:  # scale was replaced above
            enter(replaced(scaler, name, functools.partial(self._named, name)))

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.script += [name] * (not self._inside)

    def _named(self, name: str, was: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(was)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._called(name)
            for turn in self.turns if args else ():
                if name == "unscale_":
                    turn.gets(args[0])
                elif name == "step":
                    turn.ended |= turn.takes(args[0])
            outer, self._inside = self._inside, self._inside or name in SCALER
            try:
                return was(*args, **kwargs)
            finally:
                self._inside = outer

        return call

    def _scaling(self, was: Callable[..., Any]) -> Callable[..., Any]:
        def scale(outputs: Any) -> Any:
            self._called("scale")
            scaled = was(outputs)
            self.scale = float(self._get_scale())
            if self._factor != 1.0:
                scaled = map_leaves(lambda t: t * self._factor if isinstance(t, Tensor) else t, scaled)
            self._scaled += tensors_in(scaled)
            return scaled

        return scale

    def _asking(self, was: Callable[..., Any]) -> Callable[..., Any]:
        self._get_scale = was

        @functools.wraps(was)
        def get_scale() -> Any:
            self.asked |= "backward" not in self.calls
            self.asks += not self._inside
            return was() * (1.0 if self._inside else self._answer)

        return get_scale

    def _going_back(self, was: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(was)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if self._in_backward:
                return was(tensors, *args, **kwargs)
            self._called("backward")
            self.backward_calls += 1
            if self._plant is not None and self.backward_calls == 1 and (grad := self._plant.grad) is not None:
                self.added_to_old = not bool(grad.isfinite().all())
            if self._raw and self.backward_calls == 1:
                self.old = gradient_norm(self._params.values())
            root = tensors if isinstance(tensors, Tensor) else next(iter(tensors), None)
            self.beside |= "scale" in self.calls and not any(root is one for one in self._scaled)
            if isinstance(root, Tensor) and root.numel() == 1:
                scale = self.scale * self._factor if "scale" in self.calls else 1.0
                self.backward_loss = float(root.detach()) / scale if scale else math.nan
            self._in_backward = True
            try:
                result = was(tensors, *args, **kwargs)
            finally:
                self._in_backward = False
            if self._plant is not None and self._plant.grad is not None:
                self._plant.grad.mul_(math.inf)
            kept = self._keep(self.scale if "scale" in self.calls else 1.0)
            if self._raw:
                self.raw |= kept
            return result

        return backward

    def _stepping(self, optimizer: Any, *_: Any) -> None:
        turn = next((turn for turn in self.turns if turn.takes(optimizer)), None)
        if turn is None and self.turns:
            return  # of one that is not known
        self._called("optimizer.step")
        inside = getattr(optimizer, "grad_scale", None)  # a fused optimizer divides by it itself
        taken = (bad := getattr(optimizer, "found_inf", None)) is None or not bool(bad)
        self.stepped |= taken and turn in (None, *self.turns[:1])
        own = set[str]()
        if turn is not None:
            turn.ended, turn.stepped = True, turn.stepped or taken
            own = {name for name, p in self._params.items() if id(p) in turn.own}
        if self._raw:
            ours = {id(p) for p in self._params.values()}
            self.fed |= {id(p) for group in optimizer.param_groups for p in group["params"] if id(p) not in ours
                         and p.grad is not None and bool(p.grad.any())}  # fmt: skip
        self._keep(1.0 if inside is None else float(inside), own)
        self._final |= own

    def _keep(self, scale: float, names: Collection[str] = ()) -> dict[str, Tensor]:
        """Gradients as float32, divided by the scale that they still carry; not those that an optimizer has had.

        Of these names; without any, of all.
        """
        asked = {n: p for n, p in self._params.items() if (not names or n in names) and n not in self._final}
        kept = gradients(asked, scale)
        self.grads |= kept
        return kept
