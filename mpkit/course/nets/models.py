"""Small models for the lessons, each able to train several seeds at once as a batch of independent copies."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SeedsLinear(nn.Module):
    """One linear layer for each seed, all computed by one batched matrix product.

    Five seeds this way take little longer than one, and each of them trains as it would alone.

    Args:
        fan_in, fan_out: features in and out.
        seeds: one copy per seed. The copy's weights depend on its seed and on `layer` alone.
        layer: number of the layer in its model.
        init: "torch" (uniform, ± 1/√fan_in, as `nn.Linear`) or "xavier" (Glorot and Bengio 2010, equation 16;
            zero bias).

    Shapes: input (seeds, batch, fan_in) or (batch, fan_in); output (seeds, batch, fan_out).
    """

    def __init__(self, fan_in: int, fan_out: int, seeds: Sequence[int], layer: int = 0, init: str = "torch") -> None:
        super().__init__()
        if init not in ("torch", "xavier"):
            raise ValueError(f'init={init!r} is unknown; use "torch" or "xavier".')
        bound = fan_in**-0.5 if init == "torch" else (6 / (fan_in + fan_out)) ** 0.5
        weights, biases = [], []
        for seed in seeds:
            draw = torch.Generator().manual_seed(1000 * seed + layer)
            weights.append((2 * torch.rand(fan_in, fan_out, generator=draw) - 1) * bound)
            bias = (2 * torch.rand(1, fan_out, generator=draw) - 1) * bound
            biases.append(bias if init == "torch" else torch.zeros_like(bias))
        self.weight = nn.Parameter(torch.stack(weights))
        self.bias = nn.Parameter(torch.stack(biases))

    def forward(self, x: Tensor) -> Tensor:
        """Compute x · weight + bias for every seed."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), *x.shape)
        return torch.baddbmm(self.bias, x, self.weight)


class SeedsNet(nn.Sequential):
    """Linear layers with one activation after each, for several seeds; `loss` gives one value a seed."""

    def __init__(
        self, sizes: Sequence[int], seeds: Sequence[int], activation: type[nn.Module], init: str, last: bool
    ) -> None:
        if len(seeds) == 0:
            raise ValueError("no seeds came; give at least one, such as seeds=range(5).")
        layers: list[nn.Module] = []
        for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layers += [SeedsLinear(fan_in, fan_out, seeds, number, init), activation()]
        super().__init__(*(layers if last else layers[:-1]))
        self.seeds = list(seeds)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """One training loss a seed, (seeds,). Each model defines its own."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss.")

    def linear_layers(self) -> list[SeedsLinear]:
        """The layers that have weights, from input to output."""
        return [layer for layer in self if isinstance(layer, SeedsLinear)]


class MLP(SeedsNet):
    """Classifier for the digits: 64-128-64-10 with ReLU."""

    def __init__(
        self,
        seeds: Sequence[int] = (0,),
        sizes: Sequence[int] = (64, 128, 64, 10),
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(sizes, seeds, activation, "torch", last=False)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats of each seed: (seeds, batch, classes), (batch,) → (seeds,)."""
        targets = labels.expand(logits.shape[:2])
        each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return each.view(targets.shape).mean(1)

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> Tensor:
        """Share of right answers of each seed, 0 to 1: (seeds,)."""
        right: Tensor = self(images).argmax(-1) == labels
        return right.float().mean(1)


class Autoencoder(SeedsNet):
    """Autoencoder for the digits, 64-64-32-16-32-64-64, a sigmoid after every layer, Xavier init.

    Saturating layers and a loss averaged over batch and pixels make its first layers' gradients very small:
    this is where FP16 underflow shows on a laptop.
    """

    def __init__(self, seeds: Sequence[int] = (0,), sizes: Sequence[int] = (64, 64, 32, 16, 32, 64, 64)) -> None:
        super().__init__(sizes, seeds, nn.Sigmoid, "xavier", last=True)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over batch and pixels of each seed: (seeds, batch, 64), (batch, 64) → (seeds,)."""
        return F.mse_loss(output, target.expand_as(output), reduction="none").mean((1, 2))

    @torch.no_grad()
    def error(self, images: Tensor) -> Tensor:
        """Mean squared reconstruction error of each seed: (seeds,)."""
        return self.loss(self(images), images)


class WideAutoencoder(Autoencoder):
    """A bad start: autoencoder 64-64-32-64-64 with ReLU whose weights begin `gain` times as large as Xavier's.

    Its first loss is in the ten thousands, and so are its gradients: most loss scales overflow.
    """

    def __init__(self, seeds: Sequence[int] = (0,), gain: float = 6.0) -> None:
        SeedsNet.__init__(self, (64, 64, 32, 64, 64), seeds, nn.ReLU, "xavier", last=False)
        with torch.no_grad():
            for layer in self.linear_layers():
                layer.weight.mul_(gain)
