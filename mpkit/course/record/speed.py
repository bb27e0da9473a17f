"""`python -m mpkit record-speed`: ResNet-50 in five precisions on this GPU, and matrix products of many sizes.

What lesson 07 shows to those without a GPU is what this command wrote on one.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mpkit import Policy
from mpkit.course.nets.workloads import mlp, ours, resnet, transformer
from mpkit.course.recorded.machine import header, write
from mpkit.course.runs.timing import bandwidth, matmuls, resnet_row, small
from mpkit.timer import seconds_of

POLICIES = ("fp32", "tf32", "article", "fp16-mixed", "bf16-mixed")
SEEDS = 5


def main(argv: Sequence[str]) -> int:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m mpkit record-speed", description="record GPU figures for lesson 07"
    )
    parser.add_argument("--batch", type=int, default=256, help="images a step; default 256")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each precision runs; default 4")
    parser.add_argument("--out", type=Path, help="file; default: named after the GPU, in mpkit/course/recorded")
    chosen = parser.parse_args(argv)
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA device, and there is none here.")
    record = {**header("speed", argv), "cuda": torch.version.cuda, "batch": chosen.batch}
    torch.backends.cudnn.benchmark = True
    record["resnet50"] = {policy: resnet_row(policy, chosen.batch, chosen.seconds) for policy in POLICIES}
    record["parts"] = parts(chosen.batch)
    record["losses"] = {policy: loss_curves(policy) for policy in POLICIES}
    record["matmul"] = matmuls()
    record["add"] = {str(n): bandwidth(n) for n in (2**14, 2**18, 2**22, 2**26)}
    record["small"] = {"mlp": small(mlp), "transformer": small(transformer)}
    path = write("speed", record, chosen.out)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")  # noqa: T201
    return 0


def parts(batch: int) -> dict[str, float]:
    """Milliseconds of the forward pass in FP16 and FP32, of the FP32 backward pass, and an update."""
    model, images, targets = resnet(batch)
    optimizer = ours(model).optimizer
    found: dict[str, list[float]] = {}
    for policy in ("fp32", "fp16-mixed"):
        for _ in range(8):
            optimizer.zero_grad()
            holder: list[Tensor] = []

            def forward(policy: str = policy, holder: list[Tensor] = holder) -> None:
                with Policy.preset(policy).apply(model, engine="native"):
                    holder.append(F.cross_entropy(model(images), targets))

            found.setdefault(f"{policy} forward", []).append(seconds_of(forward))
            with Policy.preset(policy).apply(model, engine="native"):
                found.setdefault(f"{policy} backward", []).append(seconds_of(holder[0].backward))
            found.setdefault("update", []).append(seconds_of(optimizer.step))
    return {name: 1000 * statistics.median(times[3:]) for name, times in found.items()}


def loss_curves(policy: str, steps: int = 40, batch: int = 64) -> list[list[float]]:
    """Losses of five seeds on images whose class shows: each class has a pattern, with as much noise on top."""
    curves = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model, *_ = resnet(1)
        patterns = torch.randn(10, 3, 14, 14, device="cuda").repeat_interleave(16, 2).repeat_interleave(16, 3)
        step, losses = ours(model, policy), []
        for _ in range(steps):
            labels = torch.randint(0, 10, (batch,), device="cuda")
            images = patterns[labels] + torch.randn(batch, 3, 224, 224, device="cuda")
            losses.append(step(images.to(memory_format=torch.channels_last), labels).losses)
        curves.append([round(value, 4) for value in torch.stack(losses).tolist()])
    return curves
