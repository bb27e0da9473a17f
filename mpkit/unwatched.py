"""A mark for functions that look at values on somebody's behalf: no step of the training that may be going on."""

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

P = ParamSpec("P")
R = TypeVar("R")


def unwatched(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: inside `function` no torch function mode is asked, whether it traces, emulates or is a user's own.

    So `mpkit.trace` reports nothing that a count of bad values computes, and a policy rounds nothing of it.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():  # a graph has no modes to ask
            return function(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    return run


def aside() -> AbstractContextManager[Any]:
    """A block in which no torch function mode is asked, and no transform of torch.func wraps what is computed."""
    modes: AbstractContextManager[Any] = torch._C.DisableTorchFunction()
    if not torch._C._are_functorch_transforms_active():
        return modes
    stack = ExitStack()
    stack.enter_context(modes)
    stack.enter_context(temporarily_clear_interpreter_stack())
    return stack


def uncompiled() -> AbstractContextManager[Any]:
    """A block in which compiled functions and models run as they are written: what a compiler makes asks no mode."""
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled, and to load it takes a second
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
