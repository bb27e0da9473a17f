"""Generators of random numbers that a step keeps for itself: found where it can reach them, and rewound."""

from __future__ import annotations

import random
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

MOST = 10_000  # objects that are looked at; a list of samples has no generator behind its first hundreds
FEW = 256  # of one list or dict
# Functions of these keep nothing of a script, which is a module of its own.
FOREIGN = {"torch", "numpy", "mpkit", *sys.stdlib_module_names} - {"__main__"}
OWN = frozenset(vars(nn.Module()))


def generators_in(*things: Any) -> list[Any]:
    """Those of torch, NumPy and Python that these hold.

    As attributes, in lists and dicts, in what a function has closed over, its defaults, and the globals that it names.
    """
    found, waiting, seen = [], list(things), set[int]()
    while waiting and len(seen) < MOST:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, Tensor | str | bytes | type | int | float | types.ModuleType):
            continue
        seen.add(id(thing))
        if _state_of(thing) is not None:
            found.append(thing)
        else:
            waiting += _parts(thing)
    return found


def rewinding(generator: Any) -> Callable[[], Any]:
    """A function that puts it back to its state of now."""
    get, put = _state_of(generator) or (lambda: None, lambda state: None)
    return partial(put, get())


def _state_of(thing: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
    """How its state is read, and set; None: it is no generator, or one without a state."""
    if isinstance(thing, torch.Generator):
        return lambda: thing.get_state().clone(), thing.set_state
    if isinstance(thing, random.Random):
        return None if isinstance(thing, random.SystemRandom) else (thing.getstate, thing.setstate)
    numpy = sys.modules.get("numpy.random")
    if numpy is not None and isinstance(thing, numpy.RandomState):
        return lambda: thing.get_state(legacy=False), thing.set_state
    if numpy is not None and isinstance(thing, numpy.Generator):
        bits = thing.bit_generator
        return lambda: bits.state, lambda state: setattr(bits, "state", state)
    return None


def _parts(thing: Any) -> Iterable[Any]:
    if isinstance(thing, dict):
        return list(islice(thing.values(), FEW))
    if isinstance(thing, list | tuple | set | frozenset):
        return list(islice(thing, FEW))
    if isinstance(thing, types.FunctionType):
        return [] if str(thing.__module__).split(".")[0] in FOREIGN else _reached(thing)
    if isinstance(thing, types.MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, nn.Module):
        return [part for one in thing.modules() for name, part in vars(one).items() if name not in OWN]
    if isinstance(thing, torch.optim.Optimizer):
        return []
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    held = [getattr(thing, name, None) for name in slots if isinstance(name, str)]
    held += [type(thing).__call__] if callable(thing) else []  # of an object that is the step
    return [*held, *getattr(thing, "__dict__", {}).values()]


def _reached(function: types.FunctionType) -> Iterator[Any]:
    """What it has closed over, its defaults, and the globals that it names, also in functions inside of it."""
    yield from (cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType())
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        yield from (function.__globals__[name] for name in code.co_names if name in function.__globals__)
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
