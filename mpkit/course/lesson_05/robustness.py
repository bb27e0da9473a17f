"""How far lesson 05's verdicts reach: learning rate and length of its autoencoder's runs, turned both ways."""

from collections.abc import Mapping

import torch

from mpkit import DynamicScale, Policy
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import Autoencoder
from mpkit.course.pictures.style import power
from mpkit.course.robustness import Sweep
from mpkit.course.runs.experiments import Variant, compare
from mpkit.scaling import ArticleRule, ScaleRule

SEEDS = range(10, 15)  # not those that the lesson shows
LR, STEPS, MARGIN = 2e-3, 400, 2.0
FORMULAS: dict[str, ScaleRule] = {
    "dynamic": DynamicScale(),
    "article": ArticleRule(),
    "article, scaled": ArticleRule(norm="scaled"),
}
SETTINGS: dict[str, ScaleRule] = {  # initial scale, growth interval
    f"{power(k)}, {n:,}": DynamicScale(2.0**k, growth_interval=n)
    for k, n in ((16, 2000), (40, 2000), (0, 2000), (16, 2))
}


def error(rules: Mapping[str, ScaleRule], lr: float, steps: int) -> dict[str, list[float]]:
    """Test error of every seed in percent of FP32's with the same seed, so that FP32 has 100."""
    images = digits()
    variants = [Variant("FP32", Policy())]
    variants += [Variant(name, Policy.preset("fp16-mixed"), rule) for name, rule in rules.items()]
    found = compare(
        variants, model=lambda: Autoencoder(SEEDS), data=images.reconstruction(), steps=steps,
        optimizer=lambda net: torch.optim.Adam(net.parameters(), lr=lr, fused=True),
        score=lambda net: net.error(images.test_images), measure_flushed=False,
    )  # fmt: skip
    base = found["FP32"].scores
    return {name: [100 * a / b for a, b in zip(run.scores, base, strict=True)] for name, run in found.items()}


SWEEPS = (
    Sweep(
        key="05.article",
        question=f"Does the article's formula train the autoencoder as well as FP32, {STEPS} steps of Adam?",
        knob="learning rate",
        chosen=LR,
        values=(LR * 0.3, LR, LR * 3),
        measure=lambda lr: error(FORMULAS, lr, STEPS),
        reference="FP32",
        margin=MARGIN,
        unit="percent of FP32's test error",
        better="low",
        expected={"dynamic": "equivalent", "article": "worse", "article, scaled": "worse"},
    ),
    Sweep(
        key="05.settings",
        question="Does the autoencoder with this initial scale and growth interval train as well as FP32?",
        knob="steps",
        chosen=STEPS,
        values=(130, STEPS, 1200),
        measure=lambda steps: error(SETTINGS, LR, int(steps)),
        reference="FP32",
        margin=MARGIN,
        unit="percent of FP32's test error",
        better="low",
        expected={"2¹⁶, 2,000": "equivalent", "2⁴⁰, 2,000": "undecided", "2⁰, 2,000": "worse", "2¹⁶, 2": "worse"},
    ),
)
