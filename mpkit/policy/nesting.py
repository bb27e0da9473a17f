"""Policies inside policies: the innermost one holds, and the others rest."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch


class Mode(Protocol):
    """Something that changes what operations do while it is active."""

    shadowed: bool  # while another policy is active inside this one


class Block:
    """A policy's block that has begun and not ended; `mode` is what it does to operations, if it does so by itself."""

    mode: Mode | None = None


class _Blocks(threading.local):
    """This thread's, the innermost last: torch's modes and autocast are a thread's own, too."""

    def __init__(self) -> None:
        self.begun: list[Block] = []

    def settle(self) -> None:
        for block in self.begun:
            if block.mode is not None:
                block.mode.shadowed = block is not self.begun[-1]


_blocks = _Blocks()


def innermost() -> Block | None:
    """The block that holds in this thread."""
    return _blocks.begun[-1] if _blocks.begun else None


@contextmanager
def replacing(device: str) -> Iterator[Block]:
    """A block in which all others of this thread rest, torch.autocast for this kind of device included."""
    block = Block()
    _blocks.begun.append(block)
    _blocks.settle()
    try:
        with _without_autocast(device):
            yield block
    finally:
        _blocks.begun.remove(block)
        _blocks.settle()


@contextmanager
def active(block: Block, mode: Mode) -> Iterator[None]:
    """`mode` is what `block` does."""
    block.mode = mode
    try:
        yield
    finally:
        block.mode = None


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
