"""How far each optimizer is in the current iteration, and what was found in its gradients."""

import functools
import itertools
import weakref
from typing import Any

import torch
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.agreement import Agreement, reduce
from mpkit.scaling.gradient_plan import GradientPlan, Stage
from mpkit.scaling.step_result import StepResult


def params_of(optimizer: Any) -> list[Tensor]:
    """All parameters of an optimizer, in its order."""
    return list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))


class Iteration:
    """The plans of all optimizers.

    One for each list of parameters, so that an optimizer and its wrapper share one. A second optimizer over the same
    list gets a plan of its own when it comes with gradients of its own.
    """

    def __init__(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self.plans: list[GradientPlan] = []
        self.results: list[weakref.ref[StepResult]] = []  # of the last steps; they hold gradients

    def plan_of(self, optimizer: Any, verb: str, device: torch.device | None) -> GradientPlan:
        """The optimizer's plan, sorted anew if its parameters are other ones now.

        `device`: where the scale is. RuntimeError: nowhere yet; other processes that wait for this one are told first.
        TypeError: it is no optimizer.
        """
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(misuse.NOT_AN_OPTIMIZER.format(verb=verb, got=type(optimizer).__name__))
        params = params_of(optimizer)
        if device is None:
            here = next((p.device for p in params), torch.device("cpu"))
            reduce(torch.ones((), dtype=torch.float32, device=here), self.agreement.groups(params))
            raise RuntimeError(misuse.NO_SCALE.format(verb=verb))
        fitting = (plan for plan in self.plans if plan.is_for(params))
        plan = next((plan for plan in fitting if not plan.is_over(optimizer)), None)
        if plan is None or not plan.fits():
            old, plan = plan, GradientPlan(params, device, self.agreement.groups(params))
            if old is not None:
                plan.stage, plan.found_inf, plan.captured = old.stage, old.found_inf, old.captured
                plan.evidence, plan.marks, plan.scaled_since = old.evidence, old.marks, old.scaled_since
            self.plans = [plan, *(one for one in self.plans if one is not old)]
        return plan

    def scales(self) -> None:
        """A loss is scaled: what is written to a gradient from now on may be new, and results let go of the old."""
        for held in self.results:
            if (result := held()) is not None:
                result.release()
        self.results.clear()
        for plan in self.plans:
            plan.scaled_since = True

    @property
    def under_way(self) -> list[GradientPlan]:
        """The plans of the optimizers that were unscaled or stepped in this iteration."""
        return [plan for plan in self.plans if plan.stage is not Stage.READY]

    def found_inf(self) -> Tensor:
        """Was there Inf or NaN in any of their gradients? RuntimeError: none was looked at."""
        flags = [plan.found_inf for plan in self.under_way]
        if not flags:
            raise RuntimeError(misuse.NOT_STEPPED)
        return functools.reduce(torch.maximum, flags)

    def end(self) -> None:
        """Be ready for the next. An optimizer that sat it out is forgotten, so that no old model is kept alive."""
        self.plans = [plan for plan in self.plans if plan.captured or plan.stage is not Stage.READY]
        self.abandon()

    def abandon(self) -> None:
        """Reset all stages and flags."""
        for plan in self.plans:
            plan.reset()
