"""`python -m mpkit record-speed`: ResNet-50 in many ways, small models, matrix products and losses on this GPU.

What lesson 07 shows to those without a GPU is what this command wrote on one.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mpkit import Policy
from mpkit.course.nets.workloads import Model, mlp, ours, resnet, transformer
from mpkit.course.record.command import arguments, finish, measure_only, recorder
from mpkit.course.record.losses import ARMS, MARGIN, RATES, arm, best_rate, tuned
from mpkit.course.record.processes import Figures, Gathered, Part, measure_here, merge
from mpkit.course.recorded.sheets import sheet
from mpkit.course.runs.resnet_rows import WAYS, resnet_row
from mpkit.course.runs.timing import bandwidth, fp8_products, matmuls, small, small_compiled
from mpkit.timer import seconds_of

MODULE = "mpkit.course.record.speed"
ADDED = (2**14, 2**18, 2**22, 2**26)  # sizes of the addition
MODELS: dict[str, Model] = {"mlp": mlp, "transformer": transformer}


def parts(batch: int) -> dict[str, float]:
    """Milliseconds of the forward and the backward pass, by policy, and of an update."""
    torch.backends.cudnn.benchmark = True
    model, images, targets = resnet(batch)
    optimizer = ours(model).optimizer
    found: dict[str, list[float]] = {}
    for policy in ("fp32", "fp16-mixed", "article"):
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


def _row(way: str) -> Part:
    return Part(lambda o: {"resnet50": {way: resnet_row(way, o.batch, o.seconds)}}, long="compiled" in way)


def _tuned(rate: float) -> Part:
    return Part(lambda _: tuned(rate), once=True, long=True)


def _arm(name: str) -> Part:
    return Part(lambda o: arm(name, o.rate), once=True, long=name in ("fp32", "article"))


def _small(name: str, compiled: bool) -> Part:
    return Part(lambda _: {"small": {name: (small_compiled if compiled else small)(MODELS[name])}}, long=compiled)


FIRST: dict[str, Part] = {
    **{f"tuning: {rate}": _tuned(rate) for rate in RATES},
    **{f"resnet50: {way}": _row(way) for way in WAYS},
    "parts": Part(lambda o: {"parts": parts(o.batch)}),
    "products": Part(lambda _: {"matmul": {**matmuls(), **fp8_products()}}),
    "additions": Part(lambda _: {"add": {str(n): bandwidth(n) for n in ADDED}}),
    **{f"small: {name}{', compiled' * late}": _small(name, late) for late in (False, True) for name in MODELS},
}  # fmt: skip
LOSSES: dict[str, Part] = {f"losses: {name}": _arm(name) for name in ARMS}
PARTS = {**FIRST, **LOSSES}


def main(argv: Sequence[str]) -> int:
    """Measure everything in processes of their own, and write the file."""
    parser = arguments("speed", "record GPU figures for lesson 07", seconds=3.0)
    parser.add_argument("--batch", type=int, default=256, help="images a step of ResNet-50; default 256")
    parser.add_argument("--rate", type=float, default=RATES[1], help=argparse.SUPPRESS)  # for the parts "losses"
    chosen = parser.parse_args(argv)
    if chosen.part:
        return measure_here(PARTS, chosen)
    processes = recorder(parser, chosen, MODULE)
    options = ["--batch", str(chosen.batch), "--seconds", str(chosen.seconds)]
    if chosen.only:
        return measure_only(processes, PARTS, chosen.only, options)
    first = processes.gather(FIRST, options)
    rate = best_rate(first.figures["tuning"])
    second = processes.gather(LOSSES, [*options, "--rate", str(rate)])
    figures: Figures = {"batch": chosen.batch, "sheet": sheet(first.machine["gpu"]), "rate": rate, "margin": MARGIN}
    merge(figures, first.figures)
    merge(figures, second.figures)
    return finish("speed", argv, chosen, Gathered(figures, first.ranges, first.machine))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
