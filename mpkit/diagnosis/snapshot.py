"""Everything that a training step changes, kept, to run the step again from the same place."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.trees import map_tensors


class Snapshot:
    """Parameters, buffers, gradients, optimizer, scaler, scheduler, average and random numbers, as they are now.

    `restore` puts all of it back, in the same tensors. What a script keeps elsewhere (an attribute that is no buffer, a
    list) is not put back: a step that depends on such a thing differs from run to run, and is found by that.
    """

    def __init__(self, modules: list[nn.Module], optimizer: Any, scaler: Any, scheduler: Any) -> None:
        self._modules, self._optimizer, self._scaler, self._scheduler = modules, optimizer, scaler, scheduler
        self._tensors = [(t, t.data, t.detach().clone()) for t in self._all()]
        self._grads = [(t, t.grad, None if t.grad is None else t.grad.detach().clone()) for t in self._all()]
        self._training = [(m, m.training) for module in modules for m in module.modules()]
        self._state = _kept(optimizer.state) if optimizer is not None else []
        self._groups = [dict(group) for group in optimizer.param_groups] if optimizer is not None else []
        self._saved = {id(one): copy.deepcopy(one.state_dict()) for one in (scaler, scheduler) if one is not None}
        self._stages = copy.deepcopy(getattr(scaler, "_per_optimizer_states", None))
        self._random = random_state()

    def _all(self) -> Iterator[Tensor]:
        seen: set[int] = set()
        held = [p for group in getattr(self._optimizer, "param_groups", []) for p in group["params"]]
        for tensor in [t for m in self._modules for t in (*m.parameters(), *m.buffers())] + held:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor

    def moved(self, names: dict[Any, str]) -> set[str]:
        """Of these tensors the names of those that are not what they were."""
        kept = {id(t): values for t, _, values in self._tensors}
        return {name for t, name in names.items() if not torch.equal(t.detach(), kept[id(t)])}

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back. It can be done again and again."""
        for tensor, data, values in self._tensors:
            tensor.grad = None  # of another dtype, perhaps
            tensor.data = data
            data.copy_(values)
        for tensor, grad, kept in self._grads:
            if grad is not None and kept is not None:
                grad.copy_(kept)
                tensor.grad = grad
        for module, training in self._training:
            module.training = training
        if self._optimizer is not None:
            _put_back(self._optimizer.state, self._state)
            for group, was in zip(self._optimizer.param_groups, self._groups, strict=True):
                group.clear()
                group.update(was)
        self._restore_state_dicts()
        set_random_state(self._random)

    def _restore_state_dicts(self) -> None:
        for one in (self._scaler, self._scheduler):
            if one is not None and self._saved[id(one)]:
                one.load_state_dict(copy.deepcopy(self._saved[id(one)]))
        if self._stages is not None:
            self._scaler._per_optimizer_states = copy.deepcopy(self._stages)
        if hasattr(self._scaler, "abandon"):
            self._scaler.abandon()


def _kept(state: Any) -> list[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """For each parameter its state, and the values in it."""
    return [(p, dict(held), map_tensors(lambda t: t.detach().clone(), dict(held))) for p, held in state.items()]


def _put_back(state: Any, kept: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
    state.clear()
    for parameter, held, values in kept:
        for name, value in held.items():
            if isinstance(value, Tensor):
                value.copy_(values[name])
            else:
                held[name] = copy.deepcopy(values[name])
        state[parameter] = dict(held)


def random_state() -> dict[str, Any]:
    """That of torch on every device, and of Python."""
    found = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def set_random_state(state: dict[str, Any]) -> None:
    """What `random_state` gave."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
