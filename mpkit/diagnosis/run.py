"""Run the step from the same place, with one thing changed, and look at what came of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.diagnosis.data import Kept, data_in
from mpkit.diagnosis.generators import generators_in
from mpkit.diagnosis.masters import Masters
from mpkit.diagnosis.notes import Notes
from mpkit.diagnosis.observed import Observed
from mpkit.diagnosis.outcome import Run as Run
from mpkit.diagnosis.outcome import number
from mpkit.diagnosis.path import ModulePath
from mpkit.diagnosis.snapshot import Snapshot, listed, optimizers_in
from mpkit.diagnosis.wide import LOW, in_fp32
from mpkit.overflow import found_inf
from mpkit.tracing.watch import trace
from mpkit.unwatched import uncompiled

# What torch's own optimizers keep for each value of a parameter.
MOMENTS = frozenset("exp_avg exp_avg_sq max_exp_avg_sq momentum_buffer square_avg grad_avg acc_delta sum ax eta "
                    "exp_inf prev step_size".split())  # fmt: skip
NOT_GIVEN = (
    "the step uses {}, which diagnose was not given: what it changes is put back, but not examined. Pass all of them: "
    "optimizer=[…], scheduler=[…], ema=."
)


class Spent(Exception):
    """The step has run as often as it may."""


class Subject:
    """The step and all that belongs to it. Every run starts where the first one did; `restore` when done.

    `optimizer` and `scheduler` are the first of those given, which the calls of the loop are held against; `optimizers`
    are all of them. `scaler` is that of the step, also if none was given. TypeError: one is no optimizer.
    """

    def __init__(self, step: Callable[..., Any], model: nn.Module, optimizer: Any, scaler: Any, scheduler: Any,
                 ema: nn.Module | None, batch: Any) -> None:  # fmt: skip
        self.step, self.model, self.batch = step, model, batch
        self.optimizers, self.scaler, self.ema = optimizers_in(optimizer), scaler, ema
        self.optimizer = next(iter(self.optimizers), None)
        self.scheduler = next(iter(listed(scheduler)), None)
        self.modules = [model] if ema is None else [model, ema]
        self.names = {p: name for name, p in model.named_parameters()}
        draws = generators_in(step, batch, *self.modules)
        self.snapshot = Snapshot(self.modules, optimizer, scaler, scheduler, draws)
        self.runs, self.kept = 0, Kept(data_in(batch))
        self.most = math.inf  # runs
        self.batch_changed = self.draws = False  # does it change its batch, and draw random numbers?
        self.bad_at_start = self.bad_state() + [
            f"gradient {n}" for n in _not_finite({n: p.grad for p, n in self.names.items() if p.grad is not None})
        ]
        self.low = {name for name, t in self.moving() if t.dtype in LOW}
        self.held = {p for group in self._all_optimizers().param_groups for p in group["params"]}
        self._others = {name: p for p, name in self.names.items() if p not in self.held and p.requires_grad}
        self._masters, self.mastered = Masters(self.names, self.held), set[str]()  # parameters that have a master
        self._start = {name: p.detach().clone() for name, p in self._others.items()}

    def restore(self) -> None:
        """Put back the state in which it was given."""
        self.snapshot.restore()
        self.kept.put_back()

    def run(self, *changes: AbstractContextManager[Any], watch: bool = False, batch: Any = None, fp32: bool = False,
            afresh: bool = True, outputs: bool = False, notes: bool = False, keep: bool = False,
            raw: bool = False, **observed: Any) -> Run:  # fmt: skip
        """One run. `changes` are entered around it; `afresh=False` goes on from where the last one ended.

        `keep`: its tensors stay, so that they can be compared with those of another run. Spent: `most` were made.
        """
        if self.runs >= self.most:
            raise Spent
        if afresh:
            self.restore()
        self.kept.put_back()
        self.runs += 1
        params: dict[str, Tensor] = {name: p for p, name in self.names.items()}
        seen = Observed(self.optimizers, self.scaler, self.scheduler, params, raw=raw or watch, **observed)
        noting, traced, path = Notes(self.model), trace(self.model), ModulePath(self.model)
        left: set[str] = set()
        inside = [path, seen.watching(), self.snapshot.watching(partial(self._adopt, seen)), *changes]
        inside += [one for one, asked in ((traced, watch), (noting, notes)) if asked]
        if fp32:  # innermost, so that a trace sees what runs
            inside.append(in_fp32(self.modules, self._all_optimizers(), left))
        returned, error = self._call(self.batch if batch is None else batch, inside)
        self.batch_changed |= self.runs == 1 and self.kept.changed()
        self.draws |= self.runs == 1 and self.snapshot.drawn()
        if self.runs == 1 and self.snapshot.met:
            warnings.warn(NOT_GIVEN.format(", ".join(self.snapshot.met)), stacklevel=4)
        loss = number(returned)
        loss = seen.backward_loss if loss is None else loss
        grads = seen.grads
        bad = ["loss"] if loss is not None and not math.isfinite(loss) else []
        bad += [f"gradient {name}" for name in _not_finite(grads)] + self.bad_state()
        skipped = "step" in seen.calls and not seen.stepped
        state = {name: t.detach().clone() for name, t in self.moving() if name in self.low and keep}
        found = (traced.events, traced.harmless) if watch else ([], [])
        sums = (path.outputs(), path.given()) if outputs else ([], [])
        if not keep:
            grads.clear()
        run = Run(
            loss, grads, bad, seen, skipped, state, *found, noting.seen, noting.unused, *sums, low=noting.low, left=left
        )
        run.error = error
        if watch:
            self.mastered = self._masters.confirmed(seen.fed)
            run.moved = {name for name, start in self._start.items() if not torch.equal(self._others[name], start)}
        return run

    def _adopt(self, seen: Observed, scaler: Any) -> bool:
        """Take a scaler that the step uses for one that was given; False: there is one."""
        if self.scaler is not None:
            return False
        self.scaler = scaler
        seen.listen(scaler)
        return True

    def _all_optimizers(self) -> Any:
        """Their groups and states, as if they were one."""
        groups = [group for one in self.optimizers for group in one.param_groups]
        return SimpleNamespace(
            param_groups=groups, state={p: held for one in self.optimizers for p, held in one.state.items()}
        )

    def _call(self, batch: Any, inside: list[Any]) -> tuple[Any, Exception | None]:
        """What the step returned inside of these contexts, and what it raised."""
        with ExitStack() as stack:
            stack.enter_context(uncompiled())
            for context in inside:
                stack.enter_context(context)
            try:
                return (self.step() if batch is None else self.step(batch)), None
            except Exception as raised:
                return None, raised

    def has_remainder(self, parameter: str) -> bool:
        """Does the optimizer keep something for it that no optimizer of torch does: what rounding left, or a master?"""
        if parameter in self.mastered:
            return True
        p = next(p for p, name in self.names.items() if name == parameter)
        state = getattr(self.optimizer, "state", {}).get(p, {})
        return any(isinstance(v, Tensor) and v.shape == p.shape and (key not in MOMENTS or v.dtype == torch.float32)
                   for key, v in state.items())  # fmt: skip

    def moving(self) -> Iterator[tuple[str, Tensor]]:
        """What a step should move: parameters, averages, moments, by the names that `Run.bad` uses."""
        for p, name in self.names.items():
            if p.requires_grad:
                yield f"parameter {name}", p
        if self.ema is not None:
            yield from ((f"average {name}", p) for name, p in self.ema.named_parameters())
        for p, state in self._all_optimizers().state.items():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    yield f"moment {self.names.get(p, 'a parameter')}.{key}", value

    def bad_state(self) -> list[str]:
        """Of parameters, buffers, averages and moments those with Inf or NaN. Untrained ones may hold Inf: masks."""
        buffers = dict(self.model.named_buffers())
        trained = {name: p for p, name in self.names.items() if p.requires_grad}
        frozen = {name: p for p, name in self.names.items() if not p.requires_grad}
        found = [f"parameter {name}" for name in _not_finite(trained)]
        found += [f"parameter {name}" for name in _not_finite(frozen) if _has_nan(frozen[name])]
        found += [f"buffer {name}" for name in _not_finite(buffers) if "running_" in name or _has_nan(buffers[name])]
        return found + list(_not_finite({n: t for n, t in self.moving() if not n.startswith("parameter")}))


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of those with Inf or NaN; one wait for the device where there are none."""
    real = {n: torch.view_as_real(t.detach()) if t.is_complex() else t for n, t in tensors.items()}
    real = {n: t for n, t in real.items() if t.is_floating_point()}
    if not found_inf(real.values()):
        return []
    flags = [found_inf([t]) for t in real.values()]  # all of them are queued before the first is read
    return [name for name, flag in zip(real, flags, strict=True) if flag]


def _has_nan(tensor: Tensor) -> bool:
    """Inf alone may be meant: a mask, or the least of nothing."""
    return bool(tensor.isnan().any())
