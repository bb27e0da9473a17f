"""`Application`: what `Policy.apply` returns, to be entered by a with statement."""

import warnings
from contextlib import AbstractContextManager
from typing import Any

from torch import nn


class Application:
    """What `Policy.apply` returns: a context manager that warns if nobody enters it, since then it does nothing."""

    def __init__(self, run: AbstractContextManager[nn.Module]) -> None:
        self._run = run
        self._entered = False

    def __enter__(self) -> nn.Module:
        self._entered = True
        return self._run.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._run.__exit__(*error)

    def __del__(self) -> None:
        if not self._entered:
            warnings.warn(
                "policy.apply(model) was called without `with`, so nothing ran under the policy; "
                "write: with policy.apply(model): loss = …",
                RuntimeWarning,
                stacklevel=2,
            )
