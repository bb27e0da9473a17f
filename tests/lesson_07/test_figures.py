"""Every figure in the prose of lesson 07 that claims to be measured is what the record says."""

from __future__ import annotations

import math
import re

import torch
from harness.prose import (  # noqa: F401
    FIGURE,
    prose,
    pytest_generate_tests,
    test_no_figure_is_said_that_is_not_checked_here,
    test_what_is_said_is_what_was_recorded,
)
from lesson_07.test_memory import peak

from mpkit.course.lesson_07 import DEFAULTS, ResNet, SpeedRecord, Transformer, equivalence, ledger, saved_bytes
from mpkit.course.record.losses import MARGIN, PLANTED, SEEDS, STEPS
from mpkit.course.recorded.speed import LAST
from mpkit.course.robustness.table import Table

RECORD = SpeedRecord.load()
ROWS, SMALL, PARTS, SPEEDS, GB = RECORD.resnet50, RECORD.small, RECORD.parts, RECORD.matmul, RECORD.bandwidth
WHOLE = sum(PARTS[part] for part in ("fp32 forward", "fp32 backward", "update"))
FP16_WITHOUT = 133.8  # TFLOP/s without tensor cores, H100 SXM: NVIDIA's white paper of that GPU
FP16, BEST, REDUCED = SPEEDS["FP16"], "fp16-mixed compiled, captured", "torch.amp compiled, reduce-overhead"
COMPILED = "torch.amp compiled"
PEAKS = {fmt: RECORD.peak(fmt.split(",")[0]) or 0 for fmt in SPEEDS}
ENDS = {arm: equivalence(RECORD.ends(arm), RECORD.ends("fp32"), MARGIN) for arm in RECORD.losses if arm != "fp32"}
NO_LOSS = equivalence([0.0] * len(SEEDS), RECORD.ends("fp32"), MARGIN)
SPREAD = [ms / SMALL["transformer"][BEST] for ms in RECORD.spread("transformer", REDUCED)]
COSTS = {way: ROWS[way]["joules_per_image"] for way in ROWS}
JOULES = {way: RECORD.range["resnet50"][way]["joules_per_image"] for way in (BEST, COMPILED)}
WEIGHTS = 4 * 25_557_032 / 2**20
BYTES = [sum(ledger(1, 0.5, way, "Adam").values()) for way in ("autocast", "FP32")]
TF32 = [SPEEDS["TF32"][n] / SPEEDS["FP32"][n] for n in (2048, 4096, 8192)]


PEAKS_OVER = {
    rows: {keep: peak(rows, True, keep) / peak(rows, False, keep) for keep in (True, False)} for rows in (36, 56)
}


def rounded(value: float, *, to: float, digits: int = 0) -> bool:
    return round(value, digits) == to


def kept_shares(images: int) -> list[int]:
    """What autocast keeps of what FP32 keeps, in %: of the lesson's small ResNet and of its transformer."""
    resnet, transformer = ResNet(10, ((8, 1), (16, 1)), stem=8), Transformer(100)
    pictures, tokens = torch.rand(images, 3, 32, 32), torch.arange(images // 2 * 64).view(-1, 64) % 100
    shares = []
    for net, forward in ((resnet, lambda: resnet(pictures)), (transformer, lambda: transformer(tokens))):
        exact = saved_bytes(forward, net.parameters())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            shares.append(round(100 * saved_bytes(forward, net.parameters()) / exact))
    return shares


def gain(model: str, way: str, than: str) -> float:
    """How many times as fast; 1 where the ranges overlap."""
    return SMALL[model][than] / SMALL[model][way] if RECORD.apart(model, way, than) else 1.0


def spread(arm: str) -> float:
    paired = [a - b for a, b in zip(RECORD.ends(arm), RECORD.ends("fp32"), strict=True)]
    return max(paired) - min(paired)


NOTEBOOK = "07_measure_the_speedup.ipynb"
SAID = {
    "more than four times as long": 4.1 < FP16[4096] / FP16[4095] * (4095 / 4096) ** 3 < 5,
    "is an NVIDIA H100.": RECORD.gpu.startswith("NVIDIA H100"),
    "67 TFLOP/s for products in FP32, and 989": [round(PEAKS[fmt]) for fmt in ("FP32", "FP16")] == [67, 989],
    "The model is ResNet-50, 256 images": RECORD.batch == 256,
    "it keeps 6 % **more**": rounded(BYTES[0] / BYTES[1], to=1.06, digits=2),
    "with 0.63 values a parameter": rounded(9 * 36 * 64 / (8 * 64 * 64), to=0.63, digits=2),
    "0.63 values a parameter the copies cost": PEAKS_OVER[36][True] > 1.02 > PEAKS_OVER[36][False],
    "which is 0.98 values a parameter": rounded(9 * 56 * 64 / (8 * 64 * 64), to=0.98, digits=2),
    "peak is 3 to 4 % above FP32's either way": all(1.03 < over < 1.04 for over in PEAKS_OVER[56].values()),
    "at 0.63 it was if gradients": PEAKS_OVER[36][True] > 1.02 > PEAKS_OVER[36][False],
    "the 2.3 of who guesses": rounded(math.log(10), to=2.3, digits=1),
    "ln 10 = 2.3 nats": rounded(math.log(10), to=2.3, digits=1),
    "FP16 mixed skipped its first steps": min(RECORD.skipped["fp16-mixed"]) > 0,
    "a little more energy an image than `torch.compile`": 1.01 < COSTS[BEST] / COSTS[COMPILED] < 1.1,
    "The ranges of the two do not overlap, though they come close": 1 < JOULES[BEST][0] / JOULES[COMPILED][1] < 1.02,
    "On a CPU 54 and 62 % came out; with a quarter of the batch it is 58 and 76 %": [kept_shares(16), kept_shares(4)]
    == [[54, 62], [58, 76]],
    "less than a quarter of its speed": 0.18 < FP16[4095] / FP16[4096] < 0.24,
    "It pays from about 1,024 on": FP16[1024] > 2 * SPEEDS["FP32"][1024]
    and RECORD.range["matmul"]["FP16"]["512"][0] < RECORD.range["matmul"]["FP32"]["512"][1],
    "At 2,048, 4,096 and 8,192 it is six to seven times as fast": rounded(min(TF32), to=6) and rounded(max(TF32), to=7),
    "a factor of two, because it moves half the bytes": abs(GB["FP16"] / GB["FP32"] - 1) < 0.02,
    "stays below each of them": all(RECORD.best(fmt) < peak for fmt, peak in PEAKS.items()),
    "about twice as fast as the peak without": 1.8 < SPEEDS["TF32"][4095] / PEAKS["FP32"] < 2.2,
    "H100 SXM says 134 TFLOP/s": round(FP16_WITHOUT) == 134,
    "best product is five times that": rounded(RECORD.best("FP16") / FP16_WITHOUT, to=5),
    "only 15 % above it": rounded(FP16[4095] / FP16_WITHOUT, to=1.15, digits=2),
    "in eleven ways": len(ROWS) == 11,
    "**five times** as fast as FP32": rounded(RECORD.speedup("fp16-mixed"), to=5),
    "**2.6 times** as fast as PyTorch's defaults": rounded(RECORD.speedup("fp16-mixed", DEFAULTS), to=2.6, digits=1),
    "against that row FP16 is 4.8 times": rounded(RECORD.speedup("fp16-mixed", "fp32, NCHW"), to=4.8, digits=1),
    "BF16 takes over a fifth longer": 1.2 < RECORD.speedup("fp16-mixed", "bf16-mixed") < 1.25,
    "Products are no slower in BF16": RECORD.best("BF16") > 0.98 * RECORD.best("FP16"),
    "Where do the five times come from": rounded(RECORD.speedup("fp16-mixed"), to=5),
    "tensor cores do twice as many operations a second: 989 TFLOP/s in place of 495 on the data sheet, 683 in place of "
    "367 in the table above": [round(speed) for fmt in ("FP16", "TF32") for speed in (PEAKS[fmt], RECORD.best(fmt))]
    == [989, 683, 495, 367],
    "the weights now take 5.1 % more": rounded(100 * ROWS["fp16-mixed"]["weights_MiB"] / WEIGHTS, to=105.1, digits=1),
    "memory is within 6 % of what is needed, before 5 %": 1.05 < ROWS["fp16-mixed"]["weights_MiB"] / WEIGHTS < 1.06,
    "about an eighth of the peak": 0.11 < 24.3e9 * ROWS["fp16-mixed"]["images_per_s"] / 1e12 / PEAKS["FP16"] < 0.14,
    "**A little faster.**": 1 < RECORD.speedup("article") < 1.25,
    "two thirds of the step": abs(PARTS["fp32 backward"] / WHOLE - 2 / 3) < 0.02,
    "PyTorch's defaults, which change nothing in the script, are faster": RECORD.speedup("article", DEFAULTS) < 1,
    "five seeds, 60 steps": (len(SEEDS), STEPS) == (5, 60),
    "before the run: 0.1 nats": RECORD.margin == MARGIN == 0.1,
    "its last ten steps": LAST == 10,
    "spread over tenths of a nat": all(0.1 < spread(arm) < 1 for arm in ENDS if arm != PLANTED),
    "No precision is shown to be worse than FP32": not any(t.low > 0 for arm, t in ENDS.items() if arm != PLANTED),
    "none is shown to be better, and none is shown to be equal": not any(
        test.equivalent or test.high < 0 for test in ENDS.values()
    ),
    "a run with a loss of 0 for every seed would be undecided, too": not (NO_LOSS.equivalent or NO_LOSS.different),
    "The planted run is caught, more than ten margins off": ENDS[PLANTED].low > 10 * MARGIN,
    "between 7 and 36 nats": 7 < min(RECORD.ends(PLANTED)) < max(RECORD.ends(PLANTED)) < 36,
    "That it would see 0.1 nats is not": MARGIN == 0.1,
    "such curves equal within 0.003 nats on a small classifier": Table.load("06.parity").margin == 0.003,
    "least and the most of three processes": RECORD.processes == 3,
    "**slower than plain FP32**": all(gain(m, "torch.amp eager", "PyTorch FP32 eager") < 1 for m in SMALL),
    "alone is less than 1.5 times as fast as eager": all(
        1 <= gain(m, COMPILED, "torch.amp eager") < 1.45 for m in SMALL
    ),
    "the MLP is little faster than in plain FP32": 1 < gain("mlp", REDUCED, "PyTorch FP32 eager") < 1.5,
    "the transformer more than twice as fast": 2 < gain("transformer", REDUCED, "PyTorch FP32 eager") < 3,
    "A wait in every step does not show": all(
        gain(m, "fp16-mixed eager", "fp16-mixed eager, loss.item() every step") == 1 for m in SMALL
    ),
    "more than ten times as fast as plain FP32 for the MLP": 10 < gain("mlp", BEST, "PyTorch FP32 eager") < 15,
    "seven times for the transformer": rounded(gain("transformer", BEST, "PyTorch FP32 eager"), to=7),
    "two to three times as fast as `reduce-overhead` there": SPREAD[0] > 1.9 and SPREAD[1] < 3.2,
    "FP16 mixed is five times as fast as in FP32": rounded(RECORD.speedup("fp16-mixed"), to=5),
    "2.6 times as fast as with PyTorch's defaults": rounded(RECORD.speedup("fp16-mixed", DEFAULTS), to=2.6, digits=1),
    "less than a fifth of FP32's energy": ROWS["fp16-mixed"]["joules_per_image"] < ROWS["fp32"]["joules_per_image"] / 5,
    "tensor cores 2.6, 16 bits 1.9": rounded(RECORD.speedup("tf32"), to=2.6, digits=1)
    and rounded(RECORD.speedup("fp16-mixed", "tf32"), to=1.9, digits=1),
    "bounds the gain: at 1.35 here": rounded(
        WHOLE / (WHOLE - PARTS["fp32 forward"] + PARTS["fp16-mixed forward"]), to=1.35, digits=2
    ),
    "at 1.5 if the forward pass took no time": rounded(WHOLE / (WHOLE - PARTS["fp32 forward"]), to=1.5, digits=1),
    "Measured, it is 1.15": rounded(RECORD.speedup("article"), to=1.15, digits=2),
    "five times as fast, or 2.6 times": rounded(RECORD.speedup("fp16-mixed"), to=5),
}  # fmt: skip
# What the learner is told to set, and what learners say.
COUNTED = (
    "more than 4 times as fast, less than a quarter of the energy, 1.5 to 2 for 16 bits alone, 45 to 55 % of the",
    "see four ways to lose it, and look for a fifth",
    "90 % interval of its ends",
    "1. 7 B parameters, Adam, 0.5 activations",
    "*Higher* shall mean: by more than 2 %",
    "The 36 rows and the 2 % were chosen after seeing other numbers of rows",
    '"Half the bits, so twice the speed"',
)
NO_EXERCISE = re.compile(r"lesson07-(?:3[6-9]|4[0-4]|51|fits.*)")  # made-up cases, and further reading


def test_a_figure_is_noticed() -> None:
    figures = "2.6 times; five times; **five times**; two thirds; a fifth; twice; 234 ms; 0.1 nats; 5 %".split("; ")
    assert all(FIGURE.search(figure) for figure in figures)
    assert not any(FIGURE.search(words) for words in ("five seeds", "16 bits", "4,096 x 4,096", "C04"))
