"""A panel's settings: what can be chosen, and what is said to anything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OWN = "own"  # of a rule: what its library chose


def offered(name: str, value: Any, values: Sequence[Any]) -> Any:
    """`value`, if it is one of `values`. ValueError: it is not; the text calls it `name`."""
    if value not in values or value == OWN:
        known = ", ".join(str(one) for one in values if one != OWN)
        raise ValueError(f"{name} {value!r} is not in this panel; use one of {known}.")
    return value
