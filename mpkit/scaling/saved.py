"""Read back what a rule remembered, from a checkpoint: of a `LossScaler`, or of a `torch.amp.GradScaler`."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from mpkit.scaling import misuse
from mpkit.scaling.grad_scaler_rule import NUMBERS, grad_scaler_rule, is_grad_scalers
from mpkit.scaling.rule import ScaleRule, ScaleState, as_float32, require_scale

LARGEST = torch.finfo(torch.float32).max


def read_state(state: Any, rule: ScaleRule) -> tuple[ScaleRule, ScaleState]:
    """The rule to go on with and what it remembered, out of a `state_dict()`.

    That is `rule`. Only GradScaler's own rule takes the numbers of the state over, as GradScaler does.
    ValueError: another rule's state, or one that no run can have; the message names the field.
    """
    if not isinstance(state, dict):
        raise ValueError(misuse.NO_STATE.format(got=type(state).__name__))
    if not state:
        raise ValueError(misuse.EMPTY_STATE)
    if "rule" not in state and "_growth_tracker" in state:
        rule, state = _of_grad_scaler(state, rule)
    else:
        rule = _same_rule(_field(state, "rule"), rule)
    start = rule.init()
    read = {
        name: _remembered(name, _field(state, name), value, rule) for name, value in dataclasses.asdict(start).items()
    }
    return rule, dataclasses.replace(start, **read)


def grad_scaler_state(rule: ScaleRule, growth_tracker: float) -> dict[str, Any]:
    """What a GradScaler looks for in a state besides the scale, where the rule is its own; else nothing."""
    if not is_grad_scalers(rule):
        return {}
    return {**{name: getattr(rule, name) for name in NUMBERS}, "_growth_tracker": growth_tracker}


def _of_grad_scaler(state: dict[str, Any], rule: ScaleRule) -> tuple[ScaleRule, dict[str, Any]]:
    """The rule to go on with, and the state in our names."""
    saved = {name: _field(state, name) for name in NUMBERS}
    if is_grad_scalers(rule):
        rule = dataclasses.replace(rule, **saved)
    elif type(rule.init()) is not ScaleState or any(getattr(rule, name, None) != saved[name] for name in NUMBERS):
        raise ValueError(misuse.GRAD_SCALERS_STATE.format(saved=saved, here=rule))
    return rule, {"scale": _field(state, "scale"), "growth_tracker": state["_growth_tracker"]}


def _same_rule(saved: Any, rule: ScaleRule) -> ScaleRule:
    if is_grad_scalers(rule) and isinstance(saved, dict):
        numbers = {name: saved.get(name) for name in ("init_scale", *NUMBERS)}
        if {**rule.state_dict(), **numbers} == saved:
            rule = grad_scaler_rule(**numbers)
    if saved != rule.state_dict():
        raise ValueError(misuse.OTHER_RULE.format(saved=saved, here=rule.state_dict()))
    return rule


def _field(state: dict[str, Any], name: str) -> Any:
    if name not in state:
        raise ValueError(misuse.BAD_STATE.format(problem=f"{name!r} is missing; it has {', '.join(map(repr, state))}"))
    return state[name]


def _remembered(name: str, given: Any, start: Any, rule: ScaleRule) -> Any:
    """`given`, if a run of this rule can have remembered it in the field `name`. `start`: what it starts with."""
    whole = isinstance(start, int)
    low, high = -math.inf, LARGEST
    if name == "scale":
        low = as_float32(rule.floor or 0.0)
        high = math.inf if getattr(rule, "grow_to_inf", False) else LARGEST
        high = high if rule.ceiling is None else as_float32(rule.ceiling)
    elif name == "growth_tracker":
        low, high = min(start, 0), 2**31 - 1  # a rule that is late to grow counts from below zero
    elif name == "hysteresis_tracker":
        low, high = 1, getattr(rule, "hysteresis", 1)
    elif whole:
        low, high = 0, 2**31 - 1
    number = isinstance(given, int if whole else int | float) and not isinstance(given, bool)
    if not number or not low <= given <= high:  # NaN lies nowhere
        problem = f"{name!r} is {given!r}, not a {'whole ' if whole else ''}number from {low} to {high}"
        raise ValueError(misuse.BAD_STATE.format(problem=problem))
    return given


def settable(scale: float | Tensor, rule: ScaleRule) -> float:
    """`scale` as float32; a tensor of one element is read. ValueError: it is no scale, or `rule` cannot have it."""
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            raise ValueError(misuse.ONE_SCALE.format(got=f"a tensor of shape {tuple(scale.shape)}"))
        scale = float(scale)
    require_scale("new_scale", scale)
    low, high = rule.floor, rule.ceiling
    if not (low or 0.0) <= scale <= (high or math.inf):
        limits = f"at {low}" if low == high else f"from {low or 0.0} to {high or 'the largest of float32'}"
        raise ValueError(misuse.OUTSIDE.format(got=scale, rule=rule, limits=limits))
    return as_float32(scale)
