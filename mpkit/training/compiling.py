"""A function under torch.compile, apart from every other: what one run compiles is not counted against the next."""

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, TypeVar

import torch

from mpkit.policy.policy import Policy

KNOWS_AUTOCAST = torch.__version__ >= "2.13"  # compared as versions, not as text
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function`, compiled when it is first called, for the shapes that it sees.

    Torch keeps what it compiled with the function's code, and after eight versions of one code
    (torch._dynamo.config.recompile_limit) it runs the function as it is, with one line in its log. A loop that trains
    nine models would train the ninth one slowly. So each call of this function makes a code of its own, which ends with
    what it returns. A model with graph breaks is compiled in pieces, which have the codes of its own functions, and
    share those.

    `function`: a Python function; what it closes over is looked at, not copied. Shapes are taken as fixed: up to eight
    of them are compiled, each as fast as the first; the ninth runs eagerly.
    """
    assert isinstance(function, FunctionType)
    code: CodeType = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return torch.compile(own, dynamic=False, backend=_inductor)  # type: ignore[return-value]


def _inductor(graph: Any, examples: Any) -> Any:
    """Torch's compiler, without its cache of whole training graphs where that mixes up formats.

    Before torch 2.13 the cache's key says that autocast is on, but not to which dtype, so that a model trained in BF16
    after FP16 runs in FP16 (github.com/pytorch/pytorch/pull/181564). The cache of kernels is not affected.
    """
    from torch._functorch import config as functorch  # both take a second to import, which only compiling needs
    from torch._inductor.compile_fx import compile_fx

    with functorch.patch(enable_autograd_cache=functorch.enable_autograd_cache and KNOWS_AUTOCAST):
        return compile_fx(graph, examples)


def why_not(policy: Policy, engine: str) -> str | None:
    """Why a step under this policy and engine cannot be compiled, and what to do, in a sentence; None if it can."""
    if engine == "emulated" and policy != Policy():
        return (
            "compile=True compiles what the hardware does, and emulation rounds in Python, where a compiler does not "
            'see it; use engine="native" on a GPU, or leave compile away.'
        )
    if engine == "native" and policy.kind() == "low forward":
        return (
            "compile=True cannot compile a backward pass in another format than the forward pass (the policy "
            '"article"); use Policy.preset("fp16-mixed"), or leave compile away.'
        )
    return None
