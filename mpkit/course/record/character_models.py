"""The lesson's small transformers, trained longer than a lesson can wait: held-out losses by seed, and curves."""

from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from mpkit import DynamicScale, LossScaler, NoScaling, Policy, fit
from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.nets.workloads import DEVICE
from mpkit.scaling import ScaleRule

MODELS = {"next character": False, "hidden characters": True}  # whether characters are hidden, as BERT does
RUNS: dict[str, tuple[str, ScaleRule, float]] = {
    "FP32": ("fp32", NoScaling(), 1.0),
    "FP16 mixed": ("fp16-mixed", DynamicScale(growth_interval=100), 1.0),
    "FP16, no scaling": ("fp16-mixed", NoScaling(), 1.0),
    "BF16 mixed": ("bf16-mixed", NoScaling(), 1.0),
    "FP16, weight 2^-14, no scaling": ("fp16-mixed", NoScaling(), 2.0**-14),
    "FP16, weight 2^-14, scaled": ("fp16-mixed", DynamicScale(growth_interval=100), 2.0**-14),
    "BF16, weight 2^-14, no scaling": ("bf16-mixed", NoScaling(), 2.0**-14),
}
EVERY = 20
MARGIN = 0.1  # nats; it stands here before anything is run


def seeds(model: str, run: str) -> int:
    """Twenty seeds where the question is how often a run gets stuck: hidden characters, loss not divided. Else five."""
    return 20 if MODELS[model] and RUNS[run][2] == 1.0 else 5


def train(model: str, run: str, steps: int) -> dict[str, Any]:
    """Every seed's held-out loss after so many steps, and the mean curve of training losses."""
    ends, curves = zip(*(_one(model, run, steps, seed) for seed in range(seeds(model, run))), strict=True)
    curve = [round(fmean(values), 4) for values in zip(*curves, strict=True)]
    return {"losses": {model: {run: list(ends)}}, "curves": {model: {run: curve}}}


def _one(model: str, run: str, steps: int, seed: int) -> tuple[float, list[float]]:
    """A seed in the device's own formats, captured: the held-out loss, and the training loss every 20 steps."""
    (policy, rule, weight), masked, corpus = RUNS[run], MODELS[model], text(DEVICE)
    net = Transformer(len(corpus.characters) + masked, causal=not masked, seed=seed).to(DEVICE)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.9, 0.99), fused=True)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return weight * net.loss(logits, targets)

    records = fit(
        net, corpus.batches(32, masked=masked, seed=seed), optimizer=optimizer, steps=steps, loss_fn=loss,
        policy=Policy.preset(policy), scaler=LossScaler(rule), engine="native", capture=DEVICE == "cuda",
        read_every=EVERY if DEVICE == "cuda" else 1,
    )  # fmt: skip
    curve = [record.loss / weight for record in records][::EVERY]
    with torch.no_grad():
        inputs, targets = corpus.batches(256, masked=masked, seed=99, held_out=True).batch(0)
        return round(float(net.loss(net(inputs), targets)), 4), curve
