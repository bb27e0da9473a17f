"""Does a precision train ResNet-50 as well as FP32? Losses by seed, a margin, and a bad run that the test must catch.

The task can be learned from the images alone: each of ten classes has a pattern, with as much noise on top. Every step
draws new images, so the training loss is that of images never seen before.
"""

import math
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from mpkit import LossScaler
from mpkit.course.nets.workloads import DEVICE, ours, resnet
from mpkit.course.recorded.speed import LAST
from mpkit.scaling import StaticScale

STEPS, BATCH = 60, 64
SEEDS = range(5)
# The margin stands here before anything is run: 0.1 nats make a class 10 % less probable in the mean.
MARGIN = 0.1
# The rate is chosen with FP32 alone, on seeds that are not shown.
RATES, TUNED_ON = (0.01, 0.003, 0.001), range(100, 103)
PLANTED = "fp16-mixed, gradients flushed"  # must fail: its gradients are 16,384 times too small for FP16
ARMS = ("fp32", "tf32", "article", "fp16-mixed", "bf16-mixed", PLANTED)


def losses(arm: str, rate: float, seed: int) -> tuple[list[float], int]:
    """The loss of every step, and how many steps were skipped.

    The same seed gives the same first weights and the same images in every arm.
    """
    torch.manual_seed(seed)
    model, *_ = resnet(1)
    patterns = torch.randn(10, 3, 14, 14, device=DEVICE).repeat_interleave(16, 2).repeat_interleave(16, 3)
    step, found = ours(model, arm.split(",")[0]), list[torch.Tensor]()
    if arm == PLANTED:
        step = replace(step, scaler=LossScaler(StaticScale(2.0**-14)))
    for group in step.optimizer.param_groups:
        group["lr"] = rate
    for _ in range(STEPS):
        labels = torch.randint(0, 10, (BATCH,), device=DEVICE)
        images = patterns[labels] + torch.randn(BATCH, 3, 224, 224, device=DEVICE)
        found.append(step(images.to(memory_format=torch.channels_last), labels).numbers)
    curve, _, found_inf, _ = torch.stack(found).T.tolist()  # loss, scale, found_inf, gradient norm of each step
    return [round(value, 4) for value in curve], round(sum(found_inf))


def tuned(rate: float) -> dict[str, dict[str, list[float]]]:
    """Where FP32 ends with this rate, on each of the seeds that are kept for the choice."""
    return {"tuning": {str(rate): [round(fmean(losses("fp32", rate, seed)[0][-LAST:]), 4) for seed in TUNED_ON]}}


def best_rate(tuning: dict[str, list[float]]) -> float:
    """The rate whose worst seed ends lowest: a low mean is no help if one seed gets lost."""
    worst = {rate: max(end if math.isfinite(end) else math.inf for end in ends) for rate, ends in tuning.items()}
    return float(min(worst, key=lambda rate: worst[rate]))


def arm(name: str, rate: float) -> dict[str, dict[str, Any]]:
    """All seeds of one arm: their losses, and their skipped steps."""
    curves, skipped = zip(*(losses(name, rate, seed) for seed in SEEDS), strict=True)
    return {"losses": {name: list(curves)}, "skipped": {name: list(skipped)}}
