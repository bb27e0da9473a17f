"""Put something in a function's place for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, `owner.name` is `make(what it was)`; an owner without such a name is left alone."""
    if (was := getattr(owner, name, None)) is None:
        yield
        return
    own = name in vars(owner)
    setattr(owner, name, make(was))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, was)
        else:
            delattr(owner, name)
