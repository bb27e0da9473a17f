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
from mpkit.policy.nesting import Block, active


class LowWeights:
    """Takes the place of `model.forward` from `begin` to `end`; gradients reach the FP32 weights.

    It is replaced, not hooked: to torch.compile every new hook is a new program. It is replaced by a function, not by
    this object, for the same reason. A copy or a pickle of the model is a plain model: the block is the original's.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        self.shadowed = False  # while another policy is active inside this one
        self.running = False  # while the model computes; it may call itself
        self.before: dict[str, Any] = {}
        self.ours: dict[str, Any] = {}
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
        self.ours = {"forward": forward, "__reduce_ex__": self._reduced}
        if hasattr(type(self.model), "__deepcopy__"):
            self.ours["__deepcopy__"] = self._copied
        self.before = {name: self.model.__dict__[name] for name in self.ours if name in self.model.__dict__}
        self.model.__dict__.update(self.ours)

    def end(self) -> None:
        """Put everything back, but for what somebody else has put there since."""
        attributes = self.model.__dict__
        for name, value in self.ours.items():
            if attributes.get(name) is value:
                del attributes[name]
                if name in self.before:
                    attributes[name] = self.before[name]

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self.shadowed:
            return self.forward(*args, **kwargs)
        args, kwargs = cast_floating(args, self.dtype), cast_floating(kwargs, self.dtype)
        if self.running:
            return self.forward(*args, **kwargs)
        self.running = True
        try:
            for module, name in self.owners:  # an attribute hides the parameter of the same name
                if (p := module._parameters.get(name)) is not None:
                    module.__dict__[name] = p.to(self.dtype)
            return self.forward(*args, **kwargs)
        finally:
            self.running = False
            for module, name in self.owners:
                module.__dict__.pop(name, None)

    def _reduced(self, protocol: int) -> Any:
        """What `copy` and `pickle` ask for."""
        with self._away():
            made: Any = type(self.model).__reduce_ex__(self.model, protocol)
            # A state is often the model's own attributes, among which this block is back in a moment.
            return tuple(dict(piece) if piece is self.model.__dict__ else piece for piece in made)

    def _copied(self, memo: dict[int, Any]) -> Any:
        """What `copy.deepcopy` asks for, where the model's class has an answer of its own."""
        with self._away():
            return type(self.model).__deepcopy__(self.model, memo)  # type: ignore[attr-defined]

    @contextmanager
    def _away(self) -> Iterator[None]:
        """This block and those around it have never been there."""
        now = {name: self.model.__dict__.pop(name) for name in self.ours if name in self.model.__dict__}
        forward, plain = now.get("forward"), dict(now)
        while (block := block_of(forward)) is not None:
            forward, plain = block.before.get("forward"), block.before
        self.model.__dict__.update(plain)
        try:
            yield
        finally:
            for name in plain:
                del self.model.__dict__[name]
            self.model.__dict__.update(now)


def block_of(forward: Any) -> LowWeights | None:
    """The block that made this function to take a model's place of `forward`; None: no block has."""
    block = getattr(forward, "block", None)  # what wraps the function may have got a copy of the attribute
    return block if isinstance(block, LowWeights) and block.ours.get("forward") is forward else None


@contextmanager
def low_weights(block: Block, model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block, in `model(...)`, its weights are read in `dtype` and its inputs are converted to it.

    That is so for the weights that the model has at the start of the block, and for calls of the whole model: a part
    that is called by itself is FP32. Batch and instance norms keep FP32 weights, as their kernels ask. Buffers stay
    FP32, too: where one meets low values the result is FP32, and a layer after it says that dtypes differ.
    """
    weights = LowWeights(model, dtype)
    weights.begin()
    try:
        with active(block, weights):
            yield
    finally:
        weights.end()
