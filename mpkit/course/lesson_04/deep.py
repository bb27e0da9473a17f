"""A deep net whose gradients vanish or explode on the way back, as its first weights are small or large."""

from collections.abc import Sequence

import torch

from mpkit.course.nets.models import MLP


class Deep(MLP):
    """Classifier for the digits: eleven linear layers, 64-32-…-32-10, with a tanh between them.

    Args:
        gain: the weights begin so many times as large as torch's. 2 trains; 1/4 vanishes; 10 explodes.
        seeds: one copy a seed.
    """

    def __init__(self, gain: float, seeds: Sequence[int] = range(5)) -> None:
        super().__init__(seeds, sizes=(64, *[32] * 10, 10), activation=torch.nn.Tanh)
        with torch.no_grad():
            for layer in self.linear_layers():
                layer.weight.mul_(gain)
