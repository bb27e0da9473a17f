"""How far each optimizer is in the current iteration, and what was found in its gradients."""

import functools
import itertools
from typing import Any

import torch
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.gradient_plan import GradientPlan, Stage


class Iteration:
    """The plans of all optimizers, one for each list of parameters, so that an optimizer and its wrapper share one."""

    def __init__(self) -> None:
        self.plans: list[GradientPlan] = []

    def plan_of(self, optimizer: Any, verb: str, device: torch.device) -> GradientPlan:
        """The optimizer's plan, sorted anew if its parameters are other ones now. TypeError: it is no optimizer."""
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(misuse.NOT_AN_OPTIMIZER.format(verb=verb, got=type(optimizer).__name__))
        params = list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))
        plan = next((plan for plan in self.plans if plan.is_for(params)), None)
        if plan is None or not plan.fits():
            old, plan = plan, GradientPlan(params, device)
            if old is not None:
                plan.stage, plan.found_inf, plan.captured = old.stage, old.found_inf, old.captured
            self.plans = [plan, *(one for one in self.plans if one is not old)]
        return plan

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
