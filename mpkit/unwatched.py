"""A mark for functions that look at values on somebody's behalf: no step of the training that may be going on."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

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
