"""Read back what a rule remembered, from a checkpoint."""

import dataclasses
import math
from typing import Any

import torch

from mpkit.scaling import misuse
from mpkit.scaling.rule import ScaleRule, ScaleState, as_float32

LARGEST = torch.finfo(torch.float32).max


def read_state(state: dict[str, Any], rule: ScaleRule) -> ScaleState:
    """The rule's state out of a `LossScaler.state_dict()`. ValueError: another rule's, or no such thing."""
    start = rule.init()
    try:
        saved, scale, tracker = state["rule"], state["scale"], state["growth_tracker"]
        lowest = min(start.growth_tracker, 0)  # a rule that is late to grow counts from below zero
        fits = _number(scale) and _number(tracker, int) and lowest <= tracker < 2**31
        fits = fits and (0.0 <= scale <= LARGEST or getattr(rule, "grow_to_inf", False))
        if saved == rule.state_dict():
            fits = fits and scale >= as_float32(rule.floor or 0.0) and _remembered(state, start, rule)
    except (KeyError, TypeError):
        fits = False
    if not fits:
        raise ValueError(misuse.BAD_STATE.format(got=state))
    if saved != rule.state_dict():
        raise ValueError(misuse.OTHER_RULE.format(saved=saved, here=rule.state_dict()))
    return dataclasses.replace(start, **{name: state[name] for name in dataclasses.asdict(start)})


def _number(value: object, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value == value  # NaN does not equal itself


def _remembered(state: dict[str, Any], start: ScaleState, rule: ScaleRule) -> bool:
    """Are the fields that only this rule has there, and of the kind that it writes?"""
    for name, value in dataclasses.asdict(start).items():
        if name in ("scale", "growth_tracker"):
            continue
        given = state[name]
        if not _number(given, int if isinstance(value, int) else (int, float)) or math.isinf(given):
            return False
        if isinstance(value, int) and given < 0:
            return False
    return bool(1 <= state.get("hysteresis_tracker", 1) <= getattr(rule, "hysteresis", 1))
