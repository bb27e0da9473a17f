"""Read back what a rule remembered, from a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

from mpkit import misuse
from mpkit.scaling.rule import ScaleRule, ScaleState


def read_state(state: dict[str, Any], rule: ScaleRule) -> ScaleState:
    """The rule's state out of a `LossScaler.state_dict()`. ValueError: another rule's, or no such thing."""
    start = rule.init()
    try:
        saved, scale, tracker = state["rule"], state["scale"], state["growth_tracker"]
        lowest = min(start.growth_tracker, 0)  # a rule that is late to grow counts from below zero
        fits = 0.0 <= scale < float("inf") and tracker >= lowest and isinstance(tracker, int)
        fits = fits and (saved != rule.state_dict() or set(dataclasses.asdict(start)) <= set(state))
    except (KeyError, TypeError):
        fits = False
    if not fits:
        raise ValueError(misuse.BAD_STATE.format(got=state))
    if saved != rule.state_dict():
        raise ValueError(misuse.OTHER_RULE.format(saved=saved, here=rule.state_dict()))
    return dataclasses.replace(start, **{name: state[name] for name in dataclasses.asdict(start)})
