"""trace on a GPU: it names what it names on a CPU, is quiet where it is quiet there, and waits at the end only."""

from __future__ import annotations

import warnings

import pytest
import torch
from real.families import FAMILIES, make
from real.test_healthy import MODES
from real.test_planted import CASES, FAULTS, OTHER_MODES

from mpkit.tracing.watch import Trace, trace

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch.cuda.is_available() is False"),
]
DEVICE = "cuda"


def run(family: str, mode: str, fault: str | None = None) -> Trace:
    fmt, context, scale = (MODES | OTHER_MODES)[mode]
    with torch.device(DEVICE):  # what the models make on the way, too
        model, batch = make(family)
        if fault is not None:
            FAULTS[fault].plant(model)
        with trace(model, fmt) as watched, context(model):
            (model(*batch) * scale).backward()
    return watched


@pytest.mark.parametrize("mode", ["fp32", "fp32 held against FP16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_healthy_run_is_quiet(family: str, mode: str) -> None:
    watched = run(family, mode)
    assert watched.first is None, str(watched.first)


@pytest.mark.parametrize(("fault", "mode"), [case for case in CASES if case[1].startswith("fp32")])
def test_a_planted_fault_is_named(fault: str, mode: str) -> None:
    planted, first = FAULTS[fault], run(FAULTS[fault].family, mode, fault).first
    assert first is not None
    found = (first.kind, first.phase, first.module, first.operation)
    assert found == (planted.kind, planted.phase, planted.module, planted.operation[mode]), str(first)


def test_a_clean_step_waits_once_or_twice() -> None:
    """At the start of a pass, where looks of the last one may be left, and at the end; never after an operation."""
    with torch.device(DEVICE):
        model, batch = make("vit")
        model(*batch).backward()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with trace(model):
                    model(*batch).backward()
            finally:
                torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in caught if "synchroniz" in str(one.message)]
    assert len(waits) <= 2, [str(one.message) for one in waits]
