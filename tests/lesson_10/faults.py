"""Faults that lesson 10 must notice: in the trace, in reruns, in what is put back, in diagnose and in guard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from harness.fault import Fault, Patch, collector, swap

from mpkit.course.clinic import PATIENTS
from mpkit.course.lesson_10 import clinic_page
from mpkit.diagnosis import wide, words
from mpkit.diagnosis.buffers import Buffers
from mpkit.diagnosis.diagnose import diagnose
from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.gate import Gate
from mpkit.diagnosis.guard import Guard
from mpkit.diagnosis.observed import Observed
from mpkit.diagnosis.snapshot import Snapshot
from mpkit.tracing.event import judge

FAULTS: dict[str, Fault] = {}
fault = collector(FAULTS)
UNSEEN: set[str] = set()
UNPAINTED = [(clinic_page.ClinicPage, "drawn_by")]


@fault
def the_sick_are_cured(patch: Patch) -> None:
    for name, patient in list(PATIENTS.items()):
        patch.setitem(PATIENTS, name, replace(patient, build=_always(patient.build, False)))


def _always(build: Any, sick: bool) -> Any:
    return lambda _sick, seed, device="cpu": build(sick, seed, device)


@fault
def a_trace_takes_an_overflow_for_an_invalid_operation(patch: Patch) -> None:
    def muddled(*args: Any, **more: Any) -> str | None:
        kind = judge(*args, **more)
        return "invalid" if kind == "overflow" else kind

    swap(patch, judge, muddled)


@fault
def fp32_is_not_fp32(patch: Patch) -> None:
    @contextmanager
    def unchanged(modules: Any, optimizer: Any, left: Any) -> Iterator[None]:
        yield

    swap(patch, wide.in_fp32, unchanged)


@fault
def nothing_is_put_back(patch: Patch) -> None:
    patch.setattr(Snapshot, "restore", lambda self: None)


@fault
def the_scale_is_not_taken_away(patch: Patch) -> None:
    honest = Observed.__init__

    def deaf(self: Observed, *args: Any, factor: float = 1.0, **more: Any) -> None:
        honest(self, *args, **more)

    patch.setattr(Observed, "__init__", deaf)


@fault
def two_runs_always_agree(patch: Patch) -> None:
    from mpkit.diagnosis.exam import same

    swap(patch, same, lambda a, b: True)


@fault
def everybody_is_healthy(patch: Patch) -> None:
    swap(patch, diagnose, lambda *_, **__: Diagnosis("healthy"))


@fault
def a_place_is_always_the_loss(patch: Patch) -> None:
    swap(patch, words.source, lambda event: "the loss")


@fault
def guard_lets_bad_steps_through(patch: Patch) -> None:
    patch.setattr(Gate, "_guarded", lambda self, step, found: step)


@fault
def guard_keeps_the_poisoned_buffers(patch: Patch) -> None:
    patch.setattr(Buffers, "put_back", lambda self: None)


@fault
def guard_reads_more_than_it_must(patch: Patch) -> None:
    honest = Guard._agreed

    def curious(self: Guard, flag: Any) -> bool:
        bool(torch.ones(()))
        return honest(self, flag)

    patch.setattr(Guard, "_agreed", curious)
