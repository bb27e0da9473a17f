"""`Application`: what `Policy.apply` returns, to be entered by a with statement."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ContextDecorator
from typing import Any

from torch import nn

from mpkit.policy.nesting import Block, innermost


class Application(ContextDecorator):
    """What `Policy.apply` returns: a context manager that warns if nobody enters it, since then it does nothing.

    As a `torch.autocast`, it can be entered again, also inside itself and in several threads, and be a decorator.
    `begin` makes what one entrance runs, and raises what `Policy.apply` raises if the model has changed since.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[nn.Module]]) -> None:
        self._begin = begin
        self._entered = False
        self._running: dict[Block | None, AbstractContextManager[nn.Module]] = {}  # blocks begun here and not ended

    def __enter__(self) -> nn.Module:
        self._entered = True
        run = self._begin()
        model = run.__enter__()
        self._running[innermost()] = run
        return model

    def __exit__(self, *error: Any) -> bool | None:
        if (run := self._running.pop(innermost(), None)) is None:
            raise RuntimeError("a policy's block ends while one that began inside it goes on; end that one first.")
        return run.__exit__(*error)

    def __del__(self) -> None:
        if not self._entered:
            warnings.warn(
                "policy.apply(model) was called without `with`, so nothing ran under the policy; "
                "write: with policy.apply(model): loss = …",
                RuntimeWarning,
                stacklevel=2,
            )
