"""Policies inside policies: the innermost one holds, and the others rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch


class Mode(Protocol):
    """Something that changes what operations do while it is active."""

    shadowed: bool  # while another policy is active inside this one


ACTIVE: list[Mode] = []


@contextmanager
def active(mode: Mode) -> Iterator[None]:
    """`mode` can be told to rest from now on, until the block ends."""
    ACTIVE.append(mode)
    try:
        yield
    finally:
        ACTIVE.remove(mode)


@contextmanager
def replacing(device: str) -> Iterator[None]:
    """What is active now rests inside this block, torch.autocast for this kind of device included."""
    outer = [mode for mode in ACTIVE if not mode.shadowed]
    for mode in outer:
        mode.shadowed = True
    try:
        with _without_autocast(device):
            yield
    finally:
        for mode in outer:
            mode.shadowed = False


@contextmanager
def _without_autocast(device: str) -> Iterator[None]:
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        yield
        return
    # Its cache of low weights does not know their dtype, and is emptied only when the outermost block ends.
    torch.clear_autocast_cache()
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.clear_autocast_cache()
