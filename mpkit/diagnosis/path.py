"""Which module of a model is running, and what the modules gave."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from mpkit.hook import Hook
from mpkit.tracing.names import OUTSIDE
from mpkit.trees import tensors_in
from mpkit.unwatched import aside


class ModulePath:
    """While it is entered, `now` is the path of the module that runs, as a trace names it."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name or "(model)" for name, module in model.named_modules()}
        self._running: list[str] = []
        self._sums: list[tuple[str, Tensor]] = []
        self._given: list[Tensor] = []
        self._handles: list[Any] = []

    @property
    def now(self) -> str:
        """Path of the innermost module, or "(outside the model)"."""
        return self._running[-1] if self._running else OUTSIDE

    def outputs(self) -> list[tuple[str, float]]:
        """Of each module that has ended, in this order: its name, and the sum of what it gave. Waits for the device."""
        return [(name, float(total)) for name, total in self._sums]

    def given(self) -> list[float]:
        """The sum of each tensor that the first module was given which was given any. Waits for the device."""
        return [float(total) for total in self._given]

    def __enter__(self) -> Self:
        for module in self._names:
            self._handles += [
                module.register_forward_pre_hook(Hook(self._begin), prepend=True),
                module.register_forward_hook(Hook(self._end), always_call=True),
            ]
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._running = [], []

    def _begin(self, module: nn.Module, given: Any) -> None:
        self._running.append(self._names[module])
        if not self._given:
            with aside(), torch.no_grad():
                self._given = [t.detach().sum(dtype=torch.float32) for t in tensors_in(given) if not t.is_complex()]

    def _end(self, module: nn.Module, _: Any, output: Any) -> None:
        if self._running:
            with aside(), torch.no_grad():
                sums = [t.detach().sum(dtype=torch.float32) for t in tensors_in(output) if t.is_floating_point()]
                self._sums.append((self._running.pop(), torch.stack(sums).sum() if sums else torch.zeros(())))
