"""Ways to break the library on purpose. Each injects one fault that someone could really make.

tests/lesson_NN/faults.py has
    FAULTS      name -> fault: some cell of the lesson must show each of them
    UNSEEN      names of faults that no cell of the lesson shows yet (unit tests do)
    UNPAINTED   (module, class) of figures that may be left out: text is compared, and drawing takes longest
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

Patch = pytest.MonkeyPatch
Fault = Callable[[Patch], None]


def collector(faults: dict[str, Fault]) -> Callable[[Fault], Fault]:
    """A decorator that adds one way to break the library to `faults`, under its own name."""

    def fault(inject: Fault) -> Fault:
        faults[inject.__name__] = inject
        return inject

    return fault


def swap(patch: Patch, original: Any, new: Any) -> None:
    """Put `new` in the place of `original` in every module of mpkit that has imported it."""
    ours = [module for name, module in list(sys.modules.items()) if name.split(".")[0] == "mpkit"]
    places = [(module, name) for module in ours for name, value in list(vars(module).items()) if value is original]
    assert places, f"nothing in mpkit is {original!r}"
    for module, name in places:
        patch.setattr(module, name, new)
