"""Whole training steps on a GPU, against what a user of PyTorch writes: torch.amp, eager and under torch.compile."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache, partial

import torch
from torch import nn

from mpkit.bench import diagnosing
from mpkit.bench.measure import Case, Sampler, timed
from mpkit.course.nets.workloads import Model, fp32_peer, mlp, ours, peers_step, resnet, transformer
from mpkit.tracing.watch import trace
from mpkit.training.capture import CapturedStep

MODELS: dict[str, Model] = {"MLP": mlp, "transformer d = 256": transformer, "ResNet-50 batch 256": resnet}
EAGER, COMPILED, REDUCED = "torch.amp, eager", "torch.compile", "torch.compile, reduce-overhead"
# The largest ratio to each peer, of the step that is compiled and captured.
BARS = {
    "MLP": {EAGER: 1 / 15, REDUCED: 1 / 10},
    "transformer d = 256": {EAGER: 1 / 7, REDUCED: 1 / 2},
    "ResNet-50 batch 256": {EAGER: 1 / 1.15, REDUCED: 1 / 0.98},
}
EAGER_BAR, ARTICLE_BAR = 1.05, 1 / 1.2
# A step that is watched for Inf and NaN, over one that is not. torch's own watch sees the backward pass, and only NaN.
WATCHED = {"transformer d = 256": 2.5, "ResNet-50 batch 256": 1.5}
WATCHES: dict[str, Callable[[nn.Module], AbstractContextManager[object]]] = {
    "mpkit.trace": trace,
    "detect_anomaly": lambda model: torch.autograd.set_detect_anomaly(True),
}


def cases() -> list[Case]:
    """Rows for `python -m mpkit bench --device cuda`; every optimizer is the same fused SGD."""
    rows = []
    for model, make in MODELS.items():
        step = f"FP16 step, {model}"
        rows.append(Case(f"{step}, eager", EAGER, partial(_pair, make, "eager", EAGER), EAGER_BAR))
        for way in ("captured", "compiled + captured"):
            bars = BARS[model] if way == "compiled + captured" else {}
            rows += [
                Case(f"{step}, {way}", peer, partial(_pair, make, way, peer), bars.get(peer))
                for peer in (EAGER, COMPILED, REDUCED)
            ]
    return [
        *rows,
        Case("the article's step, ResNet-50 batch 256", "FP32 without TF32", _article, ARTICLE_BAR),
        *(
            Case(
                f"FP16 step, {model}, eager, with {watch}",
                "without it",
                partial(_watched, MODELS[model], WATCHES[watch]),
                bar if watch == "mpkit.trace" else None,
            )
            for model, bar in WATCHED.items()
            for watch in WATCHES
        ),
        *diagnosing.cases(),
    ]


def _pair(make: Model, way: str, peer: str) -> tuple[Sampler, Sampler]:
    return _sampler(make, way), _sampler(make, peer)


@lru_cache(maxsize=6)
def _sampler(make: Model, way: str) -> Sampler:
    """The six steps of a model are made and compiled once for all its rows; those of the next model replace them."""
    torch.backends.cudnn.benchmark = True
    return timed(_steps(make, way))


def _steps(make: Model, way: str) -> Callable[[], object]:
    if way == EAGER:
        return peers_step(*make())
    if way in (COMPILED, REDUCED):
        return peers_step(*make(), compiled="reduce-overhead" if way == REDUCED else "default")
    model, inputs, targets = make()
    step = ours(model, compile=way.startswith("compiled"))
    if way == "eager":
        return lambda: step(inputs, targets)
    captured = CapturedStep(step, inputs, targets)
    return lambda: captured(captured.inputs, captured.targets)


def _article() -> tuple[Sampler, Sampler]:
    """Its pipeline (forward in FP16, gradients in FP32) against a plain step in FP32."""
    _sampler.cache_clear()  # captured steps hold their memory
    torch.backends.cudnn.benchmark = True
    model, inputs, targets = resnet()
    step = ours(model, "article")
    return timed(lambda: step(inputs, targets)), timed(fp32_peer(*resnet()))


def _watched(make: Model, watch: Callable[[nn.Module], AbstractContextManager[object]]) -> tuple[Sampler, Sampler]:
    torch.backends.cudnn.benchmark = True
    model, inputs, targets = make()
    step = ours(model)

    def watched() -> None:
        with watch(model):
            step(inputs, targets)

    return timed(watched), timed(lambda: step(inputs, targets))
