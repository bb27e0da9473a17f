"""The mode that hands every torch function to a trace."""

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


class Mode(TorchFunctionMode):
    """While it is active, `observe(function, args, kwargs)` runs every torch function."""

    def __init__(self, observe: Callable[[Callable[..., Any], Any, dict[str, Any]], Any]) -> None:
        super().__init__()
        self._observe = observe

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Torch calls this for every function of its own while the mode is active, for reading attributes as well."""
        if func.__name__ == "__get__":  # most calls, and nothing is computed
            return func(*args)
        return self._observe(func, args, kwargs or {})
