"""`WeightKeeper`: lend an optimizer FP32 weights for a step, then store the result in another format."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunction

from mpkit.casting import cast
from mpkit.formats import FloatFormat, require_format
from mpkit.optim.pack import Pack, packed
from mpkit.optim.slot import Slot, UpdateCount, require_dtypes, shape_of, widened
from mpkit.scaling.divider import step_fused


class WeightKeeper(torch.optim.Optimizer):
    """Base of the three: lends the wrapped optimizer FP32 weights for a step, and stores the result in `fmt`.

    Args:
        optimizer: any torch optimizer. Its parameters are float32 (then their values are kept on the grid of `fmt`)
            or of the dtype of `fmt`. They are rounded to `fmt` at once; state it has already goes on, in FP32.
        fmt: the format that the weights live in.

    It is an optimizer itself: `param_groups` and `state` are the wrapped one's, so schedulers, clipping and scalers
    work as ever. `updates` counts what was lost. A gradient may be 16-bit: it is divided by the loss scale in FP32, if
    the scaler has not done so. If a scaler found Inf or NaN, `step` changes nothing; to know, it waits for the device.
    `mpkit.CapturedStep` cannot wait: in its graph weights and state stay as they are, the optimizer has to be a fused
    one, and random numbers are drawn in a skipped step, too. For a graph of your own, set `asks_host = False` first.
    FP32 copies of all weights exist during a step, not between steps.

    Raises:
        TypeError: `optimizer` is no torch optimizer, or is wrapped already; a parameter is neither float32 nor
            `fmt`, or is a DTensor.
    """

    _step_supports_amp_scaling = True  # scalers then leave found_inf and grad_scale here
    _divides_in_float32 = True  # so a LossScaler need not refuse 16-bit gradients
    asks_host = True  # whether to skip; False while a CUDA graph is made, which cannot ask

    def __init__(self, optimizer: torch.optim.Optimizer, fmt: FloatFormat) -> None:
        self.format = require_format(fmt)
        if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, WeightKeeper):
            cure = "pass the plain torch optimizer, such as torch.optim.Adam(model.parameters())"
            what = f"{type(self).__name__} wraps one torch optimizer, but {type(optimizer).__name__} came"
            raise TypeError(f"{what}; {cure}.")
        require_dtypes(optimizer.param_groups, self.format)
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.optimizer, self.param_groups, self.state = optimizer, optimizer.param_groups, optimizer.state
        self._slots: dict[Tensor, Slot] = {}
        device = next((slot.param.device for slot in self._current()), None)
        self.updates = UpdateCount(*(torch.zeros((), dtype=torch.int64, device=device) for _ in range(2)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.optimizer).__name__}, {self.format})"

    def __getstate__(self) -> dict[str, Any]:
        """All of it, for copy.deepcopy and pickle: torch's own keeps only groups and state."""
        return self.__dict__.copy()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the wrapped optimizer in FP32, then store. Returns what the closure returned.

        After an exception the stored weights are those from before the step, or that a closure saw last.
        """
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and self.asks_host:
            if bool(found_inf):
                return None
            found_inf = None
        with self._lent() as before:
            result = None
            if found_inf is not None:
                step_fused(self.optimizer, None, found_inf)
            else:
                result = self.optimizer.step() if closure is None else self.optimizer.step(self._around(closure))
            with DisableTorchFunction():
                self._store(before, found_inf)
        return result

    def held(self) -> list[Tensor]:
        """What a step changes besides parameters and `state`: what is kept beside the weights, and the counts."""
        extras = [slot.extra for slot in self._current() if slot.extra is not None]
        return [*extras, self.updates.moved, self.updates.lost]

    def generators(self) -> list[torch.Generator]:
        """What a step draws random numbers from."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped optimizer, and what the 16-bit weights cannot hold: enough to resume to the bit."""
        kept = [None if slot.extra is None else slot.extra.clone() for slot in self._current()]
        counts = (int(self.updates.moved), int(self.updates.lost))
        return {**self.optimizer.state_dict(), "keeper": repr(self), "kept": kept, "updates": counts}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state; load the model's weights as well, before or after.

        Raises:
            ValueError: the state comes from another wrapper, format, optimizer or model. Nothing has changed then.
        """
        if state_dict.get("keeper") != repr(self):
            saved = state_dict.get("keeper", "an optimizer without a wrapper")
            raise ValueError(f"this state was saved by {saved}, but {self!r} is to load it; wrap as you did then.")
        slots, kept = list(self._current()), state_dict["kept"]
        if [shape_of(slot.extra) for slot in slots] != [shape_of(one) for one in kept]:
            raise ValueError("this state was saved for parameters of other shapes; build the same model first.")
        own = {"keeper", "kept", "updates", "random"}
        with self._lent():  # so that torch loads the state of 16-bit parameters in FP32
            self.optimizer.load_state_dict({k: v for k, v in state_dict.items() if k not in own})
        self.param_groups, self.state = self.optimizer.param_groups, self.optimizer.state
        for slot, one in zip(slots, kept, strict=True):
            if slot.extra is not None:
                slot.extra.copy_(one)
        for count, saved in zip((self.updates.moved, self.updates.lost), state_dict["updates"], strict=True):
            count.fill_(saved)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, as in torch; they are rounded to the format at once."""
        if not hasattr(self, "optimizer"):  # torch's __init__ passes the wrapped one's groups through here
            super().add_param_group(param_group)
            return
        params = param_group["params"]
        require_dtypes([{"params": [params] if isinstance(params, Tensor) else list(params)}], self.format)
        self.optimizer.add_param_group(param_group)
        self._current()

    def _read(self, slot: Slot) -> Tensor:
        """The stored weight, as a new FP32 tensor."""
        return slot.stored.to(torch.float32, copy=True)

    def _write(self, slot: Slot, weight: Tensor) -> None:
        """Store an FP32 weight."""
        slot.stored.copy_(cast(weight, self.format))

    def _extra(self, param: Tensor) -> Tensor | None:
        """What is kept besides the model's parameter, made before that is rounded; None for nothing."""
        return None

    @torch.no_grad()
    def _current(self) -> list[Slot]:
        """The slots of all parameters in the groups, in order. Parameters that are new are rounded."""
        params = [param for group in self.param_groups for param in group["params"]]
        for param in params:
            if param not in self._slots:
                self._slots[param] = Slot(param, param.data, self._extra(param))
                param.copy_(cast(param.detach(), self.format))
                for key, value in self.state.get(param, {}).items():
                    self.state[param][key] = widened(value)
        return [self._slots[param] for param in params]

    @contextmanager
    def _lent(self) -> Iterator[list[tuple[Pack, Tensor]]]:
        """Inside, the parameters are FP32, and so are their gradients. Yields packs, and their weights as they were."""
        slots, before, lent = self._current(), [], []
        for slot in slots:
            slot.stored, slot.grad = slot.param.data, slot.param.grad
            if slot.extra is not None:
                slot.extra = slot.extra.to(slot.stored.device)  # the model may have moved
        try:
            for pack in packed(slots):
                with DisableTorchFunction():  # no active policy may round what happens in here
                    before.append((pack, self._read(pack.one)))
                for slot, work in zip(pack.slots, pack.parts(before[-1][1].clone()), strict=True):
                    lent.append(slot)
                    slot.show(work, self._wide_grad(slot))
            yield before
        finally:
            for slot in lent:
                slot.show(slot.stored, slot.grad)
                slot.grad = None

    def _wide_grad(self, slot: Slot) -> Tensor | None:
        scale = getattr(self, "grad_scale", None)
        with DisableTorchFunction():
            grad = None if slot.grad is None else slot.grad.float()
            return grad if grad is None or scale is None else grad / scale.to(grad.device)

    def _around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, for which the model has stored weights again: those that the optimizer tries out."""

        def evaluate() -> Any:
            slots = self._current()
            works = [slot.param.data for slot in slots]
            for slot, work in zip(slots, works, strict=True):
                with DisableTorchFunction(), torch.no_grad():
                    self._write(slot, work)
                slot.show(slot.stored, slot.grad)
            with torch.enable_grad():
                loss = closure()
            for slot, work in zip(slots, works, strict=True):
                slot.grad = slot.param.grad
                slot.show(work, self._wide_grad(slot))
            return loss

        return evaluate

    def _store(self, before: list[tuple[Pack, Tensor]], found_inf: Tensor | None) -> None:
        for pack, old in before:
            one, weight = pack.one, pack.joined(slot.param.data for slot in pack.slots)
            as_it_was = [(t, t.clone()) for t in (one.stored, one.extra) if t is not None and found_inf is not None]
            meant = (weight != old) & ~old.isnan()  # NaN differs from itself, so it would count in every step
            self._write(one, weight)
            lost = meant & (self._read(one) == old)
            self.updates.moved += meant.sum().to(self.updates.moved.device)
            self.updates.lost += lost.sum().to(self.updates.lost.device)
            for tensor, was in as_it_was:
                assert found_inf is not None
                tensor.copy_(was.where(found_inf.to(was.device) > 0, tensor))
            pack.give_back()
