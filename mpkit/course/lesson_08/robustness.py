"""The knobs of lesson 08: learning rate and divisor of the loss in its real run, and Adam's rate where it clips."""

import math
from statistics import fmean

import torch

from mpkit import DynamicScale, LossScaler, NoScaling, Policy
from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.robustness.sweep import Scores, Sweep
from mpkit.course.runs.characters import held_out_losses
from mpkit.course.runs.experiments import Variant

RATE, WEIGHT, STEPS = 2e-3, 2.0**-10, 150  # as in the lesson
SEEDS = range(5, 10)  # the lesson shows 0 to 4
MARGIN = 0.1  # nats: each character at most 10 % more or less probable
WAYS = (
    Variant("FP32", Policy.preset("fp32")),
    Variant("FP16, no scaling", Policy.preset("fp16-mixed"), NoScaling()),
    Variant("FP16, dynamic", Policy.preset("fp16-mixed"), DynamicScale(growth_interval=100)),
    Variant("BF16, no scaling", Policy.preset("bf16-mixed"), NoScaling()),
)


def held_out(rate: float, weight: float) -> Scores:
    """Each way's loss on held-out text, nats, a seed each."""
    return held_out_losses(WAYS, SEEDS, rate, STEPS, weight)


CLIP_STEPS, LAST, CLIP_SEEDS = 40, 10, range(10, 15)  # as in the lesson, which shows seeds 5 to 9
EPS, SMALL, MEDIUM, LARGE = 1e-8, 0.0, 124e6, 7e9  # parameters in whose relation to ε gradients are; 0: the model's own
RIGHT = "right order"
CLIPPED = {  # unscale first?, and the size
    RIGHT: (True, SMALL), "clipping first": (False, SMALL), "first, ε of 124 million": (False, MEDIUM),
    "first, ε of 7 billion": (False, LARGE), "right order, ε of 7 billion": (True, LARGE),
}  # fmt: skip


def ends_clipped(rate: float) -> Scores:
    """Training loss, nats, mean of the last ten of 40 steps of Adam, a seed each, for every way to clip."""
    return {name: [_end_clipped(rate, *way, seed) for seed in CLIP_SEEDS] for name, way in CLIPPED.items()}


def _end_clipped(rate: float, unscale_first: bool, size: float, seed: int) -> float:
    corpus = text("cpu")
    net, data, losses = Transformer(len(corpus.characters), seed=seed), corpus.batches(4, seed=seed), []
    parameters = sum(p.numel() for p in net.parameters())
    eps = EPS * math.sqrt(size / parameters) if size else EPS
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.99), eps=eps, fused=True)
    scaler = LossScaler(DynamicScale(2.0**16))
    for step in range(CLIP_STEPS):
        inputs, targets = data.batch(step)
        optimizer.zero_grad()
        with Policy.preset("fp16-mixed").apply(net):
            loss = net.loss(net(inputs), targets)
        scaler.scale(loss).backward()
        if unscale_first:
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return fmean(losses[-LAST:])


EXPECTED = {"FP16, no scaling": "worse", "FP16, dynamic": "equivalent", "BF16, no scaling": "equivalent"}
SWEEPS = (
    Sweep(
        "08.rate", "Which precision is as good as FP32, at other learning rates?", "learning rate of Adam", RATE,
        (RATE / 3, RATE, RATE * 3), lambda rate: held_out(rate, WEIGHT),
        "FP32", MARGIN, "nats", "low", EXPECTED,  # type: ignore[arg-type]
    ),
    Sweep(
        "08.weight", "And with the loss divided by more, or by less?", "weight of a micro-batch's loss", WEIGHT,
        (2.0**-12, WEIGHT, 2.0**-8), lambda weight: held_out(RATE, weight),
        "FP32", MARGIN, "nats", "low", EXPECTED,  # type: ignore[arg-type]
    ),
    Sweep(
        "08.clip", "What does clipping before unscaling cost Adam, 40 steps, at other learning rates?",
        "learning rate of Adam", RATE, (RATE / 3, RATE, RATE * 3), ends_clipped, RIGHT, MARGIN, "nats", "low",
        {
            "clipping first": "equivalent", "first, ε of 124 million": "worse", "first, ε of 7 billion": "worse",
            "right order, ε of 7 billion": "equivalent",
        },
    ),
)  # fmt: skip
