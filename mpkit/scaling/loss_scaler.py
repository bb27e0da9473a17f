"""Drive a scaling rule in a training step, with the verbs of `torch.amp.GradScaler`.

    scaler.scale(loss).backward();  result = scaler.step(optimizer);  scaler.update()

All state lives on the device. An optimizer that supports it (`fused=True`) steps without a wait for the device;
any other needs one read of `found_inf` a step, because Python has to decide whether to call it.
"""

import weakref
from typing import Any

import torch
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.check import check, needs_quotient, require_fit
from mpkit.scaling.divider import Divider, divider_of, skips_by_itself, step_fused
from mpkit.scaling.grad_scaler_names import GradScalerNames
from mpkit.scaling.grad_scaler_rule import NUMBERS, chosen_rule
from mpkit.scaling.gradient_plan import GradientPlan, Stage
from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.iteration import Iteration
from mpkit.scaling.memory import ScaleMemory
from mpkit.scaling.rule import ScaleRule
from mpkit.scaling.state_tensors import StateTensors
from mpkit.scaling.step_result import StepResult
from mpkit.trees import map_leaves, to_device


class LossScaler(GradScalerNames):
    """Scale the loss, unscale and test the gradients, skip a bad step, adapt the scale.

    With several ranks (`torch.distributed`) they agree on every skip.
    For a CUDA graph, run one whole step before the capture and use a fused optimizer.

    Args:
        rule: how the scale changes, default `DynamicScale()`. With `NoScaling()` the scale stays 1 and the test for
            Inf and NaN still runs. A device in its place, "cuda" or "cpu", asks for `torch.amp.GradScaler`'s rule, the
            preset "torch". The scaler serves wherever the first loss is, also where GradScaler("cuda") disables itself.
        init_scale, growth_factor, backoff_factor, growth_interval: GradScaler's numbers, for its rule; None is its
            default. They cannot be set beside a rule, which has its own.
        enabled: False makes `scale` return what it is given and `step` only step: nothing is tested, and `get_scale()`
            is 1. The state is empty then, and a state that is loaded is ignored, as GradScaler does.
        device: GradScaler's, by name.

    Raises:
        TypeError: no rule, or no device. ValueError: arguments without sense, or that contradict each other.
    """

    def __init__(
        self,
        rule: ScaleRule | str | torch.device | None = None,
        init_scale: float | None = None,
        growth_factor: float | None = None,
        backoff_factor: float | None = None,
        growth_interval: int | None = None,
        enabled: bool = True,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        numbers = dict(zip(NUMBERS, (growth_factor, backoff_factor, growth_interval), strict=True))
        self._memory = ScaleMemory(chosen_rule(rule, device, {"init_scale": init_scale, **numbers}))
        if enabled not in (True, False):
            raise ValueError(misuse.NOT_A_SWITCH.format(got=enabled))
        self._enabled = bool(enabled)
        self._seen: GradientStats | None = None  # this iteration's gradients, for rules that read them
        self._iteration = Iteration()
        self._results: list[weakref.ref[StepResult]] = []

    def __repr__(self) -> str:
        return f"LossScaler({self.rule!r}{'' if self._enabled else ', enabled=False'})"

    def __getstate__(self) -> dict[str, Any]:
        """Let copy.deepcopy and pickle work between iterations; the copy sorts the parameters it meets anew."""
        self.state_dict()  # refuses in the middle of an iteration
        return {**self.__dict__, "_iteration": Iteration(), "_results": []}

    def scale(self, outputs: Any) -> Any:
        """Multiply a loss by the scale; a list, tuple or dict of tensors has each of them multiplied.

        Float16 gives float32, whatever its shape: 1.0 times 2**16 is Inf in float16. TypeError: no floating tensor.
        """
        if not self._enabled:
            return outputs
        for held in self._results:
            if (result := held()) is not None:
                result.release()
        self._results.clear()
        self._iteration.scales()
        return map_leaves(self._scaled, outputs)

    def _scaled(self, outputs: Any) -> Tensor:
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            got = f"a tensor of {outputs.dtype}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise TypeError(misuse.NOT_FLOATING.format(got=got))
        scale = self._memory.on_device(outputs.device)
        with torch._C.DisableTorchFunction():  # no active mode may round the product
            wide = outputs.float() if outputs.dtype == torch.float16 else outputs
            return wide * to_device(scale, outputs.device)

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the optimizer's gradients by the scale in place and test them; for clipping before `step`.

        Once an iteration, after the last `backward`. No wait for the device, except for sparse gradients.
        RuntimeError: called at the wrong time, or no parameter has a gradient. ValueError: a float16 parameter.
        """
        if not self._enabled:
            return
        tensors, plan = self._plan(optimizer, "unscale_()")
        if plan.stage is not Stage.READY:
            raise RuntimeError(misuse.UNSCALED_TWICE if plan.stage is Stage.UNSCALED else misuse.UNSCALED_LATE)
        self._check(tensors, plan, optimizer, Divider.SCALER, "unscale_()")
        plan.stage = Stage.UNSCALED
        plan.mark()

    def step(self, optimizer: torch.optim.Optimizer, closure: Any = None, **options: Any) -> StepResult:
        """Unscale (unless done), test, and call `optimizer.step(**options)` if every gradient is finite.

        A fused optimizer is always called and skips on the device: no wait. For any other, one read of found_inf.
        What the optimizer returns is dropped; GradScaler returns that.
        RuntimeError: called at the wrong time, with a closure, or without a gradient. ValueError: a float16 parameter.
        """
        if not self._enabled:
            optimizer.step(*([] if closure is None else [closure]), **options)
            return StepResult.untested(optimizer.param_groups)
        if closure is not None:
            raise RuntimeError(misuse.CLOSURE)
        tensors, plan = self._plan(optimizer, "step()")
        if plan.stage is Stage.STEPPED:
            raise RuntimeError(misuse.STEPPED_TWICE)
        divider = Divider.SCALER  # in unscale_, if that was called
        if plan.stage is Stage.READY:
            divider = divider_of(optimizer, needs_quotient(self.rule))
            self._check(tensors, plan, optimizer, divider, "step()")
        gathered, plan.gathered, plan.stage = plan.gathered, [], Stage.STEPPED
        known: bool | None = None
        plan.optimizer = weakref.ref(optimizer)
        try:
            if skips_by_itself(optimizer):
                flag = plan.found_inf if self.rule.skips else torch.zeros_like(plan.found_inf)
                step_fused(optimizer, None if divider is Divider.SCALER else tensors.scale, flag, options)
            elif not self.rule.skips or not (known := bool(plan.found_inf)):
                optimizer.step(**options)
        finally:
            plan.mark()
        outcome = torch.stack((tensors.scale, plan.found_inf))  # a copy: both tensors go on changing
        result = StepResult(outcome, known, self.rule.skips, gathered, optimizer.param_groups)
        self._results.append(weakref.ref(result))
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Let the rule adapt the scale to what this iteration's optimizers found. Ends the iteration.

        One optimizer's overflow shrinks the scale for all, but skips only its own step. A rule that reads gradients or
        remembers more than the scale (`rule.on_device` is False) waits for the device. ScaleExhausted: it gave up.
        `new_scale` sets the scale instead, whatever was found; a tensor is read, which waits. ValueError: the rule
        cannot have this scale.
        """
        if not self._enabled:
            return
        if (tensors := self._memory.tensors) is None:
            raise RuntimeError(misuse.NO_SCALE.format(verb="update()"))
        found_inf = self._iteration.found_inf() if new_scale is None else None
        try:
            if found_inf is not None:
                self._memory.adapt(tensors, found_inf, self._seen)
            elif new_scale is not None:
                self._memory.set_scale(new_scale)
        finally:  # also when the rule gives up: the iteration is over
            self._seen = None
            self._iteration.end()

    def abandon(self) -> None:
        """Drop the iteration in progress, for example after an interrupt.

        Stages and found_inf are reset, the scale stays. Then call `optimizer.zero_grad()`: a gradient may be unscaled.
        """
        self._seen = None
        self._iteration.abandon()

    def get_scale(self) -> float:
        """Read the scale; waits for the device. 1.0 if this scaler is not enabled."""
        return self._memory.read_scale() if self._enabled else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return the rule and all that it remembers, as plain values: enough to resume exactly.

        Waits for the device. RuntimeError: between unscale_ or step and update. With GradScaler's rule it has
        GradScaler's fields too, so that a GradScaler can load it. {} if this scaler is not enabled.
        """
        if not self._enabled:
            return {}
        if self._iteration.under_way:
            raise RuntimeError(misuse.MID_ITERATION)
        return self._memory.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state, a GradScaler's too; an iteration in progress is dropped.

        GradScaler's rule takes over the numbers in the state, as GradScaler does; any other rule has to be that of the
        state. A scaler that is not enabled ignores it.
        ValueError: the state comes from another rule (any field counts), is empty, or no run can have it.
        """
        if not self._enabled:
            return
        self._memory.load(state)
        self.abandon()

    def _found_inf_per_device(self, optimizer: torch.optim.Optimizer) -> dict[torch.device, Tensor]:
        _, plan = self._plan(optimizer, "_found_inf_per_device()")
        return {} if plan.stage is Stage.READY else {plan.found_inf.device: plan.found_inf}

    def _plan(self, optimizer: torch.optim.Optimizer, verb: str) -> tuple[StateTensors, GradientPlan]:
        if (tensors := self._memory.tensors) is None:
            raise RuntimeError(misuse.NO_SCALE.format(verb=verb))
        return tensors, self._iteration.plan_of(optimizer, verb, tensors.scale.device)

    def _check(self, tensors: StateTensors, plan: GradientPlan, optimizer: Any, divider: Divider, verb: str) -> None:
        others = [other for other in self._iteration.under_way if other is not plan]
        require_fit(plan, others, optimizer, divider, verb)
        seen = check(plan, tensors, self.rule, divider, verb)
        self._seen = seen if self._seen is None or seen is None else self._seen.with_more(seen)
