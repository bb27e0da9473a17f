"""The check of one optimizer's gradients: may they be divided, are they finite, and what does the rule read in them?"""

from typing import Any

import torch.distributed as dist

from mpkit.scaling import misuse
from mpkit.scaling.divider import Divider
from mpkit.scaling.gradient_plan import GradientPlan, describe, reciprocal, several_ranks
from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import ScaleRule
from mpkit.scaling.state_tensors import StateTensors


def needs_quotient(rule: ScaleRule) -> bool:
    """Does the rule look at the gradients after the division, before the step?"""
    return _tests_quotient(rule) or bool(rule.reads)


def _tests_quotient(rule: ScaleRule) -> bool:
    """Dividing by a scale of 1 or more cannot overflow, so then the first test says it all."""
    return rule.check_unscaled and not (rule.floor or 0.0) >= 1.0


def require_fit(plan: GradientPlan, others: list[GradientPlan], optimizer: Any, divider: Divider, verb: str) -> None:
    """ValueError: a float16 parameter. RuntimeError: one of the `others` has divided one of these gradients already."""
    if divider is not Divider.KEEPER and (narrow := plan.first_float16()) is not None:
        name = describe(optimizer.param_groups, narrow)
        raise ValueError(misuse.FP16_PARAMETER.format(verb=verb, name=name))
    for other in others:
        if (shared := plan.first_divided(by=other)) is not None:
            raise RuntimeError(misuse.SHARED.format(verb=verb, name=describe(optimizer.param_groups, shared)))


def check(
    plan: GradientPlan, tensors: StateTensors, rule: ScaleRule, divider: Divider, verb: str
) -> GradientStats | None:
    """Test the gradients, and divide them if that is the scaler's to do. Returns what `rule` reads in them, if it does.

    RuntimeError: there are none.
    """
    if not plan.check_and_unscale(reciprocal(tensors.scale) if divider is Divider.SCALER else tensors.one):
        raise RuntimeError(misuse.NO_GRADIENT.format(verb=verb))
    seen = plan.stats(histogram=rule.reads == "histogram") if rule.reads else None
    if _tests_quotient(rule):  # also catches a scale so small that its reciprocal is Inf
        plan.check_and_unscale(tensors.one)
    if several_ranks():
        dist.all_reduce(plan.found_inf, op=dist.ReduceOp.MAX)
    return seen
