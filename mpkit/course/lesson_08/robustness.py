"""The knobs of lesson 08's real run: the learning rate, and by how much each micro-batch's loss is divided."""

import torch

from mpkit import DynamicScale, NoScaling, Policy
from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.robustness.sweep import Scores, Sweep
from mpkit.course.runs.experiments import Variant, train_seeds

RATE, WEIGHT, STEPS = 2e-3, 2.0**-10, 150  # as in the lesson
SEEDS = range(5, 10)  # the lesson shows 0 to 4
MARGIN = 0.1  # nats: each character at most 10 % more or less probable
WAYS = (
    Variant("FP32", Policy.preset("fp32")),
    Variant("FP16, no scaling", Policy.preset("fp16-mixed"), NoScaling()),
    Variant("FP16, dynamic", Policy.preset("fp16-mixed"), DynamicScale(growth_interval=100)),
    Variant("BF16, no scaling", Policy.preset("bf16-mixed"), NoScaling()),
)


def held_out_losses(rate: float, weight: float) -> Scores:
    """Each way's loss on held-out text, nats, a seed each."""
    corpus = text("cpu")
    inputs, targets = corpus.batches(64, seed=99, held_out=True).batch(0)

    def score(net: torch.nn.Module) -> float:
        with torch.no_grad():
            return float(net.loss(net(inputs), targets))  # type: ignore[operator]

    def adam(net: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)

    *_, results = train_seeds(
        WAYS, SEEDS, lambda seed: Transformer(len(corpus.characters), seed=seed),
        lambda seed: corpus.batches(seed=seed), adam, steps=STEPS, score=score, weight=weight,
    )  # fmt: skip
    return {name: outcome.scores for name, outcome in results.items()}


EXPECTED = {"FP16, no scaling": "worse", "FP16, dynamic": "equivalent", "BF16, no scaling": "equivalent"}
SWEEPS = (
    Sweep(
        "08.rate", "Which precision is as good as FP32, at other learning rates?", "learning rate of Adam", RATE,
        (RATE / 3, RATE, RATE * 3), lambda rate: held_out_losses(rate, WEIGHT),
        "FP32", MARGIN, "nats", "low", EXPECTED,  # type: ignore[arg-type]
    ),
    Sweep(
        "08.weight", "And with the loss divided by more, or by less?", "weight of a micro-batch's loss", WEIGHT,
        (2.0**-12, WEIGHT, 2.0**-8), lambda weight: held_out_losses(RATE, weight),
        "FP32", MARGIN, "nats", "low", EXPECTED,  # type: ignore[arg-type]
    ),
)  # fmt: skip
