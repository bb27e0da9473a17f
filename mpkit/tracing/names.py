"""What an operation is called, and which line of the user's code asked for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mpkit import casting, rounding
from mpkit.tracing.event import Where

TORCH = str(Path(torch.__file__).parent) + os.sep
MPKIT = str(Path(__file__).parents[1]) + os.sep
# Parts of mpkit that look at values which the trace has judged already, or will.
SILENT = frozenset({"overflow.py", "histogram.py", "gradient_plan.py", "snapshots.py", "ledger.py", "extremes.py"})

# Fine in, fine out: these neither make values larger nor invent NaN, so without a format they need no look.
NEVER_WORSE = frozenset(
    "relu relu_ tanh hardtanh max_pool1d max_pool2d max_pool3d adaptive_max_pool2d cat stack clone contiguous".split()
)
# They fill their result with whatever was in memory.
UNINITIALISED = frozenset({"empty_like", "new_empty", "new_empty_strided", "resize_", "resize_as_"})
# Their gradients are the incoming ones, or 0.
SAME_VALUES = tuple(
    "TBackward ViewBackward TransposeBackward PermuteBackward UnsqueezeBackward SqueezeBackward AliasBackward "
    "ReshapeAliasBackward UnsafeViewBackward CloneBackward CatBackward ReluBackward".split()
)

Place = tuple[str, int]


def operation_name(func: Callable[..., Any]) -> str | None:
    """The function's own name; None for attributes such as `x.T` and `x.grad`, which compute nothing."""
    name: str = getattr(func, "__name__", "")
    if name in ("", "__get__", "__set__", "detach", "detach_", "backward"):
        return None
    return name


def readable_name(name: str) -> str:
    """`__matmul__` and `__rmatmul__` are matmul."""
    if not name.startswith("__"):
        return name
    name = name.strip("_")
    return name[1:] if name in ("rdiv", "rtruediv", "rsub", "rpow", "rmatmul", "radd", "rmul") else name


def locate() -> tuple[Place, str | None, bool]:
    """Walk up the stack: (user's line, format if mpkit.casting is at work, whether to keep silent)."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _owner(frame.f_code.co_filename) in ("torch", "trace"):
        frame = frame.f_back
    nearest = _owner(frame.f_code.co_filename)
    fmt = None
    while frame.f_back is not None and (
        _owner(frame.f_code.co_filename) != "user" or frame.f_code.co_name == "__torch_function__"
    ):  # another function mode that calls torch is not the line that a user looks for
        if nearest == "casting" and fmt is None and _owner(frame.f_code.co_filename) == "casting":
            fmt = frame.f_locals.get("fmt")
        frame = frame.f_back
    cast_format = (str(fmt) if fmt else "another format") if nearest == "casting" else None
    return (frame.f_code.co_filename, frame.f_lineno), cast_format, nearest == "silent"


def readable_line(place: Place) -> str:
    """ "file name:line". A notebook's cells live in files with meaningless names, so they are called "cell"."""
    name = os.path.basename(place[0])
    if "ipykernel" in place[0] or name.startswith("<"):
        name = "cell"
    return f"{name}:{place[1]}"


CONVERSIONS = frozenset({"to", "type", "half", "float", "double", "bfloat16"})


@cache
def _owner(filename: str) -> str:
    """Whose file it is: torch, trace, casting, silent, mpkit or user."""
    if filename.startswith(TORCH):
        return "torch"
    if not filename.startswith(MPKIT):
        return "user"
    if filename in (casting.__file__, rounding.__file__):
        return "casting"
    name = os.path.basename(filename)
    if name in SILENT:
        return "silent"
    return "trace" if name in ("watch.py", "names.py") else "mpkit"


def where_of(node: Any, where: Where) -> Where:
    """The rounding of a gradient, by emulation or by a real conversion, is an operation of its own."""
    name = node.name()
    if name.startswith("FakeCast"):
        return Where(where.module, f"cast to {node.settings[0] or 'its own format'}", where.line)
    if name.startswith("ToCopy") and not where.operation.startswith("cast") and where.operation not in CONVERSIONS:
        return Where(where.module, f"cast in {where.operation}", where.line)
    return where
