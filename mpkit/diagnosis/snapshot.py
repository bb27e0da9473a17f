"""Everything that a training step changes, kept, to run the step again from the same place."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mpkit.diagnosis.patching import replaced
from mpkit.diagnosis.random_numbers import random_state as random_state
from mpkit.diagnosis.random_numbers import set_random_state as set_random_state
from mpkit.trees import map_tensors, tensors_in
from mpkit.unwatched import aside

Undo = Callable[[], Any]


class Snapshot:
    """Parameters, buffers, gradients, optimizers, scaler, schedulers, average and random numbers, as they are now.

    `restore` puts all of it back, in the same tensors. Inside `watching()` an optimizer or a scheduler that was not
    given is kept too, right before its first step, and `met` has its name; the gradients of parameters that only it
    knows are cleared. What a script keeps elsewhere (an attribute that is no buffer, a list, an iterator) is not put
    back: a step that depends on such a thing differs from run to run, and is found by that.

    Args:
        modules: all that the step changes.
        optimizers, schedulers: one, a list of them, or None.
        scaler: one, or None.
    """

    def __init__(self, modules: list[nn.Module], optimizers: Any, scaler: Any, schedulers: Any) -> None:
        self.met: list[str] = []
        self._scaler, self._known = scaler, set[int]()
        self._undo: list[Undo] = [_modules(modules)]
        with aside():
            self._keep_tensors(t for m in modules for t in (*m.parameters(), *m.buffers()))
            for optimizer in listed(optimizers):
                self._keep_optimizer(optimizer)
            for one in (*listed(scaler), *listed(schedulers)):
                self._keep_state_dict(one)
        self._stages = copy.deepcopy(getattr(scaler, "_per_optimizer_states", None))
        self._random = random_state()

    def restore(self) -> None:
        """Put everything back. It can be done again and again."""
        with aside(), torch.no_grad():  # no policy that is active outside may round what is put back
            for undo in self._undo:
                undo()
        if self._stages is not None:
            self._scaler._per_optimizer_states = copy.deepcopy(self._stages)
        if hasattr(self._scaler, "abandon"):
            self._scaler.abandon()
        self.rewind()
        torch.clear_autocast_cache()  # casts of weights that are no more

    def rewind(self) -> None:
        """Put the random numbers alone back."""
        set_random_state(self._random)

    def drawn(self) -> bool:
        """Has torch drawn random numbers since?"""
        now, cuda = random_state(), self._random.get("cuda", [])
        here = [*zip([now["torch"], *now.get("cuda", [])], [self._random["torch"], *cuda], strict=False)]
        return not all(torch.equal(a, b) for a, b in here)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A block in which optimizers and schedulers are kept that were not given."""
        with ExitStack() as stack:
            stack.callback(register_optimizer_step_pre_hook(lambda one, *_: self._meet(one)).remove)
            for kind in _family(LRScheduler):
                if "step" in vars(kind):
                    stack.enter_context(replaced(kind, "step", self._meeting))
            yield

    def _meeting(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def call(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            self._meet(scheduler)
            return step(scheduler, *args, **kwargs)

        return call

    def _meet(self, one: Any) -> None:
        if id(one) in self._known:
            return
        self.met.append(type(one).__name__)
        with aside():  # a trace sees none of it, and a run in FP32 casts nothing
            if isinstance(one, torch.optim.Optimizer):
                self._keep_optimizer(one, late=True)
            else:
                self._keep_state_dict(one)

    def _keep_tensors(self, tensors: Iterable[Tensor], late: bool = False) -> None:
        new = {id(t): t for t in tensors if id(t) not in self._known}
        self._known |= set(new)
        self._undo.append(_tensors(list(new.values()), late))

    def _keep_optimizer(self, optimizer: Any, late: bool = False) -> None:
        self._knows(optimizer, "optimizer")
        self._keep_tensors((p for group in optimizer.param_groups for p in group["params"]), late)
        self._undo.append(_optimizer(optimizer))

    def _keep_state_dict(self, one: Any) -> None:
        self._knows(one, "scheduler")
        if saved := copy.deepcopy(one.state_dict()):
            self._undo.append(lambda: one.load_state_dict(copy.deepcopy(saved)))

    def _knows(self, one: Any, inner: str) -> None:
        """It, and what it wraps: the latter's step is a part of its own."""
        while one is not None and id(one) not in self._known:
            self._known.add(id(one))
            self._undo.append(functools.partial(id, one))  # kept alive, so that nothing else gets this id
            one = getattr(one, inner, None)


def listed(given: Any) -> list[Any]:
    """None, one, or a list or tuple of them, as a list."""
    return list(given) if isinstance(given, list | tuple) else [] if given is None else [given]


def optimizers_in(given: Any) -> list[Any]:
    """Those that `listed` finds. TypeError: one is none."""
    found = listed(given)
    for one in found:
        if not hasattr(one, "param_groups"):
            raise TypeError(f"optimizer must be a torch optimizer or a list of them, but {type(one).__name__} came.")
    return found


def reinstate(module: nn.Module, buffers: dict[str, Tensor | None]) -> None:
    """Give a module the buffers that it had: the same objects, also where it has assigned others since."""
    now = module._buffers
    if [(name, id(buffer)) for name, buffer in now.items()] != [(name, id(b)) for name, b in buffers.items()]:
        now.clear()
        now.update(buffers)


def _modules(modules: list[nn.Module]) -> Undo:
    kept = [(m, m.training, dict(m._buffers)) for module in modules for m in module.modules()]

    def undo() -> None:
        for module, training, buffers in kept:
            module.training = training
            reinstate(module, buffers)

    return undo


def _tensors(tensors: list[Tensor], without_grad: bool) -> Undo:
    kept = [(t, t.data, t.detach().clone(), t.requires_grad) for t in tensors]
    grads = [(t, t.grad, t.grad.detach().clone()) for t in tensors if t.is_leaf and t.grad is not None]

    def undo() -> None:
        for tensor, data, values, needs_grad in kept:
            tensor.grad = None  # of another dtype, perhaps
            tensor.data = data
            data.copy_(values)
            if tensor.requires_grad != needs_grad:
                (tensor if tensor.is_leaf else tensor.detach_()).requires_grad_(needs_grad)
        for tensor, grad, values in grads if not without_grad else ():
            grad.copy_(values)
            tensor.grad = grad

    return undo


def _optimizer(optimizer: Any) -> Undo:
    # For each parameter its state, and the values in it.
    states = [(p, dict(held), map_tensors(_copied, dict(held))) for p, held in optimizer.state.items()]
    groups = [(group, dict(group), list(group["params"])) for group in optimizer.param_groups]
    settings = [{name: value for name, value in was.items() if name != "params"} for _, was, _ in groups]
    numbers = [(t, _copied(t)) for t in tensors_in(settings)]  # a learning rate may be a tensor
    beside = getattr(optimizer, "held", list)  # of the wrappers of mpkit.optim: what they keep beside the weights, …
    extras = [(t.data, _copied(t)) for t in beside()]
    draws = [
        (generator, generator.get_state()) for generator in getattr(optimizer, "generators", list)()
    ]  # … and draw from

    def undo() -> None:
        optimizer.state.clear()
        for parameter, held, values in states:
            for name, value in held.items():
                if isinstance(value, Tensor):
                    value.copy_(values[name])
                else:
                    held[name] = copy.deepcopy(values[name])
            optimizer.state[parameter] = dict(held)
        optimizer.param_groups[:] = [group for group, *_ in groups]
        for group, was, params in groups:
            was["params"][:] = params
            group.clear()
            group.update(was)
        for number, value in numbers:
            number.copy_(value)
        for now, (data, value) in zip(beside(), extras, strict=False):
            now.data = data  # a run in FP32 puts others in their place
            data.copy_(value)
        for generator, state in draws:
            generator.set_state(state)

    return undo


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _family(kind: type) -> set[type]:
    """A class and all that come from it."""
    return {kind}.union(*map(_family, kind.__subclasses__()))
