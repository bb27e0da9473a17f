"""Drive a scaling rule in a training step, with the verbs of `torch.amp.GradScaler`.

    scaler.scale(loss).backward();  result = scaler.step(optimizer);  scaler.update()

All state lives on the device. An optimizer that supports it (`fused=True`) steps without a wait for the device;
any other needs one read of `found_inf` a step, because Python has to decide whether to call it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.agreement import Agreement
from mpkit.scaling.check import check, needs_quotient, scales
from mpkit.scaling.divider import Divider, divider_of, step_if_finite
from mpkit.scaling.evidence import Evidence
from mpkit.scaling.grad_scaler_names import GradScalerNames
from mpkit.scaling.grad_scaler_rule import NUMBERS, chosen_rule, switch
from mpkit.scaling.gradient_plan import GradientPlan, Stage
from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.iteration import Iteration
from mpkit.scaling.memory import ScaleMemory
from mpkit.scaling.rule import ScaleRule
from mpkit.scaling.state_tensors import StateTensors
from mpkit.scaling.step_result import StepResult
from mpkit.trees import map_leaves, to_device

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class LossScaler(GradScalerNames):
    """Scale the loss, unscale and test the gradients, skip a bad step, adapt the scale.

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
        process_group: which processes of `torch.distributed` agree on a skip: all of them skip if one finds Inf or NaN.
            "auto": those that share a DTensor of the optimizer (FSDP2, tensor parallelism), over its whole mesh, and no
            others. Plain gradients agree by themselves under DDP: a sum with Inf or NaN in it is not finite anywhere.
            They do not where a process has gradients of its own (FSDP1, ZeRO, shards by hand, pipelines, `no_sync`), or
            where Inf comes after DDP's sum (a hook, clipping by a local norm): pass a group there, whose processes
            all call `unscale_` and `step` alike. None: never. Scales stay equal where skips do.

    Raises:
        TypeError: no rule, no device, no group. ValueError: arguments without sense, or that contradict each other.
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
        process_group: ProcessGroup | Literal["auto"] | None = "auto",
    ) -> None:
        numbers = dict(zip(NUMBERS, (growth_factor, backoff_factor, growth_interval), strict=True))
        self._memory = ScaleMemory(chosen_rule(rule, device, {"init_scale": init_scale, **numbers}))
        self._enabled = switch(enabled)
        self._seen: GradientStats | None = None  # this iteration's gradients, for rules that read them
        self._iteration = Iteration(Agreement(process_group))

    def __repr__(self) -> str:
        return f"LossScaler({self.rule!r}{'' if self._enabled else ', enabled=False'})"

    def __getstate__(self) -> dict[str, Any]:
        """Let copy.deepcopy and pickle work between iterations; the copy sorts the parameters it meets anew."""
        self.state_dict()  # refuses in the middle of an iteration
        return {**self.__dict__, "_iteration": Iteration(self._iteration.agreement)}

    def scale(self, outputs: Any) -> Any:
        """Multiply a loss by the scale; a list, tuple or dict of tensors has each of them multiplied.

        Float16 gives float32, whatever its shape: 1.0 times 2**16 is Inf in float16. TypeError: no floating tensor.
        """
        if not self._enabled:
            return outputs
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

        Once an iteration, after the last `backward`. Of sparse gradients duplicates are added first, which waits.
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
        plan.evidence.note(plan.found_inf)

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
        else:
            plan.evidence.doubt()
        evidence, plan.stage, plan.optimizer = plan.evidence, Stage.STEPPED, weakref.ref(optimizer)
        try:
            scale = tensors.scale if divider is not Divider.SCALER and scales(self.rule) else None
            known = step_if_finite(optimizer, scale, plan.found_inf, self.rule.skips, options)
        finally:
            plan.mark()
            plan.evidence = Evidence([], [])  # the result alone holds the gradients, if somebody keeps it
        if known is not None:
            evidence.settle(known)
        outcome = torch.stack((tensors.scale, plan.found_inf))  # a copy: both tensors go on changing
        result = StepResult(outcome, known, self.rule.skips, evidence)
        self._iteration.results.append(weakref.ref(result))
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
        try:
            if new_scale is None:
                self._memory.adapt(tensors, self._iteration.found_inf(), self._seen)
            else:
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

    def _plan(self, optimizer: torch.optim.Optimizer, verb: str) -> tuple[StateTensors, GradientPlan]:
        tensors = self._memory.tensors
        plan = self._iteration.plan_of(optimizer, verb, None if tensors is None else tensors.scale.device)
        assert tensors is not None  # else there was an error just now
        return tensors, plan

    def _check(self, tensors: StateTensors, plan: GradientPlan, optimizer: Any, divider: Divider, verb: str) -> None:
        seen = check(plan, self._iteration.under_way, optimizer, tensors, self.rule, divider, verb)
        plan.evidence, plan.gathered = Evidence(plan.gathered, optimizer.param_groups), []
        self._seen = seen if self._seen is None or seen is None else self._seen.with_more(seen)
