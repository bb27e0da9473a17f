"""The speed lab's button, on a machine whose figures are made up: the order in which things are seen."""

from __future__ import annotations

from typing import Any

import pytest

from mpkit.course.lesson_07 import speed_lab
from mpkit.course.lesson_07.speed_lab import SpeedLabPanel


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was measured, in order."""
    told: list[Any] = []
    record = SpeedLabPanel().record

    def measured(name: str, figures: Any) -> Any:
        return lambda *_: told.append(name) or figures

    monkeypatch.setattr(speed_lab, "in_hardware", lambda *_: True)
    monkeypatch.setattr(speed_lab.torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(speed_lab, "matmuls", measured("products", record.matmul))
    monkeypatch.setattr(speed_lab, "fp8_products", dict)
    monkeypatch.setattr(speed_lab, "bandwidth", measured("bandwidth", record.bandwidth))
    monkeypatch.setattr(speed_lab, "small", measured("small", record.small["mlp"]))
    return told


def test_the_bar_is_seen_before_anything_is_measured_and_moves_to_its_end(told: list[Any]) -> None:
    panel = SpeedLabPanel(device="cuda")
    panel.progress.observe(lambda change: told.append(change["new"]), names="value")
    panel.progress.layout.observe(lambda change: told.append(change["new"]), names="visibility")
    panel.measure()
    amp = panel.record.small["mlp"]["torch.amp eager"]
    assert told == ["visible", "products", 1, "bandwidth", 2, "small", 3, "small", 4, "hidden"]
    assert (panel.record.gpu, panel.record.range) == ("a card", {})
    assert panel.record.spread("mlp", "torch.amp eager") == pytest.approx((0.85 * amp, 1.15 * amp))
    told.clear()
    panel.measure()
    assert told[:3] == [0, "visible", "products"], "from the start again"


def test_the_bar_goes_when_the_measurement_fails(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPKIT_STRICT", raising=False)
    panel = SpeedLabPanel(device="cuda")
    before = panel.record
    monkeypatch.setattr(speed_lab, "bandwidth", lambda _: 1 / 0)
    panel.measure()
    assert (panel.progress.layout.visibility, panel.record) == ("hidden", before)
    assert "ZeroDivisionError" in panel.message.value
