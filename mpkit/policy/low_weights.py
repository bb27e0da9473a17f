"""A model whose forward pass reads 16-bit copies of its FP32 weights, as after `model.half()`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mpkit.casting import cast_floating
from mpkit.policy.nesting import active


class LowWeights:
    """Takes the place of `model.forward` from `begin` to `end`; gradients reach the FP32 weights.

    It is replaced, not hooked: to torch.compile every new hook is a new program. It is replaced by a function, not by
    this object, for the same reason. A copy or a pickle of the model is a plain model: the block is the original's.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        self.shadowed = False  # while another policy is active inside this one
        self.over = False
        self.hidden = {name: model.__dict__.get(name) for name in ("forward", "__reduce_ex__")}
        self.forward: Callable[..., Any] = model.forward
        self.owners = [
            (module, name)
            for module in model.modules()
            if not isinstance(module, _NormBase)
            for name, p in module._parameters.items()
            if p is not None
        ]

    def begin(self) -> None:
        """Take the place."""

        @functools.wraps(self.forward, updated=())  # with its signature, for those who ask
        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._run(*args, **kwargs)

        forward.block = self  # type: ignore[attr-defined]
        self.model.forward = forward
        self.model.__dict__["__reduce_ex__"] = self._reduced

    def end(self) -> None:
        """Put everything back. A block that ends before one inside it leaves the place to that one."""
        self.over = True
        if block_of(self.model.__dict__.get("forward")) is self:
            self._put_back(self.model.__dict__, blocks=True)
        elif block_of(self.model.__dict__.get("forward")) is None:  # somebody else has put something there
            self.model.__dict__.pop("__reduce_ex__", None)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self.shadowed or self.over:
            return self.forward(*args, **kwargs)
        try:
            for module, name in self.owners:  # an attribute hides the parameter of the same name
                module.__dict__[name] = module._parameters[name].to(self.dtype)  # type: ignore[union-attr]
            return self.forward(*cast_floating(args, self.dtype), **cast_floating(kwargs, self.dtype))
        finally:
            for module, name in self.owners:
                module.__dict__.pop(name, None)

    def _reduced(self, protocol: int) -> tuple[Any, ...]:
        """What `copy` and `pickle` ask for."""
        reduced: Any = type(self.model).__reduce_ex__(self.model, protocol)
        make, given, state, *rest = reduced
        if isinstance(state, dict):
            state = dict(state)
            self._put_back(state, blocks=False)
        return make, given, state, *rest

    def _put_back(self, attributes: dict[str, Any], blocks: bool) -> None:
        """What was there before: of blocks around this one those that go on, or with `blocks=False` none."""
        block = self
        while (outer := block_of(block.hidden["forward"])) and (outer.over or not blocks):
            block = outer
        for name, value in block.hidden.items():
            attributes.pop(name, None)
            if value is not None:
                attributes[name] = value


def block_of(forward: Any) -> LowWeights | None:
    """The block that has put this function in a model's place of `forward`; None: no block has."""
    return getattr(forward, "block", None)


@contextmanager
def low_weights(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block `model` reads its weights in `dtype` and its inputs are converted to it.

    Batch and instance norms keep FP32 weights, as their kernels ask.
    """
    block = LowWeights(model, dtype)
    block.begin()
    try:
        with active(block):
            yield
    finally:
        block.end()
