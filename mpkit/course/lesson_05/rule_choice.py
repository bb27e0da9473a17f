"""What is raced: gradients by name, scaling rules, and what the panel's sliders make of a rule."""

import dataclasses
from functools import cache
from typing import Any

from mpkit import StaticScale
from mpkit.course.panels.panel import BadInput
from mpkit.course.recorded.history import GradientHistory, synthetic
from mpkit.scaling import LogMaxScale, ScaleRule, preset

RULES: dict[str, ScaleRule] = {  # the first SHOWN are seen at once
    "torch": preset("torch"),
    "megatron": preset("megatron"),
    "LogMax": preset("openseq2seq-logmax"),
    "article": preset("article"),
    "no scaling": preset("none"),
    "static 2¹⁰": StaticScale(2.0**10),
    "apex-amp": preset("apex-amp"),
    "deepspeed": preset("deepspeed"),
    "fairseq": preset("fairseq"),
    "keras": preset("keras"),
    "popart": preset("popart"),
    "article, scaled": preset("article-scaled-norm"),
}
SHOWN = 4
ABOUT = {
    "torch": "PyTorch's GradScaler: starts at 2¹⁶, halves at an overflow, doubles after 2,000 clean steps",
    "megatron": "Megatron-LM: starts at 2³², halves at the second overflow, doubles after 1,000 clean steps",
    "LogMax": "OpenSeq2Seq: puts the scale where the largest gradients of late, with some room, just fit",
    "article": "the article's formula: halves where the gradient's norm times the scale is above one half, never grows",
    "no scaling": "the loss is left as it is",
    "static 2¹⁰": "one scale for the whole training, chosen by hand",
    "apex-amp": "NVIDIA Apex: as torch, and never above 2²⁴",
    "deepspeed": "DeepSpeed: starts at 2¹⁶, halves at the second overflow, doubles after 1,000 clean steps, stops at 1",
    "fairseq": "fairseq: starts at 2⁷, halves at an overflow, doubles after 16,384 clean steps",
    "keras": "Keras: as torch, and starts at 2¹⁵",
    "popart": "Graphcore's PopART: reads a histogram, and lets one gradient in ten million overflow",
    "article, scaled": "the article's formula, with the norm of the scaled gradient in it",
}
WHAT = {  # a word below each name in the table: only what no slider replaces
    "torch": "PyTorch: falls at an overflow, grows later",
    "megatron": "Megatron-LM: falls from the 2nd overflow on",
    "LogMax": "OpenSeq2Seq: follows the largest gradients",
    "article": "its formula can halve the scale, never double it",
    "no scaling": "the loss is left as it is",
    "static 2¹⁰": "one scale, chosen by hand",
    "apex-amp": "NVIDIA Apex: as torch, with a cap",
    "deepspeed": "DeepSpeed: as megatron, and stops at 1",
    "fairseq": "fairseq: as torch, and stops at a floor",
    "keras": "Keras: as torch",
    "popart": "Graphcore: reads a histogram of the gradients",
    "article, scaled": "the formula, with the scaled gradient's norm",
}
RUNS = {"made up: drifts": "synthetic", "classifier": "classifier", "autoencoder": "autoencoder",
          "bad start": "bad-start", "falling loss": "falling-loss"}  # fmt: skip
MOST = 5
INITS = tuple(range(0, 41, 4))
INTERVALS = (1, 10, 50, 100, 200, 500, 1000, 2000)
BACKOFFS = (0.25, 0.5, 0.75, 0.9)


def chosen_rule(name: str, log2_init: int | None, interval: int | None, backoff: float | None) -> ScaleRule:
    """The rule of that name (of RULES), with what is not None in place of its own. BadInput: it refuses that."""
    rule = RULES[name]
    if isinstance(rule, LogMaxScale):  # it forgets its initial scale after one step, and has nothing else to set
        return rule
    init = None if log2_init is None else 2.0**log2_init
    asked: dict[str, Any] = {"init_scale": init, "growth_interval": interval, "backoff_factor": backoff}
    known = {field.name for field in dataclasses.fields(rule)}
    try:
        return dataclasses.replace(rule, **{k: v for k, v in asked.items() if v is not None and k in known})
    except ValueError as error:
        raise BadInput(f"{name}: {error} The picture still shows the setting before.") from None


@cache
def history_of(name: str) -> GradientHistory:
    """The gradients of that name (a value of RUNS), read once."""
    return synthetic() if name == "synthetic" else GradientHistory.load(name)
