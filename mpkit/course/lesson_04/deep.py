"""A deep net whose gradients vanish or explode on the way back, as its first weights are small or large."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mpkit.course.nets.models import MLP, SeedsNet

SATURATED = 0.99  # a tanh's output beyond it passes less than 2 % of a gradient on: 1 - 0.99 ** 2


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

    @torch.no_grad()
    def saturated(self, images: Tensor) -> list[float]:
        """Share of the outputs beyond ± 0.99 of each tanh, from input to output, over the images and all seeds."""
        shares, x = [], images
        for layer in self:
            x = layer(x)
            if isinstance(layer, torch.nn.Tanh):
                shares.append((x.abs() > SATURATED).float().mean().item())
        return shares


@torch.no_grad()
def clip_each_seed(net: SeedsNet, max_norm: float) -> Tensor:
    """Shorten each seed's gradient to `max_norm` if it is longer; return how long each was: (seeds,)."""
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    norms: Tensor = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
    for grad in grads:
        grad *= (max_norm / norms).clamp(max=1).view(-1, 1, 1)
    return norms
