"""What puts one thing back to as it is now: a module's buffers, tensors, an optimizer, a scaler."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mpkit.trees import map_tensors, tensors_in

Undo = Callable[[], Any]


def reinstate(module: nn.Module, buffers: dict[str, Tensor | None]) -> None:
    """Give a module the buffers that it had: the same objects, also where it has assigned others since."""
    now = module._buffers
    if [(name, id(buffer)) for name, buffer in now.items()] != [(name, id(b)) for name, b in buffers.items()]:
        now.clear()
        now.update(buffers)


def modules_undo(modules: list[nn.Module]) -> Undo:
    """Their buffers, the same objects, and whether they train."""
    kept = [(m, m.training, dict(m._buffers)) for module in modules for m in module.modules()]

    def undo() -> None:
        for module, training, buffers in kept:
            module.training = training
            reinstate(module, buffers)

    return undo


def tensors_undo(tensors: list[Tensor], without_grad: bool) -> Undo:
    """Their values and gradients; no gradients at all, if `without_grad`."""
    kept = [(t, t.data, t.detach().clone(), t.requires_grad) for t in tensors]
    grads = [(t, t.grad, t.grad.detach().clone()) for t in tensors if t.is_leaf and t.grad is not None]

    def undo() -> None:
        for tensor, data, values, needs_grad in kept:
            tensor.grad = None  # of another dtype, perhaps
            tensor.data = data
            data.copy_(values)
            if tensor.requires_grad != needs_grad:
                (tensor if tensor.is_leaf else tensor.detach_()).requires_grad_(needs_grad)
        for tensor, grad, values in grads if not without_grad else ():
            grad.copy_(values)
            tensor.grad = grad

    return undo


def optimizer_undo(optimizer: Any) -> Undo:
    """Its groups, and its state in the same tensors; not the parameters."""
    # For each parameter its state, and the values in it.
    states = [(p, dict(held), map_tensors(_copied, dict(held))) for p, held in optimizer.state.items()]
    groups = [(group, dict(group), list(group["params"])) for group in optimizer.param_groups]
    settings = [{name: value for name, value in was.items() if name != "params"} for _, was, _ in groups]
    numbers = [(t, _copied(t)) for t in tensors_in(settings)]  # a learning rate may be a tensor
    beside = getattr(optimizer, "held", list)  # of the wrappers of mpkit.optim: what they keep beside the weights, …
    extras = [(t.data, _copied(t)) for t in beside()]
    draws = [
        (generator, generator.get_state()) for generator in getattr(optimizer, "generators", list)()
    ]  # … and draw from

    def undo() -> None:
        optimizer.state.clear()
        for parameter, held, values in states:
            for name, value in held.items():
                if isinstance(value, Tensor):
                    value.copy_(values[name])
                else:
                    held[name] = copy.deepcopy(values[name])
            optimizer.state[parameter] = dict(held)
        optimizer.param_groups[:] = [group for group, *_ in groups]
        for group, was, params in groups:
            was["params"][:] = params
            group.clear()
            group.update(was)
        for number, value in numbers:
            number.copy_(value)
        for now, (data, value) in zip(beside(), extras, strict=False):
            now.data = data  # a run in FP32 puts others in their place
            data.copy_(value)
        for generator, state in draws:
            generator.set_state(state)

    return undo


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def scaler_undo(scaler: Any) -> Undo:
    """Its scale and counters, and how far each optimizer had come in the iteration."""
    saved, stages = copy.deepcopy(scaler.state_dict()), copy.deepcopy(getattr(scaler, "_per_optimizer_states", None))

    def undo() -> None:
        if saved:
            scaler.load_state_dict(copy.deepcopy(saved))
        if stages is not None:
            scaler._per_optimizer_states = copy.deepcopy(stages)
        if hasattr(scaler, "abandon"):
            scaler.abandon()

    return undo
