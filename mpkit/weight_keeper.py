"""`WeightKeeper`: lend an optimizer FP32 weights for a step, then store the result in another format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch._C import DisableTorchFunction

from mpkit.casting import cast
from mpkit.formats import FloatFormat, require_format


@dataclass
class UpdateCount:
    """How many single weights an optimizer meant to change, and how many of those kept their stored value."""

    moved: Tensor  # 0-dim int64
    lost: Tensor  # 0-dim int64

    @property
    def lost_share(self) -> float:
        """Lost updates as a share of all that were not zero; 0.0 before the first step. Waits for the device."""
        return int(self.lost) / max(int(self.moved), 1)


@dataclass
class Slot:
    """One weight tensor: the model's parameter, the FP32 tensor that is stepped in its place, and what is kept."""

    param: Tensor
    work: Tensor
    extra: Tensor | None = None


class WeightKeeper(torch.optim.Optimizer):
    """Base of the three: lends the wrapped optimizer FP32 weights for a step, and stores the result in `fmt`.

    Args:
        optimizer: any torch optimizer. Its parameters are float32 (then their values are kept on the grid of `fmt`)
            or of the dtype of `fmt`. They are rounded to `fmt` at once; state it has already goes on, in FP32.
        fmt: the format that the weights live in.

    It is an optimizer itself: `param_groups` are the wrapped one's, so schedulers, clipping, `mpkit.LossScaler` and
    `torch.amp.GradScaler` work as ever. `updates` counts what was lost. A gradient may be 16-bit: it is divided by the
    loss scale in FP32, if the scaler has not done so. If a scaler found Inf or NaN, `step` changes nothing.

    Raises:
        TypeError: `optimizer` is no torch optimizer, or is wrapped already; a parameter is neither float32 nor `fmt`.
    """

    _step_supports_amp_scaling = True  # scalers then leave found_inf and grad_scale here
    divides_in_float32 = True  # so a LossScaler need not refuse 16-bit gradients

    def __init__(self, optimizer: torch.optim.Optimizer, fmt: FloatFormat) -> None:
        self.format = require_format(fmt)
        _require_plain(optimizer, type(self).__name__)
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.optimizer, self.param_groups, self.state = optimizer, optimizer.param_groups, optimizer.state
        self._slots: dict[Tensor, Slot] = {}
        self._adopt_all()
        zero = torch.zeros((), dtype=torch.int64, device=next(iter(self._slots)).device)
        self.updates = UpdateCount(zero, zero.clone())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.optimizer).__name__}, {self.format})"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the wrapped optimizer in FP32, then store. Returns what the closure returned."""
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return None
        with DisableTorchFunction():  # no active policy may round what happens in here
            before = [self._read(slot) for slot in self._slots.values()]
            for slot, value in zip(self._slots.values(), before, strict=True):
                slot.work.data = value.clone()
            self._lend_gradients()
        with self._placed("work"):
            result = self.optimizer.step() if closure is None else self.optimizer.step(self._around(closure))
        with DisableTorchFunction():
            self._store_all(before)
        return result

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped optimizer, and what the 16-bit weights cannot hold: enough to resume to the bit."""
        with self._placed("work"):
            state = self.optimizer.state_dict()
        kept = [None if slot.extra is None else slot.extra.clone() for slot in self._slots.values()]
        counts = (int(self.updates.moved), int(self.updates.lost))
        return {**state, "keeper": repr(self), "kept": kept, "updates": counts}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state; load the model's weights as well.

        Raises:
            ValueError: the state comes from another wrapper, format or optimizer.
        """
        if state_dict.get("keeper") != repr(self):
            saved = state_dict.get("keeper", "an optimizer without a wrapper")
            raise ValueError(f"this state was saved by {saved}, but {self!r} is to load it; wrap as you did then.")
        own = {"keeper", "kept", "updates", "random"}
        with self._placed("work"):
            self.optimizer.load_state_dict({k: v for k, v in state_dict.items() if k not in own})
            for group, loaded in zip(self.param_groups, self.optimizer.param_groups, strict=True):
                group.update({k: v for k, v in loaded.items() if k != "params"})
            self.optimizer.param_groups, self.state = self.param_groups, self.optimizer.state
        for slot, kept in zip(self._slots.values(), state_dict["kept"], strict=True):
            if slot.extra is not None:
                slot.extra.copy_(kept)
        for count, saved in zip((self.updates.moved, self.updates.lost), state_dict["updates"], strict=True):
            count.fill_(saved)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, as in torch; they are rounded to the format at once."""
        if not hasattr(self, "optimizer"):  # torch's __init__ passes the wrapped one's groups through here
            super().add_param_group(param_group)
            return
        self.optimizer.add_param_group(param_group)
        self._adopt_all()

    def _read(self, slot: Slot) -> Tensor:
        """The weight as it is stored, as a new FP32 tensor."""
        return slot.param.detach().to(torch.float32, copy=True)

    def _write(self, slot: Slot) -> None:
        """Store `slot.work`."""
        slot.param.copy_(cast(slot.work.detach(), self.format))

    def _extra(self, param: Tensor) -> Tensor | None:
        """What is kept besides the model's parameter, made before that is rounded; None for nothing."""
        return None

    @torch.no_grad()
    def _adopt_all(self) -> None:
        for param in (p for group in self.param_groups for p in group["params"]):
            if param not in self._slots:
                _require_dtype(param, self.format)
                slot = self._slots[param] = Slot(param, _nothing(param), self._extra(param))
                if param in self.state:
                    self.state[slot.work] = {key: _wide(value) for key, value in self.state.pop(param).items()}
                param.copy_(cast(param.detach(), self.format))
        self._grouped = [[self._slots[p] for p in group["params"]] for group in self.param_groups]

    def _lend_gradients(self) -> None:
        scale = getattr(self, "grad_scale", None)
        for param, slot in self._slots.items():
            if param.grad is None:
                slot.work.grad = None
                continue
            grad = param.grad.float()
            slot.work.grad = grad if scale is None else grad / scale.to(grad.device)

    @contextmanager
    def _placed(self, which: Literal["param", "work"]) -> Iterator[None]:
        """Put these tensors of the slots into the groups. The optimizer's state belongs to the FP32 ones."""
        before = [group["params"] for group in self.param_groups]
        self._place([[getattr(slot, which) for slot in slots] for slots in self._grouped])
        try:
            yield
        finally:
            self._place(before)

    def _place(self, groups: list[list[Tensor]]) -> None:
        for group, tensors in zip(self.param_groups, groups, strict=True):
            group["params"] = tensors
        if hasattr(self.optimizer, "_params"):  # LBFGS has a list of its own
            self.optimizer._params = groups[0]

    def _around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure at the weights that the optimizer tries out: stored for the model, gradients lent again."""

        def evaluate() -> Any:
            with DisableTorchFunction(), torch.no_grad():
                for slot in self._slots.values():
                    self._write(slot)
            with torch.enable_grad(), self._placed("param"):  # for its zero_grad
                loss = closure()
            with DisableTorchFunction():
                self._lend_gradients()
            return loss

        return evaluate

    def _store_all(self, before: list[Tensor]) -> None:
        for slot, old in zip(self._slots.values(), before, strict=True):
            meant = slot.work != old
            self._write(slot)
            lost = meant & (self._read(slot) == old)
            self.updates.moved += meant.sum().to(self.updates.moved.device)
            self.updates.lost += lost.sum().to(self.updates.lost.device)
            slot.work.grad = None
            slot.work.data = _nothing(slot.param).data  # the FP32 weight was lent for this step only


def _nothing(param: Tensor) -> Tensor:
    """An empty FP32 leaf on the parameter's device, to which the optimizer's state belongs."""
    return torch.nn.Parameter(torch.empty(0, dtype=torch.float32, device=param.device))


def _wide(value: Any) -> Any:
    """16-bit state in FP32; anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value


def _require_plain(optimizer: Any, name: str) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, WeightKeeper):
        cure = "pass the plain torch optimizer, such as torch.optim.Adam(model.parameters())"
        raise TypeError(f"{name} wraps one torch optimizer, but {type(optimizer).__name__} came; {cure}.")


def _require_dtype(param: Tensor, fmt: FloatFormat) -> None:
    if param.dtype not in (torch.float32, fmt.dtype):
        raise TypeError(
            f"a parameter of shape {tuple(param.shape)} is {param.dtype}, but the weights are to live in {fmt}; "
            f"use float32 parameters (model.float()) or {fmt.dtype or 'another format'}."
        )
