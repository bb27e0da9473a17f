"""Hooks on a model that are somebody's for a while, and not part of the model."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn


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


def around_modules(
    modules: Iterable[tuple[str, nn.Module]], enter: Callable[..., None], leave: Callable[..., None]
) -> list[Any]:
    """Have `enter(name, module, args, kwargs)` called before each module, and `leave(module, args, output)` after it.

    Returns the handles. `enter` comes before the module's other hooks, so that what these compute belongs to the
    module; but not for the model itself, the one without a name, whose parameters may have to be gathered first.
    `leave` is called also where forward raises.
    """
    handles: list[Any] = []
    for name, module in modules:
        before = Hook(partial(enter, name))
        handles.append(module.register_forward_pre_hook(before, prepend=bool(name), with_kwargs=True))
        handles.append(module.register_forward_hook(Hook(leave), always_call=True))
    return handles
