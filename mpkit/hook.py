"""Hooks on a model that are somebody's for a while, and not part of the model."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from torch import nn
from torch.utils.hooks import RemovableHandle


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


class _Around:
    """A hook before and one after each of many modules, under one number; `remove` takes them all away.

    `register_forward_hook` makes a handle for each: for hundreds of modules that takes longer than many a small step.
    """

    def __init__(self, before: Hook, after: Hook) -> None:
        self._before, self._after = before, after
        self._key = RemovableHandle(OrderedDict()).id  # no other hook has it
        self._modules: list[nn.Module] = []

    def add(self, module: nn.Module) -> None:
        """As register_forward_pre_hook(prepend, with_kwargs) and register_forward_hook(always_call) do it."""
        module._forward_pre_hooks[self._key] = self._before
        cast(OrderedDict[int, Any], module._forward_pre_hooks).move_to_end(self._key, last=False)
        module._forward_pre_hooks_with_kwargs[self._key] = True
        module._forward_hooks[self._key] = self._after
        module._forward_hooks_always_called[self._key] = True
        self._modules.append(module)

    def remove(self) -> None:
        """Leave nothing behind."""
        for module in self._modules:
            for hooks in (
                module._forward_pre_hooks,
                module._forward_pre_hooks_with_kwargs,
                module._forward_hooks,
                module._forward_hooks_always_called,
            ):
                hooks.pop(self._key, None)
        self._modules = []


def around_modules(
    modules: Iterable[tuple[str, nn.Module]], enter: Callable[..., None], leave: Callable[..., None]
) -> list[Any]:
    """Have `enter(name, module, args, kwargs)` called before each module, and `leave(module, args, output)` after it.

    Returns what can be removed. `enter` comes before the module's other hooks, so that what these compute belongs to
    the module; but not for the model itself, the one without a name, whose parameters may have to be gathered first.
    `leave` is called also where forward raises.
    """
    names: dict[int, str] = {}
    around = _Around(Hook(lambda module, *given: enter(names[id(module)], module, *given)), Hook(leave))
    handles: list[Any] = [around]
    for name, module in modules:
        if name:
            names[id(module)] = name
            around.add(module)
        else:
            handles.append(module.register_forward_pre_hook(Hook(partial(enter, name)), with_kwargs=True))
            handles.append(module.register_forward_hook(Hook(leave), always_call=True))
    return handles
