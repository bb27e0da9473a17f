"""Faults that lesson 07 must notice: in the arithmetic of speed, in the memory ledger, in the recorded figures."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.fault import Fault, Patch, collector, swap

from mpkit.course.lesson_07 import memory as memory_ledger
from mpkit.course.lesson_07 import memory_ledger as ledger_panel
from mpkit.course.lesson_07 import speed_bars, speed_lab
from mpkit.course.lesson_07.memory import WAYS, Way, ledger, saved_bytes
from mpkit.course.nets.resnet import ResNet, resnet50
from mpkit.course.recorded import machine
from mpkit.course.recorded import speed as speed_record
from mpkit.course.recorded.speed import SpeedRecord, amdahl, intensity
from mpkit.course.runs.equivalence import equivalence

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(speed_lab, "SpeedFigure"), (speed_lab, "SpeedBars"), (ledger_panel, "LedgerFigure")]
assert memory_ledger.WAYS is WAYS
assert speed_record.amdahl is amdahl


@fault
def amdahl_forgets_the_rest(patch: Patch) -> None:
    swap(patch, amdahl, lambda faster, rest, speedup: speedup)


@fault
def amdahl_speeds_up_the_other_part(patch: Patch) -> None:
    swap(patch, amdahl, lambda faster, rest, speedup: amdahl(rest, faster, speedup))


@fault
def the_speedup_is_upside_down(patch: Patch) -> None:
    honest = SpeedRecord.speedup
    patch.setattr(SpeedRecord, "speedup", lambda self, *ways: 1 / honest(self, *ways))


@fault
def the_best_product_is_the_slowest(patch: Patch) -> None:
    patch.setattr(SpeedRecord, "best", lambda self, fmt: min(self.matmul[fmt].values()))


@fault
def every_value_has_four_bytes(patch: Patch) -> None:
    swap(patch, intensity, lambda n, fmt: 2 * n**3 / (12 * n * n))


@fault
def the_record_mixes_up_two_rows(patch: Patch) -> None:
    honest = SpeedRecord.load.__func__  # type: ignore[attr-defined]

    def load(cls: Any, *arguments: Any) -> SpeedRecord:
        record = honest(cls, *arguments)
        rows = {**record.resnet50, "fp16-mixed": record.resnet50["tf32"]}
        return dataclasses.replace(record, resnet50=rows)

    patch.setattr(SpeedRecord, "load", classmethod(load))


@fault
def a_losing_run_is_called_equal(patch: Patch) -> None:
    swap(patch, equivalence, lambda scores, reference, margin: equivalence(reference, reference, margin))


@fault
def every_range_is_a_point(patch: Patch) -> None:
    patch.setattr(SpeedRecord, "spread", lambda self, model, way: (self.small[model][way],) * 2)


@fault
def autocast_needs_no_copies(patch: Patch) -> None:
    patch.setitem(WAYS, "autocast", Way(4, 0, 4, 4, 2))


@fault
def the_master_copy_is_forgotten(patch: Patch) -> None:
    patch.setitem(WAYS, "FP16 + master", Way(0, 2, 2, 4, 2))


@fault
def every_optimizer_is_adam(patch: Patch) -> None:
    swap(patch, ledger, lambda p, a, way="FP32", optimizer="Adam": ledger(p, a, way, "Adam"))


@fault
def nothing_is_kept_for_the_backward_pass(patch: Patch) -> None:
    swap(patch, saved_bytes, lambda forward, parameters: 1)


@fault
def weights_count_as_activations(patch: Patch) -> None:
    swap(patch, saved_bytes, lambda forward, parameters: saved_bytes(forward, ()))


@fault
def resnet_has_a_block_too_few(patch: Patch) -> None:
    swap(patch, resnet50, lambda: ResNet(1000, ((64, 3), (128, 4), (256, 5), (512, 3))))


@fault
def a_step_that_waits_is_shown_as_one_that_does_not(patch: Patch) -> None:
    eager, (_, *waiting) = speed_bars.WAYS["sync every step"]
    patch.setitem(speed_bars.WAYS, "sync every step", (eager, (eager[0], *waiting)))


@fault
def half_the_bytes_are_as_many(patch: Patch) -> None:
    patch.setitem(speed_record.BYTES, "FP16", 4)


def touched_up(*place: str | int, value: float) -> Fault:
    """The lesson reads a copy of the record of speeds in which one number is another one."""
    honest = machine.read

    def read(kind: str, *name_and_folder: Any) -> dict[str, Any]:
        data = honest(kind, *name_and_folder)
        *way, last = place if kind == SpeedRecord.KIND else ("unused",)
        where: Any = data
        for key in way:
            where = where[key]
        where[last] = value
        return data

    return lambda patch: swap(patch, honest, read)


# One number of the record each → the verdicts that must then decide nothing.
TOUCHED_UP: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "the_articles_step_is_as_slow_as_fp32s": (touched_up("resnet50", "article", "ms", value=280.0), ("C04",)),
    "the_articles_step_is_faster_than_its_bound": (touched_up("resnet50", "article", "ms", value=190.0), ("C04",)),
    "the_articles_step_is_much_faster": (touched_up("resnet50", "article", "ms", value=170.0), ("C04", "C18")),
    "an_fp32_backward_pass_takes_little": (touched_up("parts", "fp32 backward", value=60.0), ("C04",)),
    "fp16_is_three_times_as_fast": (
        touched_up("resnet50", "fp16-mixed", "ms", value=90.0), ("C01", "C04", "C07", "C18", "C19", "C24")),
    "tf32_alone_does_it": (
        touched_up("resnet50", "tf32", "ms", value=60.0), ("C01", "C04", "C18", "C19", "C24")),
    "the_margin_is_ten_times_as_wide": (touched_up("margin", value=1.0), ("C04", "C18")),
    "one_loss_of_fp32_is_higher": (touched_up("losses", "fp32", 1, -1, value=8.7), ("C04", "C18")),
    "fp16_takes_as_much_energy": (
        touched_up("resnet50", "fp16-mixed", "joules_per_image", value=0.3), ("C01", "C07")),
    "torch_amp_is_as_fast_as_fp32_in_a_small_model": (
        touched_up("small", "mlp", "torch.amp eager", value=1.4), ("C07",)),
    "the_best_product_is_one_without_tensor_cores": (
        touched_up("matmul", "FP16", "4095", value=300.0), ("C10",)),
}  # fmt: skip
FAULTS |= {name: inject for name, (inject, _) in TOUCHED_UP.items()}
