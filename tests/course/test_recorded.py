"""Recorded measurements name their GPU, and are the output of a command of the project."""

from __future__ import annotations

import json
from importlib.resources import files


def test_the_record_says_where_when_and_how_it_was_made() -> None:
    record = json.loads((files("mpkit") / "course" / "recorded" / "nvidia_h200.json").read_text(encoding="utf-8"))
    assert "H200" in record["device"]
    assert record["command"].startswith("python -m mpkit bench --device cuda")
    assert "/" not in record["command"]  # no folder of the machine it was made on
    assert all(record[key] for key in ("torch", "python", "date", "mpkit"))
    rows = {(row["name"], row["peer"]): row for row in record["rows"]}
    check = rows["check + unscale, ResNet-50's gradients", "GradScaler.unscale_"]
    assert 0.1 < check["ratio"] < 0.5
    assert all(row["ratio"] is None or row["ratio"] > 0 for row in record["rows"])
    assert len(rows) >= 20
