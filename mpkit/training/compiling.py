"""A function under torch.compile, apart from every other: what one run compiles is not counted against the next."""

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, TypeVar

import torch

from mpkit.policy.policy import Policy

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function`, compiled when it is first called, for the shapes that it sees.

    Torch keeps what it compiled with the function's code, and gives up, in silence, at the eighth version of one code
    (torch._dynamo.config.recompile_limit). A loop that trains nine models would train the ninth one slowly. So each
    call of this function makes a code of its own, which ends with what it returns.

    `function`: a Python function; what it closes over is looked at, not copied. Shapes are taken as fixed: each new
    shape compiles once more, and is then as fast as the first.
    """
    assert isinstance(function, FunctionType)
    code: CodeType = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return torch.compile(own, dynamic=False)  # type: ignore[return-value]


def why_not(policy: Policy, engine: str) -> str | None:
    """Why a step under this policy and engine cannot be compiled, and what to do, in a sentence; None if it can."""
    if engine == "emulated" and policy != Policy():
        return (
            "compile=True compiles what the hardware does, and emulation rounds in Python, where a compiler does not "
            'see it; use engine="native" on a GPU, or leave compile away.'
        )
    if engine == "native" and policy.kind == "low forward":
        return (
            "compile=True cannot compile a backward pass in another format than the forward pass (the policy "
            '"article"); use Policy.preset("fp16-mixed"), or leave compile away.'
        )
    return None
