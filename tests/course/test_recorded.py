"""Every stored figure says on what, with which versions, when, by which command and in how many processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpkit.course.recorded.machine import FOLDER

FILES = sorted(FOLDER.rglob("*.json"))
ALWAYS = ("torch", "date", "command", "processes")
GPU = ("gpu", "gpus", "cuda", "cudnn", "triton", "python", "driver", "range")


@pytest.mark.parametrize("path", [one for one in FILES if "robustness" not in one.name], ids=lambda path: path.stem)
def test_a_record_says_where_when_and_how_it_was_made(path: Path) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    wanted = (*ALWAYS, "device") if path.parent.name == "histories" else (*ALWAYS, *GPU)
    assert [name for name in wanted if not data.get(name)] == []
    assert data["command"].startswith("python -m mpkit record")
    assert "/" not in data["command"]  # no folder of the machine it was made on
    launches = 1 if path.parent.name == "histories" else 2 if path.stem.startswith("ranks") else 3
    assert data["processes"] >= launches  # a launch of several ranks takes a minute, and has a range of its own


@pytest.mark.parametrize("path", [one for one in FILES if "robustness" in one.name], ids=lambda path: path.stem)
def test_so_does_a_sweep(path: Path) -> None:
    for key, sweep in json.loads(path.read_text(encoding="utf-8"))["sweeps"].items():
        for piece in ("Measured on ", "torch ", "Python ", ", 20", "one process: python -m mpkit robustness"):
            assert piece in sweep["source"], key


def test_there_are_records() -> None:
    assert {"classifier", "speed_nvidia_h100_80gb_hbm3"} <= {path.stem for path in FILES}
