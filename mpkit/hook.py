"""Hooks on a model that are somebody's for a while, and not part of the model."""

from collections.abc import Callable
from typing import Any


class Hook:
    """Calls `do`, but does nothing in a copy or a pickle of the model: what it is for goes on in the original."""

    def __init__(self, do: Callable[..., Any]) -> None:
        self.do = do

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model calls."""
        return self.do(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _copied, ()


def _copied() -> Callable[..., None]:
    return _nothing


def _nothing(*_: Any, **__: Any) -> None:
    """What a copied hook does."""
