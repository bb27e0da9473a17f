"""The speed lab measures the GPU that it runs on."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("ipywidgets")

from mpkit.course.lesson_07.speed_lab import SpeedLabPanel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_measure_on_this_gpu() -> None:
    panel = SpeedLabPanel(device="cuda")
    recorded = panel.png()
    panel.measure()
    assert panel.last_error is None
    assert panel.record.gpu == torch.cuda.get_device_name()
    assert panel.png() != recorded
    panel.size = 4096
    speeds = panel.record.matmul
    assert speeds["FP16"][4096] > speeds["TF32"][4096] > speeds["FP32"][4096] > 0  # measured, on any GPU since Ampere
    for panel.case in ("launch-bound", "memory-bound", "sync every step"):
        assert panel.last_error is None
    assert panel.record.small["mlp"]["fp16-mixed captured"] < panel.record.small["mlp"]["fp16-mixed eager"] / 3
