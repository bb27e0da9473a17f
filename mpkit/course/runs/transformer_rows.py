"""Training steps of transformers of BERT's and GPT-2's size, AdamW included, in every way that is compared."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mpkit import LossScaler, Policy
from mpkit.course.nets.transformer import Transformer
from mpkit.course.nets.workloads import DEVICE, peers_step
from mpkit.course.runs.timing import repeated
from mpkit.scaling import preset
from mpkit.training import TrainStep

# Devlin et al. 2019, section 3 (BERT base), and Radford et al. 2019, table 2 (GPT-2 small), in layers, width and heads.
# Vocabularies are padded to multiples of 64, as people do for tensor cores. The output layer has weights of its own,
# where the papers share the embedding's: so there are more parameters than the papers' 110 and 117 millions.
SIZES: dict[str, dict[str, int]] = {
    "BERT base": {"layers": 12, "width": 768, "heads": 12, "context": 512, "vocabulary": 30_528, "batch": 32},
    "GPT-2 small": {"layers": 12, "width": 768, "heads": 12, "context": 1024, "vocabulary": 50_304, "batch": 8},
}
WARM_UP = 5
Build = Callable[[Transformer, Tensor, Tensor], Callable[[], object]]


def _adamw(net: Transformer) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)


def _kit(policy: str, compile: bool = False) -> Build:
    rule = preset("torch" if policy == "fp16-mixed" else "none")

    def build(net: Transformer, inputs: Tensor, targets: Tensor) -> Callable[[], object]:
        step = TrainStep(
            net, _adamw(net), Policy.preset(policy), LossScaler(rule), net.loss, "native",
            compile=compile, measure_norm=False,
        )  # fmt: skip
        return lambda: step(inputs, targets)

    return build


def _peer(dtype: torch.dtype) -> Build:
    return lambda net, inputs, targets: peers_step(net, inputs, targets, dtype, "default", _adamw(net))


# PyTorch's default for matrix products is FP32 without TF32: what a plain script gets is the row "fp32".
WAYS: dict[str, Build] = {
    **{policy: _kit(policy) for policy in ("fp32", "tf32", "fp16-mixed", "bf16-mixed")},
    "torch.amp FP16 compiled": _peer(torch.float16),
    "torch.amp BF16 compiled": _peer(torch.bfloat16),
    "fp16-mixed compiled": _kit("fp16-mixed", compile=True),
    "bf16-mixed compiled": _kit("bf16-mixed", compile=True),
}


def large(model: str) -> Transformer:
    """A model of `SIZES`, on the GPU; BERT sees all places, GPT those before."""
    size = SIZES[model]
    return Transformer(
        size["vocabulary"], size["width"], size["layers"], size["heads"], size["context"], model.startswith("GPT")
    ).to(DEVICE)


def sizes() -> dict[str, dict[str, int]]:
    """`SIZES` with the number of parameters."""
    return {m: {**size, "parameters": sum(p.numel() for p in large(m).parameters())} for m, size in SIZES.items()}


def transformer_row(model: str, way: str, seconds: float) -> dict[str, Any]:
    """Median time of a whole step on random tokens in ms, tokens a second, joules a million tokens, and peak memory."""
    size, net = SIZES[model], large(model)
    tokens = torch.randint(0, size["vocabulary"], (2, size["batch"], size["context"]), device=DEVICE)
    step = WAYS[way](net, *tokens)
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times, energy = repeated(step, seconds)
    count, middle = size["batch"] * size["context"], statistics.median(times)
    return {
        "ms": 1000 * middle, "tokens_per_s": count / middle,
        "joules_per_million": None if energy is None else energy / len(times) / count * 1e6,
        "peak_GiB": torch.cuda.max_memory_allocated() / 2**30,
    }  # fmt: skip
