"""Everything that a training step changes, kept, to run the step again from the same place."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel

from mpkit.diagnosis.generators import rewinding
from mpkit.diagnosis.patching import replaced
from mpkit.diagnosis.random_numbers import random_state as random_state
from mpkit.diagnosis.random_numbers import set_random_state as set_random_state
from mpkit.diagnosis.turn import SCALER
from mpkit.diagnosis.undo import Undo, modules_undo, optimizer_undo, scaler_undo, tensors_undo
from mpkit.scaling.loss_scaler import LossScaler
from mpkit.unwatched import aside

# By what a step calls it is met: what changes it.
CALLS: dict[type, tuple[str, ...]] = {
    LRScheduler: ("step",),
    AveragedModel: ("update_parameters",),
    GradScaler: SCALER,
    LossScaler: SCALER,
}


class Snapshot:
    """Parameters, buffers, gradients, optimizers, scaler, schedulers, average and random numbers, as they are now.

    `restore` puts all of it back, in the same tensors. Inside `watching()` an optimizer, a scaler, a scheduler or an
    `AveragedModel` that was not given is kept too, right before its first call, and `met` has its name; the gradients
    of parameters that only such an optimizer knows are cleared. What a script keeps elsewhere (an attribute that is no
    buffer, a list, an iterator, a counter, an average of its own) is not put back: a step that depends on such a thing
    differs from run to run, and is found by that.

    Args:
        modules: all that the step changes.
        optimizers, schedulers: one, a list of them, or None.
        scaler: one, or None.
        generators: those that the step keeps for itself, as `generators_in` finds them.
    """

    def __init__(self, modules: list[nn.Module], optimizers: Any, scaler: Any, schedulers: Any,
                 generators: Iterable[Any] = ()) -> None:  # fmt: skip
        self.met: list[str] = []
        self._known = {id(one) for module in modules for one in module.modules()}
        self._undo: list[Undo] = [modules_undo(modules)]
        with aside():
            self._keep_tensors(t for m in modules for t in (*m.parameters(), *m.buffers()))
            for optimizer in listed(optimizers):
                self._keep_optimizer(optimizer)
            for one in listed(scaler):
                self._keep_scaler(one)
            for one in listed(schedulers):
                self._keep_scheduler(one)
        self._random, self._draws = random_state(), [(one, rewinding(one)) for one in generators]
        self._seeds = [one.get_state() for one in self._torch_draws()]

    def restore(self) -> None:
        """Put everything back. It can be done again and again."""
        with aside(), torch.no_grad():  # no policy that is active outside may round what is put back
            for undo in self._undo:
                undo()
        self.rewind()
        torch.clear_autocast_cache()  # casts of weights that are no more

    def rewind(self) -> None:
        """Put the random numbers alone back."""
        set_random_state(self._random)
        for _, undo in self._draws:
            undo()

    def drawn(self) -> bool:
        """Has torch drawn random numbers since?"""
        now, cuda = random_state(), self._random.get("cuda", [])
        here = [*zip([now["torch"], *now.get("cuda", [])], [self._random["torch"], *cuda], strict=False)]
        here += zip([one.get_state() for one in self._torch_draws()], self._seeds, strict=True)
        return not all(torch.equal(a, b) for a, b in here)

    def _torch_draws(self) -> list[torch.Generator]:
        return [one for one, _ in self._draws if isinstance(one, torch.Generator)]

    @contextmanager
    def watching(self, adopt: Callable[[Any], bool] = lambda scaler: False) -> Iterator[None]:
        """A block in which is kept what was not given, when it is first called.

        `adopt` is asked about each such scaler: if it takes it, as one that is examined, then `met` does not name it.
        """
        with ExitStack() as stack:
            stack.callback(register_optimizer_step_pre_hook(self._before_a_step).remove)
            for kind, calls in CALLS.items():
                for own in _family(kind):
                    for name in calls:
                        if name in vars(own):
                            stack.enter_context(replaced(own, name, partial(self._meeting, adopt)))
            yield

    def _meeting(self, adopt: Callable[[Any], bool], was: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(was)
        def call(one: Any, *args: Any, **kwargs: Any) -> Any:
            if id(one) in self._known or not self._meet(one, adopt):
                return was(one, *args, **kwargs)
            return getattr(one, was.__name__)(*args, **kwargs)  # whoever took it listens to it from now on

        return call

    def _before_a_step(self, optimizer: Any, *_: Any) -> None:
        self._meet(optimizer)

    def _meet(self, one: Any, adopt: Callable[[Any], bool] = lambda scaler: False) -> bool:
        """Keep it, if it is not known; True: it was adopted."""
        if id(one) in self._known:
            return False
        with aside():  # a trace sees none of it, and a run in FP32 casts nothing
            if isinstance(one, torch.optim.Optimizer):
                self._keep_optimizer(one, late=True)
            elif isinstance(one, AveragedModel):
                self._keep_average(one)
            elif isinstance(one, GradScaler | LossScaler):
                self._keep_scaler(one)
                if adopt(one):
                    return True
            else:
                self._keep_scheduler(one)
        self.met.append(type(one).__name__)
        return False

    def _keep_tensors(self, tensors: Iterable[Tensor], late: bool = False) -> None:
        new = {id(t): t for t in tensors if id(t) not in self._known}
        self._known |= set(new)
        self._undo.append(tensors_undo(list(new.values()), late))

    def _keep_optimizer(self, optimizer: Any, late: bool = False) -> None:
        self._knows(optimizer, "optimizer")
        self._keep_tensors((p for group in optimizer.param_groups for p in group["params"]), late)
        self._undo.append(optimizer_undo(optimizer))

    def _keep_average(self, average: nn.Module) -> None:
        self._known |= {id(one) for one in average.modules()}
        self._undo.append(modules_undo([average]))
        self._keep_tensors((*average.parameters(), *average.buffers()))

    def _keep_scaler(self, scaler: Any) -> None:
        self._knows(scaler, "scaler")
        self._undo.append(scaler_undo(scaler))

    def _keep_scheduler(self, one: Any) -> None:
        self._knows(one, "scheduler")
        if saved := copy.deepcopy(one.state_dict()):
            self._undo.append(lambda: one.load_state_dict(copy.deepcopy(saved)))

    def _knows(self, one: Any, inner: str) -> None:
        """It, and what it wraps: the latter's step is a part of its own."""
        while one is not None and id(one) not in self._known:
            self._known.add(id(one))
            self._undo.append(partial(id, one))  # kept alive, so that nothing else gets this id
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


def _family(kind: type) -> set[type]:
    """A class and all that come from it."""
    return {kind}.union(*map(_family, kind.__subclasses__()))
