"""How far each optimizer is in the current iteration, and what was found in its gradients."""

import functools
import itertools
from typing import Any

import torch
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.gradient_plan import GradientPlan, Stage


class Iteration:
    """The plans of all optimizers.

    One for each list of parameters, so that an optimizer and its wrapper share one. A second optimizer over the same
    list gets a plan of its own when it comes with gradients of its own.
    """

    def __init__(self) -> None:
        self.plans: list[GradientPlan] = []

    def plan_of(self, optimizer: Any, verb: str, device: torch.device) -> GradientPlan:
        """The optimizer's plan, sorted anew if its parameters are other ones now. TypeError: it is no optimizer."""
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(misuse.NOT_AN_OPTIMIZER.format(verb=verb, got=type(optimizer).__name__))
        params = list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))
        fitting = (plan for plan in self.plans if plan.is_for(params))
        plan = next((plan for plan in fitting if not plan.is_over(optimizer)), None)
        if plan is None or not plan.fits():
            old, plan = plan, GradientPlan(params, device)
            if old is not None:
                plan.stage, plan.found_inf, plan.captured = old.stage, old.found_inf, old.captured
                plan.marks, plan.scaled_since = old.marks, old.scaled_since
            self.plans = [plan, *(one for one in self.plans if one is not old)]
        return plan

    def scales(self) -> None:
        """A loss is scaled: what is written to a gradient from now on may be a new gradient."""
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
