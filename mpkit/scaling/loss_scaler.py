"""Drive a scaling rule in a training step, with the verbs of `torch.amp.GradScaler`.

    scaler.scale(loss).backward();  result = scaler.step(optimizer);  scaler.update()

All state lives on the device. An optimizer that supports it (`fused=True`) steps without a wait for the device;
any other needs one read of `found_inf` a step, because Python has to decide whether to call it.
"""

import dataclasses
import functools
import itertools
import weakref
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.divider import Divider, divider_of, skips_by_itself, step_fused
from mpkit.scaling.dynamic import DynamicScale
from mpkit.scaling.gradient_plan import GradientPlan, Stage, describe, reciprocal, several_ranks
from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import ScaleRule
from mpkit.scaling.saved import read_state
from mpkit.scaling.state_tensors import StateTensors
from mpkit.scaling.step_result import StepResult
from mpkit.trees import map_leaves, to_device


class LossScaler:
    """Scale the loss, unscale and test the gradients, skip a bad step, adapt the scale.

    `rule`: how the scale changes, default `DynamicScale()`. With `NoScaling()` the scale stays 1 and the
    test for Inf and NaN still runs. With several ranks (`torch.distributed`) they agree on every skip.
    For a CUDA graph, run one whole step before the capture and use a fused optimizer.
    """

    def __init__(self, rule: ScaleRule | None = None) -> None:
        self.rule = DynamicScale() if rule is None else rule
        if not isinstance(self.rule, ScaleRule):
            raise TypeError(misuse.NOT_A_RULE.format(got=rule))
        # Dividing by a scale of 1 or more cannot overflow, so then the first test says it all.
        self._check_again = self.rule.check_unscaled and not (self.rule.floor or 0.0) >= 1.0
        self._memory = self.rule.init()  # the start; later, what rules remember that are not updated on the device
        self._seen: GradientStats | None = None  # this iteration's gradients, for rules that read them
        self._state: StateTensors | None = None  # made where the first loss is
        self._plans: list[GradientPlan] = []  # one for each list of parameters, so an optimizer and its wrapper share
        self._results: list[weakref.ref[StepResult]] = []

    def __repr__(self) -> str:
        return f"LossScaler({self.rule!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Let copy.deepcopy and pickle work between iterations; the copy sorts the parameters it meets anew."""
        self.state_dict()  # refuses in the middle of an iteration
        return {**self.__dict__, "_plans": [], "_results": []}

    def scale(self, outputs: Any) -> Any:
        """Multiply a loss by the scale; a list, tuple or dict of tensors has each of them multiplied.

        Float16 gives float32, whatever its shape: 1.0 times 2**16 is Inf in float16. TypeError: no floating tensor.
        """
        for held in self._results:
            if (result := held()) is not None:
                result.release()
        self._results.clear()
        return map_leaves(self._scaled, outputs)

    def _scaled(self, outputs: Any) -> Tensor:
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            got = f"a tensor of {outputs.dtype}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise TypeError(misuse.NOT_FLOATING.format(got=got))
        scale = self._on_device(outputs.device)
        with torch._C.DisableTorchFunction():  # no active mode may round the product
            wide = outputs.float() if outputs.dtype == torch.float16 else outputs
            return wide * to_device(scale, outputs.device)

    def _on_device(self, device: torch.device) -> Tensor:
        if self._state is None:
            if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(misuse.IN_CAPTURE)
            self._state = StateTensors(self.rule, self._memory, device)
            self._one = torch.ones((), dtype=torch.float32, device=device)
        return self._state.scale

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the optimizer's gradients by the scale in place and test them; for clipping before `step`.

        Once an iteration, after the last `backward`. No wait for the device, except for sparse gradients.
        RuntimeError: called at the wrong time, or no parameter has a gradient. ValueError: a float16 parameter.
        """
        scale, plan = self._plan(optimizer, "unscale_()")
        if plan.stage is not Stage.READY:
            raise RuntimeError(misuse.UNSCALED_TWICE if plan.stage is Stage.UNSCALED else misuse.UNSCALED_LATE)
        self._check(scale, plan, optimizer, Divider.SCALER, "unscale_()")
        plan.stage = Stage.UNSCALED

    def step(self, optimizer: torch.optim.Optimizer, closure: object = None) -> StepResult:
        """Unscale (unless done), test, and call `optimizer.step()` if every gradient is finite.

        A fused optimizer is always called and skips on the device: no wait. For any other, one read of found_inf.
        RuntimeError: called at the wrong time, with a closure, or without a gradient. ValueError: a float16 parameter.
        """
        if closure is not None:
            raise RuntimeError(misuse.CLOSURE)
        scale, plan = self._plan(optimizer, "step()")
        if plan.stage is Stage.STEPPED:
            raise RuntimeError(misuse.STEPPED_TWICE)
        divider = Divider.SCALER  # in unscale_, if that was called
        if plan.stage is Stage.READY:
            divider = divider_of(optimizer, self._check_again or bool(self.rule.reads))
            self._check(scale, plan, optimizer, divider, "step()")
        gathered, plan.gathered, plan.stage = plan.gathered, [], Stage.STEPPED
        known: bool | None = None
        if skips_by_itself(optimizer):
            flag = plan.found_inf if self.rule.skips else torch.zeros_like(plan.found_inf)
            step_fused(optimizer, None if divider is Divider.SCALER else scale, flag)
        elif not self.rule.skips or not (known := bool(plan.found_inf)):
            optimizer.step()
        outcome = torch.stack((scale, plan.found_inf))  # a copy: both tensors go on changing
        result = StepResult(outcome, known, self.rule.skips, gathered, optimizer.param_groups)
        self._results.append(weakref.ref(result))
        return result

    def update(self) -> None:
        """Let the rule adapt the scale to what this iteration's optimizers found. Ends the iteration.

        One optimizer's overflow shrinks the scale for all, but skips only its own step. A rule that reads gradients or
        remembers more than the scale (`rule.on_device` is False) waits for the device. ScaleExhausted: it gave up.
        """
        if self._state is None:
            raise RuntimeError(misuse.NO_SCALE.format(verb="update()"))
        flags = [plan.found_inf for plan in self._plans if plan.stage is not Stage.READY]
        if not flags:
            raise RuntimeError(misuse.NOT_STEPPED)
        try:
            self._adapt(self._state, functools.reduce(torch.maximum, flags))
        finally:  # also when the rule gives up: the iteration is over
            # An optimizer that sat it out is forgotten, so that a scaler does not keep an old model alive.
            self._plans = [plan for plan in self._plans if plan.captured or plan.stage is not Stage.READY]
            self.abandon()

    def _adapt(self, state: StateTensors, found_inf: Tensor) -> None:
        if self.rule.on_device:
            tracker, *more = state.counts.values()
            self.rule.update_tensors(state.scale, tracker, found_inf, *more)
        else:  # Python decides: the host has to read found_inf
            seen = (self._seen,) if self.rule.reads else ()
            self._memory = self.rule.update(self._memory, bool(found_inf), *seen)
            state.fill(self._memory)

    def abandon(self) -> None:
        """Drop the iteration in progress, for example after an interrupt.

        Stages and found_inf are reset, the scale stays. Then call `optimizer.zero_grad()`: a gradient may be unscaled.
        """
        self._seen = None
        for plan in self._plans:
            plan.reset()

    def get_scale(self) -> float:
        """Read the scale; waits for the device."""
        return self._memory.scale if self._state is None else float(self._state.scale)

    def state_dict(self) -> dict[str, Any]:
        """Return the rule and all that it remembers, as plain values: enough to resume exactly.

        Waits for the device. RuntimeError: between unscale_ or step and update.
        """
        if any(plan.stage is not Stage.READY for plan in self._plans):
            raise RuntimeError(misuse.MID_ITERATION)
        there = {} if self._state is None else self._state.read()
        return {**dataclasses.asdict(self._memory), **there, "rule": self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; an iteration in progress is dropped.

        ValueError: the state comes from another rule (any field counts), or is no state of a LossScaler.
        """
        self._memory = read_state(state, self.rule)
        self.abandon()
        if self._state is not None:
            self._state.fill(self._memory)

    def _plan(self, optimizer: torch.optim.Optimizer, verb: str) -> tuple[Tensor, GradientPlan]:
        if self._state is None:
            raise RuntimeError(misuse.NO_SCALE.format(verb=verb))
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(misuse.NOT_AN_OPTIMIZER.format(verb=verb, got=type(optimizer).__name__))
        params = list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))
        if not params:
            raise RuntimeError(misuse.NO_GRADIENT.format(verb=verb))
        plan = next((plan for plan in self._plans if plan.is_for(params)), None)
        if plan is None or not plan.fits():
            old, plan = plan, GradientPlan(params, self._state.scale.device)
            if old is not None:
                plan.stage, plan.found_inf, plan.captured = old.stage, old.found_inf, old.captured
            self._plans = [plan, *(one for one in self._plans if one is not old)]
        return self._state.scale, plan

    def _check(self, scale: Tensor, plan: GradientPlan, optimizer: Any, divider: Divider, verb: str) -> None:
        if divider is not Divider.KEEPER and (narrow := plan.first_float16()) is not None:
            name = describe(optimizer.param_groups, narrow)
            raise ValueError(misuse.FP16_PARAMETER.format(verb=verb, name=name))
        unscaled = [other for other in self._plans if other is not plan and other.stage is not Stage.READY]
        if unscaled and (shared := plan.first_shared(unscaled)) is not None:
            raise RuntimeError(misuse.SHARED.format(verb=verb, name=describe(optimizer.param_groups, shared)))
        if not plan.check_and_unscale(reciprocal(scale) if divider is Divider.SCALER else self._one):
            raise RuntimeError(misuse.NO_GRADIENT.format(verb=verb))
        if self.rule.reads:
            seen = plan.stats(histogram=self.rule.reads == "histogram")
            self._seen = seen if self._seen is None else self._seen.with_more(seen)
        if self._check_again:  # also catches a scale so small that its reciprocal is Inf
            plan.check_and_unscale(self._one)
        if several_ranks():
            dist.all_reduce(plan.found_inf, op=dist.ReduceOp.MAX)
