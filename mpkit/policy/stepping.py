"""Emulation pauses while an optimizer works, whose averages and roots are FP32, and rounds the weights afterwards."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from mpkit.hook import Hook
from mpkit.policy.emulation import Emulation


@contextmanager
def emulated_around_steps(
    model: nn.Module, mode: Emulation, store_: Callable[[Iterable[Tensor]], None]
) -> Iterator[None]:
    """Switch `mode` off in every optimizer's step, and round the model's weights with `store_` when it is done."""
    own = {id(p) for p in model.parameters()}

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mode.paused = True
        if len(args) > 1:  # the optimizer itself is the first
            return (args[0], _emulated(args[1], mode), *args[2:]), kwargs
        return (args, {**kwargs, "closure": _emulated(kwargs["closure"], mode)}) if "closure" in kwargs else None

    def after(optimizer: Any, *_: Any) -> None:
        mode.paused = False
        store_(p for group in optimizer.param_groups for p in group["params"] if id(p) in own)

    def forward(*_: Any) -> None:
        mode.in_forward, mode.paused = True, False  # a step that failed never came to its end

    def forward_done(*_: Any) -> None:
        mode.in_forward = False

    hooks: list[Any] = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    hooks += [
        model.register_forward_pre_hook(Hook(forward)),
        model.register_forward_hook(Hook(forward_done), always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _emulated(closure: Any, mode: Emulation) -> Any:
    """The closure of a step, which runs the model again: emulated, while the step around it is not."""
    if not callable(closure):
        return closure

    def own() -> Any:
        mode.paused = False
        try:
            return closure()
        finally:
            mode.paused = True

    return own
