"""What is raced: gradients by name, scaling rules, and what the panel's sliders make of a rule."""

import dataclasses
from functools import cache
from typing import Any

from mpkit import StaticScale
from mpkit.course.panels.panel import BadInput
from mpkit.course.recorded.history import GradientHistory, synthetic
from mpkit.scaling import LogMaxScale, ScaleRule, preset

RULES: dict[str, ScaleRule] = {
    "no scaling": preset("none"),
    "static 2¹⁰": StaticScale(2.0**10),
    "torch": preset("torch"),
    "apex-amp": preset("apex-amp"),
    "deepspeed": preset("deepspeed"),
    "fairseq": preset("fairseq"),
    "megatron": preset("megatron"),
    "keras": preset("keras"),
    "LogMax": preset("openseq2seq-logmax"),
    "popart": preset("popart"),
    "article": preset("article"),
    "article, scaled norm": preset("article-scaled-norm"),
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
    if isinstance(rule, LogMaxScale):  # it forgets its first scale after one step, and has nothing else to set
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
