"""`torch.amp.GradScaler`'s rule, and the arguments that ask for it."""

import dataclasses
from typing import Any

import torch

from mpkit.scaling import misuse
from mpkit.scaling.dynamic import DynamicScale
from mpkit.scaling.presets import preset
from mpkit.scaling.rule import ScaleRule

NUMBERS = ("growth_factor", "backoff_factor", "growth_interval")


def grad_scaler_rule(**numbers: Any) -> ScaleRule:
    """The preset "torch" with these numbers of GradScaler's: init_scale and NUMBERS."""
    return dataclasses.replace(preset("torch"), **numbers)


def is_grad_scalers(rule: ScaleRule) -> bool:
    """Is this the preset "torch", with whatever numbers? Then those may change, as GradScaler's do."""
    if not isinstance(rule, DynamicScale):
        return False
    return rule == grad_scaler_rule(**{name: getattr(rule, name) for name in ("init_scale", *NUMBERS)})


def chosen_rule(rule: object, device: object, numbers: dict[str, Any]) -> ScaleRule:
    """The rule that `LossScaler`'s arguments ask for: the one given, GradScaler's, or `DynamicScale()`.

    TypeError: no rule and no device. ValueError: arguments that contradict each other, or a number without sense.
    """
    given = {name: number for name, number in numbers.items() if number is not None}
    if isinstance(rule, str | torch.device):
        if device is not None:
            raise ValueError(misuse.TWO_DEVICES.format(first=rule, second=device))
        rule, device = None, rule
    if device is not None:
        _require_device(device)
    if isinstance(rule, ScaleRule):
        if given:
            raise ValueError(misuse.RULE_AND_NUMBERS.format(rule=rule, names=" and ".join(given)))
        return rule
    if rule is not None:
        raise TypeError(misuse.NOT_A_RULE.format(got=rule))
    return DynamicScale() if device is None and not given else grad_scaler_rule(**given)


def switch(enabled: object) -> bool:
    """True or False; 1 and 0 will do. ValueError: anything else, such as "no", which Python counts as true."""
    if enabled not in (True, False):
        raise ValueError(misuse.NOT_A_SWITCH.format(got=enabled))
    return bool(enabled)


def _require_device(device: object) -> None:
    try:
        torch.device(device)  # type: ignore[call-overload]
    except (RuntimeError, TypeError):
        raise TypeError(misuse.NOT_A_RULE.format(got=device)) from None
