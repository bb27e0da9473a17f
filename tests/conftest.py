"""What every test shares: one thread, one seed, and a home of its own for the learner's data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matmuls on a busy two-core machine can be a thousand times slower with two threads."""
    monkeypatch.setenv("MPKIT_HOME", str(tmp_path / "home"))
    torch.set_num_threads(1)
    torch.manual_seed(0)


def in_ci() -> bool:
    """CI may not skip what a laptop may."""
    return os.environ.get("CI", "").lower() in {"1", "true"}
