"""How far lesson 09's verdicts reach: the learning rate of its real run, and the scale of two bits, both ways."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mpkit import E2M3, DynamicScale, Policy
from mpkit.course.device import choose
from mpkit.course.lesson_09.recipes import (
    Classifier,
    all_three,
    deployed,
    held_out,
    integers_on_fp16,
    one_scale,
    rounded,
)
from mpkit.course.nets.digits import digits
from mpkit.course.robustness import Sweep
from mpkit.course.runs.characters import held_out_losses
from mpkit.course.runs.experiments import Outcome, Variant, train_seeds
from mpkit.scaled import INT8_ROW

SEEDS = range(20, 35)  # not those that the lesson shows, and three times as many
STEPS = 200
VARIANTS = (
    Variant("FP32", Policy()),
    Variant("FP8", Policy.preset("fp8-mixed")),
    Variant("INT8 on FP16", integers_on_fp16(8), DynamicScale()),
    Variant("INT8, all products", all_three(INT8_ROW)),
    Variant("E2M3, one scale", one_scale(E2M3)),
    Variant("NVFP4", Policy.preset("nvfp4")),
    Variant("E2M1, one scale", one_scale()),
    Variant("INT2 on FP16", integers_on_fp16(2), DynamicScale()),
)


def scores(
    variants: Sequence[Variant], model: Callable[[int], nn.Module], lr: float, score: Callable[[nn.Module], float]
) -> dict[str, tuple[float, ...]]:
    """A number of every seed's trained network, by the variant's name."""
    images = digits()
    results: dict[str, Outcome] = {}
    for results in train_seeds(  # noqa: B007
        variants, SEEDS, model, lambda seed: images.classification(seed=seed),
        lambda net: torch.optim.SGD(net.parameters(), lr, fused=True), STEPS, score,
    ):  # fmt: skip
        pass
    return {name: run.scores for name, run in results.items()}


def held_out_loss(lr: float) -> dict[str, tuple[float, ...]]:
    """Held-out loss (nats), used unrounded, of every seed after the lesson's run with another learning rate of SGD."""
    images = digits()
    return scores(VARIANTS, Classifier, lr, lambda net: held_out(net, images.test_images, images.test_labels))


class Aware(Classifier):
    """The classifier with two bits in every step, each scale at a share of its row's largest magnitude."""

    share = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return rounded(self, x, 2, self.share)


def kept(variant: Variant, model: Callable[[int], nn.Module]) -> tuple[Any, ...]:
    """The trained networks of one variant, one a seed."""
    nets: list[nn.Module] = []

    def keep(net: nn.Module) -> float:
        nets.append(net)
        return 0.0

    scores([variant], model, 0.1, keep)
    return tuple(nets)


@cache
def plain() -> tuple[Any, ...]:
    """The networks of FP16 mixed."""
    return kept(Variant("FP16 mixed", Policy.preset("fp16-mixed"), DynamicScale()), Classifier)


@cache
def aware(share: float) -> tuple[Any, ...]:
    """The networks that were trained with two bits."""
    return kept(Variant("aware", Policy()), type("Aware", (Aware,), {"share": share}))


def two_bits(share: float) -> dict[str, tuple[float, ...]]:
    """Right answers (%) at two bits: rounded afterwards, and trained for it, with the same scales and with largest."""
    images = digits()

    def used(nets: Sequence[Any], share: float) -> tuple[float, ...]:
        return tuple(deployed(net, images.test_images, images.test_labels, 2, share) for net in nets)

    return {
        "afterwards": used(plain(), share),
        "trained for it": used(aware(share), share),
        "trained for it, scale by the largest": used(aware(1.0), 1.0),
    }


CHARACTERS_SEEDS = range(20, 25)
CHARACTERS_STEPS = 300
CHARACTERS = (
    Variant("FP32", Policy()),
    Variant("BF16", Policy.preset("bf16-mixed")),
    Variant("FP8", Policy.preset("fp8-mixed")),
    Variant("MXFP8", Policy.preset("mxfp8")),
    Variant("NVFP4", Policy.preset("nvfp4")),
    Variant("E2M1, one scale", one_scale()),
)


def characters_loss(rate: float) -> dict[str, tuple[float, ...]]:
    """Held-out loss (nats) of the small transformer of lesson 08, trained on characters by Adam, on a GPU if any."""
    return held_out_losses(CHARACTERS, CHARACTERS_SEEDS, rate, CHARACTERS_STEPS, device=choose().name)


SWEEPS = (
    Sweep(
        key="09.parity",
        question="Are a recipe's weights, used unrounded, as good as FP32's in held-out loss, 200 steps of SGD?",
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
            "INT8, all products": "equivalent",
            "E2M3, one scale": "equivalent",
            "NVFP4": "worse",
            "E2M1, one scale": "worse",
            "INT2 on FP16": "worse",
        },
    ),
    Sweep(
        key="09.transformer",
        question="Are a recipe's weights, used unrounded, as good as FP32's on the small transformer, "
        "300 steps of Adam?",
        knob="learning rate",
        chosen=2e-3,
        values=(6e-4, 2e-3, 6e-3),
        measure=characters_loss,
        reference="FP32",
        margin=0.05,
        unit="nats",
        better="low",
        expected={"BF16": "equivalent", "FP8": "equivalent", "E2M1, one scale": "worse"},
    ),
    Sweep(
        key="09.clip",
        question="At 2 bits, is training for it better than rounding FP16 mixed afterwards, in right answers?",
        knob="scale at this share of the largest",
        chosen=1.0,
        values=(0.3, 0.5, 0.7, 1.0, 3.0),
        measure=two_bits,
        reference="afterwards",
        margin=2.0,
        unit="points",
        better="high",
        expected={"trained for it": "better", "trained for it, scale by the largest": "better"},
    ),
)
