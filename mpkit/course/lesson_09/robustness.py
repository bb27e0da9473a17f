"""How far lesson 09's "as good as FP32" reaches: the learning rate of its real run, turned both ways."""

import torch

from mpkit import DynamicScale, Policy
from mpkit.course.lesson_09.recipes import Classifier, held_out, integers_on_fp16, one_scale
from mpkit.course.nets.digits import digits
from mpkit.course.robustness import Sweep
from mpkit.course.runs.experiments import Variant, train_seeds

SEEDS = range(20, 25)  # not those that the lesson shows
STEPS = 200
VARIANTS = (
    Variant("FP32", Policy()),
    Variant("FP8", Policy.preset("fp8-mixed")),
    Variant("NVFP4", Policy.preset("nvfp4")),
    Variant("INT8 on FP16", integers_on_fp16(8), DynamicScale()),
    Variant("INT2 on FP16", integers_on_fp16(2), DynamicScale()),
    Variant("E2M1, one scale", one_scale()),
)


def held_out_loss(lr: float) -> dict[str, tuple[float, ...]]:
    """Held-out loss (nats) of every seed after the lesson's run with another learning rate of SGD."""
    images = digits()
    results = {}
    for results in train_seeds(  # noqa: B007
        VARIANTS, SEEDS, Classifier, lambda seed: images.classification(seed=seed),
        lambda net: torch.optim.SGD(net.parameters(), lr, fused=True), STEPS,
        lambda net: held_out(net, images.test_images, images.test_labels),
    ):  # fmt: skip
        pass
    return {name: run.scores for name, run in results.items()}


SWEEPS = (
    Sweep(
        key="09.parity",
        question="Is a recipe as good as FP32 in held-out loss, 200 steps of SGD?",
        knob="learning rate",
        chosen=0.1,
        values=(0.03, 0.1, 0.3),
        measure=held_out_loss,
        reference="FP32",
        margin=0.01,
        unit="nats",
        better="low",
        expected={
            "FP8": "equivalent",
            "INT8 on FP16": "equivalent",
            "NVFP4": "undecided",
            "INT2 on FP16": "worse",
            "E2M1, one scale": "worse",
        },
    ),
)
