"""Where a step clips its gradients: whose they are, and what was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mpkit.diagnosis.turn import Turn


class Clips:
    """Stand-ins for torch's clipping, which note it in the turns of the optimizers, and the last norm in `norm`.

    Args:
        turns: of all optimizers. params: name → parameter.
        unscale_first: gradients are unscaled before they are clipped, by `scaler`, whether the step does so or not.
        called: is told the name of each call.
    """

    def __init__(self, turns: list[Turn], params: dict[str, Tensor], unscale_first: bool,
                 called: Callable[[str], None]) -> None:  # fmt: skip
        self._turns, self._params, self._unscale_first, self._called = turns, params, unscale_first, called
        self.scaler: Any = None
        self.norm: float | None = None

    def measuring(self, was: Callable[..., Any]) -> Callable[..., Any]:
        """The norm is about to be taken."""

        def norm(grads: Any, *args: Any, **kwargs: Any) -> Any:
            of = {id(grad) for grad in grads}
            self._unscale_if_asked([p for p in self._params.values() if id(p.grad) in of])
            return was(grads, *args, **kwargs)

        return norm

    def _clipped(self, parameters: Any) -> list[Turn]:
        """Whose gradients are clipped with those of these parameters."""
        given = [parameters] if isinstance(parameters, Tensor) else parameters
        waiting = [turn for turn in self._turns if not turn.ended]
        return [turn for turn in waiting if turn.concerns(given)] or waiting[:1]  # masters are no parameters of a model

    def _unscale_if_asked(self, parameters: list[Tensor]) -> None:
        for turn in self._clipped(parameters) if self._unscale_first and self.scaler is not None else ():
            if not (turn.unscaled or turn.unscaled_other):
                self.scaler.unscale_(getattr(turn.optimizer, "optimizer", turn.optimizer))

    def clipping(self, was: Callable[..., Any]) -> Callable[..., Any]:
        """By the norm."""

        def clip(parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._called("clip_grad_norm_")
            self.norm = float(total_norm)
            for turn in self._clipped(parameters):
                turn.clipped("clip_grad_norm_", self.norm, float(max_norm))
            return was(parameters, max_norm, total_norm, *args, **kwargs)

        return clip

    def clipping_values(self, was: Callable[..., Any]) -> Callable[..., Any]:
        """Each value."""

        def clip(parameters: Any, clip_value: float, *args: Any, **kwargs: Any) -> Any:
            self._called("clip_grad_value_")
            given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            self._unscale_if_asked(given)
            for turn in self._clipped(given):
                turn.clipped("clip_grad_value_", None, float(clip_value))
            return was(given, clip_value, *args, **kwargs)

        return clip
