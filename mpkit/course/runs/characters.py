"""The small transformer of lesson 08 on characters, trained in several ways: its loss on text that was held out."""

from collections.abc import Sequence

import torch
from torch import nn

from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.runs.experiments import Variant, train_seeds


def held_out_losses(
    variants: Sequence[Variant], seeds: Sequence[int], rate: float, steps: int, weight: float = 1.0, device: str = "cpu"
) -> dict[str, tuple[float, ...]]:
    """Mean cross-entropy in nats after `steps` of Adam at `rate`, a number for each seed, by the variant's name.

    What is trained is the loss times `weight`; the number is without it.
    """
    corpus = text(device)
    inputs, targets = corpus.batches(64, seed=99, held_out=True).batch(0)

    def score(net: nn.Module) -> float:
        with torch.no_grad():
            return float(net.loss(net(inputs), targets))  # type: ignore[operator]

    def adam(net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)

    *_, results = train_seeds(
        variants, seeds, lambda seed: Transformer(len(corpus.characters), seed=seed).to(device),
        lambda seed: corpus.batches(seed=seed), adam, steps=steps, score=score, weight=weight,
    )  # fmt: skip
    return {name: outcome.scores for name, outcome in results.items()}
