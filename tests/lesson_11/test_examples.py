"""What a user takes away runs on two ranks, skips as one, and resumes bit for bit; and its record is read back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from mpkit.course.record import ranks as command
from mpkit.course.recorded.ranks import RanksRecord

SMALL = argparse.Namespace(model="mlp", batch=16, size=0, cpu=True)


@pytest.mark.parametrize("example", command.EXAMPLES)
def test_two_ranks_skip_together_and_resume_bit_for_bit(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = command.agreement(example, 2, SMALL)
    assert found["planted"] == {"data": [2, 1], "gradient": [4, 1]}
    assert found["skipped"] == [[2, 4], [2, 4]]
    assert found["scale"] == [2.0**14, 2.0**14]
    weights = found["checksum"]
    assert len(set(weights["straight"])) == 1
    assert weights["resumed"] == weights["straight"]
    assert capsys.readouterr().err.count("images_per_second") == 2


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)train_ddp.py --json --model resnet50 failed:.* add --synthetic"):
        command.run("ddp", 1, True, ["--model", "resnet50"])


# ---- the record ----


def answer(example: str, ranks: int, cpu: bool, options: Any) -> dict[str, Any]:
    """Of a run that nobody waits for: twice as fast on two ranks but for a tenth."""
    one = {"skipped": [0, 2, 4], "scale": 8192.0, "checksum": f"{example}{'--deterministic' in options}"}
    return {"images_per_second": 100.0 * ranks - 10 * (ranks - 1), "ranks": [one] * ranks}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(command, "run", answer)
    path = tmp_path / "ranks_cpu.json"
    assert command.main(["--cpu", "--model", "mlp", "--out", str(path)]) == 0
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_the_record_is_read_back(record: dict[str, Any], tmp_path: Path) -> None:
    found = RanksRecord.load("ranks_cpu", tmp_path)
    assert found.images == {"ddp": {1: 100, 2: 190}, "fsdp": {1: 100, 2: 190}}
    assert found.range["images"]["ddp"] == {"1": [100, 100], "2": [190, 190]}
    assert found.command == "python -m mpkit record-ranks --cpu --model mlp"
    assert (found.gpu, found.gpus, found.processes) == ("CPU", 2, 3)
    for example in command.EXAMPLES:
        assert found.agree(example)
        assert found.bit_equal(example)
        assert found.speedup(example) == 1.9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("skipped", [[2, 4], [2]]), ("skipped", [[2], [2]]), ("scale", [1.0, 2.0]),
        ("checksum", {"straight": ["a", "b"], "again": ["a", "b"], "resumed": ["a", "b"]}),
    ],
)  # fmt: skip
def test_ranks_that_do_not_agree(field: str, value: Any, record: dict[str, Any]) -> None:
    record[field]["ddp"] = value
    found = RanksRecord(**RanksRecord.figures(record))
    assert (found.agree("ddp"), found.agree("fsdp")) == (False, True)


def test_a_resume_is_judged_only_where_a_run_repeats(record: dict[str, Any]) -> None:
    runs = record["checksum"]["ddp"]
    runs["resumed"] = ["x", "x"]
    assert RanksRecord(**RanksRecord.figures(record)).bit_equal("ddp") is False
    runs["again"] = ["y", "y"]
    assert RanksRecord(**RanksRecord.figures(record)).bit_equal("ddp") is None


def test_without_two_gpus_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit):
        command.main([])
    assert "this needs two GPUs or more, and torch sees 1; --cpu tries it out." in capsys.readouterr().err
