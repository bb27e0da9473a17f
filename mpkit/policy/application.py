"""`Application`: what `Policy.apply` returns, to be entered by a with statement."""

import warnings
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from mpkit.policy.nesting import Block, innermost


class Application:
    """What `Policy.apply` returns: a context manager that warns if nobody enters it, since then it does nothing."""

    def __init__(self, run: AbstractContextManager[nn.Module]) -> None:
        self._run = run
        self._entered = False
        self._block: Block | None = None

    def __enter__(self) -> nn.Module:
        if self._entered:
            raise RuntimeError("this block was entered before; begin another: with policy.apply(model):")
        self._entered = True
        model = self._run.__enter__()
        self._block = innermost()
        return model

    def __exit__(self, *error: Any) -> bool | None:
        if innermost() is not self._block:
            raise RuntimeError("a policy's block ends while one that began inside it goes on; end that one first.")
        return self._run.__exit__(*error)

    def __del__(self) -> None:
        if not self._entered:
            warnings.warn(
                "policy.apply(model) was called without `with`, so nothing ran under the policy; "
                "write: with policy.apply(model): loss = …",
                RuntimeWarning,
                stacklevel=2,
            )
