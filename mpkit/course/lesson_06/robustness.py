"""How far lesson 06's "as good as FP32" reaches: the learning rate of its real run, turned both ways."""

import torch

from mpkit import E4M3, FP32, DynamicScale, NoScaling, Policy, StaticScale
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP
from mpkit.course.robustness import Sweep
from mpkit.course.runs.experiments import Variant, compare

SEEDS = range(20, 40)  # not those that the lesson shows
STEPS = 400
VARIANTS = (
    Variant("FP32", Policy()),
    Variant("FP16 mixed", Policy.preset("fp16-mixed"), DynamicScale()),
    Variant("BF16", Policy.preset("bf16-mixed"), NoScaling()),
    Variant("article formats", Policy.preset("article"), DynamicScale()),
    Variant("E4M3", Policy(FP32, forward=E4M3, backward=E4M3), StaticScale(64.0)),
    Variant("FP16 all", Policy.preset("fp16-true"), DynamicScale()),
    Variant("BF16 all", Policy.preset("bf16-true"), NoScaling()),
)


def held_out_loss(lr: float) -> dict[str, tuple[float, ...]]:
    """Held-out loss (nats) of every seed after the lesson's run with another learning rate of Adam."""
    images = digits()

    @torch.no_grad()
    def score(net: MLP) -> torch.Tensor:
        return net.loss(net(images.test_images), images.test_labels)

    found = compare(
        VARIANTS, model=lambda: MLP(SEEDS), data=images.classification(), steps=STEPS, score=score,
        optimizer=lambda net: torch.optim.Adam(net.parameters(), lr=lr, fused=True), measure_flushed=False,
    )  # fmt: skip
    return {name: run.scores for name, run in found.items()}


SWEEPS = (
    Sweep(
        key="06.parity",
        question="Is a precision as good as FP32 in held-out loss, 400 steps of Adam?",
        knob="learning rate",
        chosen=1e-4,
        values=(3e-5, 1e-4, 3e-4),
        measure=held_out_loss,
        reference="FP32",
        margin=0.003,
        unit="nats",
        better="low",
        expected={
            "FP16 mixed": "equivalent",
            "BF16": "equivalent",
            "article formats": "equivalent",
            "E4M3": "undecided",
            "FP16 all": "worse",
            "BF16 all": "worse",
        },
    ),
)
