"""`python -m mpkit record-transformer`: transformers of BERT's and GPT-2's size, and the lesson's small ones, on a GPU.

What lesson 08 shows to those without a GPU is what this command wrote on one.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mpkit import DynamicScale, LossScaler, NoScaling, Policy, fit
from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.recorded.machine import header, write
from mpkit.course.runs.timing import repeated
from mpkit.scaling import ScaleRule, preset
from mpkit.training import TrainStep

POLICIES = ("fp32", "tf32", "fp16-mixed", "bf16-mixed")
# Devlin et al. 2019, section 3 (BERT base), and Radford et al. 2019, table 2 (GPT-2 small), in layers, width and heads.
# Vocabularies are padded to multiples of 64, as people do for tensor cores.
SIZES: dict[str, dict[str, int]] = {
    "BERT base": {"layers": 12, "width": 768, "heads": 12, "context": 512, "vocabulary": 30_528, "batch": 32},
    "GPT-2 small": {"layers": 12, "width": 768, "heads": 12, "context": 1024, "vocabulary": 50_304, "batch": 8},
}
RUNS: dict[str, tuple[str, ScaleRule, float]] = {
    "FP32": ("fp32", NoScaling(), 1.0),
    "FP16 mixed": ("fp16-mixed", DynamicScale(growth_interval=100), 1.0),
    "FP16, no scaling": ("fp16-mixed", NoScaling(), 1.0),
    "BF16 mixed": ("bf16-mixed", NoScaling(), 1.0),
    "FP16, weight 2^-14, no scaling": ("fp16-mixed", NoScaling(), 2.0**-14),
    "FP16, weight 2^-14, scaled": ("fp16-mixed", DynamicScale(growth_interval=100), 2.0**-14),
    "BF16, weight 2^-14, no scaling": ("bf16-mixed", NoScaling(), 2.0**-14),
}
SEEDS, EVERY = 5, 20


def main(argv: Sequence[str]) -> int:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(prog="python -m mpkit record-transformer", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each precision runs; default 4")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each character model; default 2000")
    parser.add_argument("--out", type=Path, help="file; default: named after the GPU, in mpkit/course/recorded")
    chosen = parser.parse_args(argv)
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA device, and there is none here.")
    losses: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    for model, masked in (("next character", False), ("hidden characters", True)):
        for run in RUNS:
            held_out, curve = train(run, masked, chosen.steps)
            losses.setdefault(model, {})[run], curves.setdefault(model, {})[run] = held_out, curve
            print(f"{model}, {run}: {statistics.fmean(held_out):.4f}", flush=True)  # noqa: T201
    speeds = {model: {policy: speed(model, policy, chosen.seconds) for policy in POLICIES} for model in SIZES}
    figures = {"steps": chosen.steps, "sizes": sizes(), "speed": speeds, "losses": losses, "curves": curves}
    path = write("transformer", {**header("transformer", argv), **figures}, chosen.out)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")  # noqa: T201
    return 0


def large(model: str) -> Transformer:
    """A model of `SIZES`, on the GPU; BERT sees all places, GPT those before."""
    size = SIZES[model]
    return Transformer(
        size["vocabulary"], size["width"], size["layers"], size["heads"], size["context"], model.startswith("GPT")
    ).cuda()


def sizes() -> dict[str, dict[str, int]]:
    """`SIZES` with the number of parameters."""
    return {m: {**size, "parameters": sum(p.numel() for p in large(m).parameters())} for m, size in SIZES.items()}


def speed(model: str, policy: str, seconds: float) -> dict[str, Any]:
    """Median time of a whole step on random tokens, tokens a second, energy, and peak memory."""
    torch.cuda.empty_cache()
    size, net = SIZES[model], large(model)
    tokens = torch.randint(0, size["vocabulary"], (2, size["batch"], size["context"]), device="cuda")
    rule = preset("torch") if policy == "fp16-mixed" else preset("none")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    step = TrainStep(net, optimizer, Policy.preset(policy), LossScaler(rule), net.loss, engine="native")
    for _ in range(5):
        step(*tokens)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times, energy = repeated(lambda: step(*tokens), seconds)
    count = size["batch"] * size["context"]
    row = {
        "ms": 1000 * statistics.median(times), "tokens_per_s": count / statistics.median(times),
        "joules_per_million": None if energy is None else energy / len(times) / count * 1e6,
        "peak_GiB": torch.cuda.max_memory_allocated() / 2**30,
    }  # fmt: skip
    print(f"{model}, {policy}: {row['ms']:.1f} ms, {row['tokens_per_s']:,.0f} tokens/s", flush=True)  # noqa: T201
    return row


def train(run: str, masked: bool, steps: int) -> tuple[list[float], list[float]]:
    """Five seeds of the lesson's model in the device's own formats: held-out losses, and the mean training curve."""
    policy, rule, weight = RUNS[run]
    corpus, held_out, curves = text("cuda"), [], []
    for seed in range(SEEDS):
        net = Transformer(len(corpus.characters) + masked, causal=not masked, seed=seed).cuda()
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.9, 0.99), fused=True, capturable=True)

        def loss(logits: torch.Tensor, targets: torch.Tensor, net: Transformer = net) -> torch.Tensor:
            return weight * net.loss(logits, targets)

        records = fit(
            net, corpus.batches(32, masked=masked, seed=seed), optimizer=optimizer, steps=steps, loss_fn=loss,
            policy=Policy.preset(policy), scaler=LossScaler(rule), engine="native", capture=True, read_every=EVERY,
        )  # fmt: skip
        curves.append([record.loss / weight for record in records][::EVERY])
        with torch.no_grad():
            inputs, targets = corpus.batches(256, masked=masked, seed=99, held_out=True).batch(0)
            held_out.append(round(float(net.loss(net(inputs), targets)), 4))
    return held_out, [round(statistics.fmean(values), 4) for values in zip(*curves, strict=True)]
