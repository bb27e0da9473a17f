"""The check of one optimizer's gradients: may they be divided, are they finite, and what does the rule read in them?"""

from typing import Any

from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.agreement import reduce
from mpkit.scaling.bucket import describe
from mpkit.scaling.divider import Divider
from mpkit.scaling.gradient_plan import GradientPlan, reciprocal
from mpkit.scaling.gradient_stats import GradientStats
from mpkit.scaling.rule import ScaleRule
from mpkit.scaling.state_tensors import StateTensors


def needs_quotient(rule: ScaleRule) -> bool:
    """Does the rule look at the gradients after the division, before the step?"""
    return _tests_quotient(rule) or bool(rule.reads)


def scales(rule: ScaleRule) -> bool:
    """Can the scale be another than 1? A fused optimizer that is told to divide by 1 writes all gradients back."""
    return not rule.floor == rule.ceiling == 1.0


def _tests_quotient(rule: ScaleRule) -> bool:
    """Dividing by a scale of 1 or more cannot overflow, so then the first test says it all."""
    return rule.check_unscaled and not (rule.floor or 0.0) >= 1.0


def _require_fit(plan: GradientPlan, others: list[GradientPlan], optimizer: Any, divider: Divider, verb: str) -> None:
    """ValueError: a float16 parameter. RuntimeError: one of the `others` has divided one of these gradients already."""
    if divider is not Divider.KEEPER and (narrow := plan.first_float16()) is not None:
        name = describe(optimizer.param_groups, narrow)
        raise ValueError(misuse.FP16_PARAMETER.format(verb=verb, name=name))
    for other in others:
        if (shared := plan.first_divided(by=other)) is not None:
            raise RuntimeError(misuse.SHARED.format(verb=verb, name=describe(optimizer.param_groups, shared)))


def check(
    plan: GradientPlan,
    others: list[GradientPlan],
    optimizer: Any,
    tensors: StateTensors,
    rule: ScaleRule,
    divider: Divider,
    verb: str,
) -> GradientStats | None:
    """Test the gradients, divide them if that is the scaler's to do, and agree with the other processes.

    Returns what `rule` reads in the gradients, if it does. An error is raised after the agreement: other processes wait
    for this one there, and all of them skip the step that this one cannot take.
    RuntimeError: no gradient, or one of the `others` has divided one already. ValueError: a float16 parameter.
    """
    histogram = rule.reads == "histogram"
    try:
        _require_fit(plan, others, optimizer, divider, verb)
        if not plan.check_and_unscale(reciprocal(tensors.scale) if divider is Divider.SCALER else tensors.one):
            raise RuntimeError(misuse.NO_GRADIENT.format(verb=verb))
        seen = plan.stats(histogram) if rule.reads else None
        if _tests_quotient(rule):  # also catches a scale so small that its reciprocal is Inf
            plan.check_and_unscale(tensors.one)
    except Exception:
        _agree(plan, tensors.one.clone(), GradientStats.of((), histogram) if rule.reads else None)
        raise
    return _agree(plan, plan.found_inf, seen)


def _agree(plan: GradientPlan, found_inf: Tensor, seen: GradientStats | None) -> GradientStats | None:
    """Take the largest `found_inf` of the processes that agree, in place, and what all of them have seen."""
    reduce(found_inf, plan.groups)
    return None if seen is None else seen.over_ranks(found_inf.device, plan.groups)
