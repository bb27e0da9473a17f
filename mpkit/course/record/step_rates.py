"""Steps a second of the lessons' own long runs, on this machine's CPU and on its GPU.

python -m mpkit.course.record.step_rates [--steps N] [--threads N]
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch

from mpkit import BF16, DynamicScale, NoScaling, Policy
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP, Autoencoder
from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.runs.experiments import READ_EVERY, Variant, train_each, train_seeds
from mpkit.optim import Kahan, MasterWeights, Rounded

FP32, FP16, BF16_MIXED, ARTICLE = (Policy.preset(name) for name in ("fp32", "fp16-mixed", "bf16-mixed", "article"))
Runs = Callable[[str, int], Iterator[object]]  # (device, steps) → one item a step


def _digits(variant: Variant, model: type[MLP] | type[Autoencoder], lr: float, adam: bool = True) -> Runs:
    def begin(device: str, steps: int) -> Iterator[object]:
        held = digits(device)
        data = held.classification() if model is MLP else held.reconstruction()
        make = torch.optim.Adam if adam else torch.optim.SGD
        return train_each(
            [variant], lambda: model(seeds=range(5)).to(device), data,
            lambda net: make(net.parameters(), lr=lr, fused=True), steps, lambda net: torch.zeros(1),
            measure_flushed=False,
        )  # fmt: skip

    return begin


def _text(variant: Variant) -> Runs:
    def begin(device: str, steps: int) -> Iterator[object]:
        corpus = text(device)
        return train_seeds(
            [variant], range(5), lambda seed: Transformer(len(corpus.characters), seed=seed).to(device),
            lambda seed: corpus.batches(seed=seed),
            lambda net: torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.9, 0.99), fused=True), steps,
            score=lambda net: 0.0, weight=2.0**-14,
        )  # fmt: skip

    return begin


RUNS: dict[str, Runs] = {
    "03 FP32": _digits(Variant("a", FP32), MLP, 1e-4),
    "03 nearest": _digits(Variant("a", FP32, wrap=lambda opt: Rounded(opt, BF16)), MLP, 1e-4),
    "03 stochastic": _digits(Variant("a", FP32, wrap=lambda opt: Rounded(opt, BF16, "stochastic")), MLP, 1e-4),
    "03 Kahan": _digits(Variant("a", FP32, wrap=lambda opt: Kahan(opt, BF16)), MLP, 1e-4),
    "03 FP32 master": _digits(Variant("a", FP32, wrap=lambda opt: MasterWeights(opt, BF16)), MLP, 1e-4),
    "04 FP32": _digits(Variant("a", FP32), Autoencoder, 2e-3),
    "04 FP16 dynamic": _digits(Variant("a", FP16, DynamicScale()), Autoencoder, 2e-3),
    "06 FP16 mixed": _digits(Variant("a", FP16, DynamicScale()), MLP, 0.1, adam=False),
    "06 BF16": _digits(Variant("a", BF16_MIXED, NoScaling()), MLP, 0.1, adam=False),
    "06 article": _digits(Variant("a", ARTICLE, DynamicScale()), MLP, 0.1, adam=False),
    "08 FP32, 5 seeds": _text(Variant("a", FP32)),
    "08 FP16 dynamic, 5 seeds": _text(Variant("a", FP16, DynamicScale())),
}


def steps_a_second(runs: Runs, device: str, steps: int) -> float:
    """After a warm-up of two reads of a captured run, in which it is captured. All seeds' step counts as one."""
    warm = 2 * READ_EVERY
    training = runs(device, warm + steps)
    list(islice(training, warm))
    start = time.perf_counter()
    taken = sum(1 for _ in training)
    return taken / (time.perf_counter() - start)


def main(argv: Sequence[str]) -> int:
    """Print a row for each run."""
    parser = argparse.ArgumentParser(prog="python -m mpkit.course.record.step_rates", description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="steps to time on a CPU; ten times as many on a GPU")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1, as in the lessons")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(chosen.threads)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True  # as mpkit.start
    gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if gpu else "no GPU"
    sys.stdout.write(f"{name} · torch {torch.__version__} · {chosen.threads} CPU threads · steps a second\n")
    for run, runs in RUNS.items():
        cpu = steps_a_second(runs, "cpu", chosen.steps)
        cuda = steps_a_second(runs, "cuda", 10 * chosen.steps) if gpu else 0.0
        sys.stdout.write(f"{run:26} CPU {cpu:7.0f}   GPU {cuda:7.0f}   {cuda / cpu:5.1f} x\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
