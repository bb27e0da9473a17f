"""One thing changed: the step in FP32, or one operation of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mpkit.diagnosis.patching import replaced
from mpkit.diagnosis.path import ModulePath
from mpkit.policy.emulation import CASTS
from mpkit.policy.nesting import replacing
from mpkit.policy.policy import Policy
from mpkit.tracing import names
from mpkit.trees import map_leaves
from mpkit.unwatched import aside

LOW = (torch.float16, torch.bfloat16)
DEVICES = ("cpu", "cuda")


def widened(value: Any) -> Any:
    """float32 in place of a 16-bit tensor or dtype; anything else as it is."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in LOW else value
    return torch.float32 if isinstance(value, torch.dtype) and value in LOW else value


class _InFP32(TorchFunctionMode):
    """Whoever asks for 16 bits gets 32, what a script kept in 16 bits is read as 32, and casts of mpkit cast nothing.

    `left` gets the dtypes of 8 bits and fewer that torch was asked for: scales and products of FP8 go by that dtype.
    """

    def __init__(self, left: set[str]) -> None:
        super().__init__()
        self._left = left

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in CASTS:
            return widened(args[0]).clone()
        result = self._run(func, args, kwargs)
        if isinstance(result, Tensor) and result.is_floating_point() and result.element_size() == 1:
            self._left.add(str(result.dtype).removeprefix("torch."))
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        name = func.__name__
        if name in ("__get__", "__set__"):
            return func(*args, **(kwargs or {}))
        if name in ("half", "bfloat16") and args:
            return args[0].float()
        kept = args[:1] if name.endswith("_") and not name.endswith("__") else ()  # it is written to, so no copy
        rest = map_leaves(widened, tuple(args[len(kept) :]))
        return func(*kept, *rest, **map_leaves(widened, dict(kwargs or {})))


class _One(TorchFunctionMode):
    """The operation of this name in this module is done by `instead`, which is given it and its arguments."""

    def __init__(self, model: nn.Module, module: str, operation: str, instead: Callable[..., Any]) -> None:
        super().__init__()
        self._module, self._operation, self._instead, self._path = module, operation, instead, ModulePath(model)

    def __enter__(self) -> Any:
        self._path.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._path.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = None if func.__name__ == "__get__" else names.operation(func).readable
        if name != self._operation or self._path.now != self._module:
            return func(*args, **(kwargs or {}))
        return self._instead(func, *args, **(kwargs or {}))


def one_in_fp32(model: nn.Module, module: str, operation: str) -> Any:
    """A context in which that operation alone computes in FP32, and its result stays there."""

    def wide(func: Any, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for device in DEVICES:
                stack.enter_context(torch.autocast(device, enabled=False))
            return func(*map_leaves(widened, args), **map_leaves(widened, kwargs))

    return _One(model, module, operation, wide)


def one_cleaned(model: nn.Module, module: str, operation: str) -> Any:
    """A context in which that operation gives 0 for Inf and NaN."""
    return _One(model, module, operation, lambda func, *args, **kwargs: map_leaves(_clean, func(*args, **kwargs)))


def _clean(value: Any) -> Any:
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return value
    return value.where(value.isfinite(), 0)


@contextmanager
def nudged(parameters: Iterable[Tensor], share: float) -> Iterator[None]:
    """Every value of these moved by this share of itself, up or down at random. A `Snapshot` turns it back."""
    draw = torch.Generator().manual_seed(0)
    with aside(), torch.no_grad():
        for p in parameters:
            if p.is_floating_point():
                signs = torch.randint(0, 2, p.shape, generator=draw).to(p.device)
                p.mul_((2 * signs - 1) * share + 1)
    yield


@contextmanager
def without_autocast() -> Iterator[None]:
    """Inside, torch.autocast and mpkit's policies change nothing, wherever they are entered."""

    def entering(enter: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def entered(autocast: Any) -> Any:
            result = enter(autocast)
            torch.set_autocast_enabled(autocast.device, False)
            return result

        return entered

    @contextmanager
    def plainly(self: Policy, model: nn.Module, *_: Any, **__: Any) -> Iterator[nn.Module]:
        yield model

    with ExitStack() as stack:
        for device in DEVICES:
            stack.enter_context(replacing(device))  # those that were entered before
        stack.enter_context(replaced(torch.autocast, "__enter__", entering))
        stack.enter_context(replaced(Policy, "running", lambda _: plainly))
        yield


@contextmanager
def in_fp32(modules: list[nn.Module], optimizer: Any, left: set[str]) -> Iterator[None]:
    """The whole step: weights, buffers, moments and averages as float32, and nothing is cast below it.

    But for tensors of 8 bits that torch is asked for: the names of their dtypes are added to `left`. It does not turn
    anything back; a `Snapshot` does.
    """
    held = [p for group in getattr(optimizer, "param_groups", []) for p in group["params"]]
    for tensor in [t for m in modules for t in (*m.parameters(), *m.buffers())] + held:
        if tensor.dtype in LOW:
            grad, tensor.grad = tensor.grad, None
            tensor.data = tensor.data.float()
            tensor.grad = None if grad is None else grad.float()
    for state in getattr(optimizer, "state", {}).values():
        state.update(map_leaves(widened, dict(state)))
    with without_autocast(), _InFP32(left):
        yield
