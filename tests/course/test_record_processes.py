"""Recording in fresh processes: who runs where, what goes on after a break, and how the figures are put together."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mpkit.course.record import speed, transformer
from mpkit.course.record.command import shown
from mpkit.course.record.losses import ARMS, PLANTED, RATES, best_rate
from mpkit.course.record.processes import Gathered, Part, Recorder, combined, joined, measure_here, merge
from mpkit.course.recorded.sheets import SHEETS, sheet
from mpkit.course.recorded.speed import SpeedRecord
from mpkit.course.recorded.transformer import TransformerRecord
from mpkit.course.runs import resnet_rows, transformer_rows

# Stands for a recording module: each process says what it was given, and which process it is.
CHILD = """
import argparse, json, os, sys
parser = argparse.ArgumentParser()
for name in ("--part", "--into", "--seconds"):
    parser.add_argument(name)
chosen = parser.parse_args()
if chosen.part == "bad":
    sys.exit("the GPU fell off")
if chosen.part == "silent":
    sys.exit()
with open(os.path.join(os.path.dirname(chosen.into), "order"), "a") as order:
    order.write(chosen.part + " ")
gpu = "another" if chosen.part == "elsewhere" else "one"
seen = {key: os.environ[key] for key in ("CUDA_VISIBLE_DEVICES", "TORCHINDUCTOR_CACHE_DIR")}
seen = {"pid": os.getpid(), "seconds": float(chosen.seconds), "seen": [seen]}
json.dump({"machine": {"gpu": gpu}, "figures": {"rows": {chosen.part: seen}}}, open(chosen.into, "w"))
if chosen.part == "late":
    sys.exit("it broke at the very end")
"""
NOTHING = Part(lambda _: {})
MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "torch": "2", "cuda": "13", "cudnn": "9", "triton": "3", "python": "3.12",
           "driver": "580"}  # fmt: skip


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Recorder("child", 3, ["4", "7"], tmp_path / "work")


def test_every_figure_comes_from_three_processes_on_the_given_gpus(recorder: Recorder) -> None:
    found = recorder.gather(
        {"a: x": NOTHING, "b": NOTHING, "seeds": Part(NOTHING.measure, once=True)}, ["--seconds", "2"]
    )
    files = [json.loads(path.read_text()) for path in sorted(recorder.folder.glob("*.json"))]
    rows = [row for one in files for row in one["figures"]["rows"].values()]
    assert len(rows) == 7
    assert len({row["pid"] for row in rows}) == 7
    assert {row["seen"][0]["CUDA_VISIBLE_DEVICES"] for row in rows} == {"4", "7"}
    assert {row["seen"][0]["TORCHINDUCTOR_CACHE_DIR"] for row in rows} == {str(recorder.folder / "compiled")}
    assert list(found.figures["rows"]) == ["a: x", "b", "seeds"]
    assert list(found.ranges["rows"]) == ["a: x", "b"], "a part with seeds of its own has no range"
    pids = sorted(row["pid"] for one in files for name, row in one["figures"]["rows"].items() if name == "b")
    assert found.figures["rows"]["b"]["pid"] == pids[1]
    assert found.ranges["rows"]["b"]["pid"] == [pids[0], pids[2]]
    assert found.figures["rows"]["b"]["seconds"] == 2
    assert found.machine == {"gpu": "one"}


def test_a_run_that_was_broken_off_measures_only_the_rest(recorder: Recorder) -> None:
    with pytest.raises(
        RuntimeError, match=r"3 of 6 processes failed\. .* with --work \S+ measures only the rest"
    ) as told:
        recorder.gather({"good": NOTHING, "bad": NOTHING}, ["--seconds", "1"])
    assert "bad, process 2: the GPU fell off" in str(told.value)
    before = {path: path.read_text() for path in recorder.folder.glob("*.json")}
    assert len(before) == 3
    recorder.gather({"good": NOTHING, "other": NOTHING}, ["--seconds", "1"])
    assert all(path.read_text() == words for path, words in before.items())


def test_another_option_is_measured_anew(recorder: Recorder) -> None:
    for seconds in (1.0, 2.0):
        found = recorder.gather({"a": NOTHING}, ["--seconds", str(seconds)])
        assert found.figures["rows"]["a"]["seconds"] == seconds


@pytest.mark.parametrize(("part", "said"), [("late", "it broke at the very end"), ("silent", "it wrote nothing")])
def test_a_process_that_fails_at_its_end_has_failed(recorder: Recorder, part: str, said: str) -> None:
    with pytest.raises(RuntimeError, match="3 of 3 processes failed") as told:
        recorder.gather({part: NOTHING}, ["--seconds", "1"])
    assert f"{part}, process 1: {said}" in str(told.value)


def test_long_parts_start_first_and_second_processes_last(recorder: Recorder) -> None:
    recorder.gpus = ["0"]
    parts = {"short": NOTHING, "long": Part(NOTHING.measure, long=True), "once": Part(NOTHING.measure, once=True)}
    recorder.gather(parts, ["--seconds", "1"])
    assert (recorder.folder / "order").read_text().split() == [
        "long", "short", "once", "long", "short", "long", "short",
    ]  # fmt: skip


def test_two_machines_make_no_record(recorder: Recorder) -> None:
    with pytest.raises(RuntimeError, match="different machines, so nothing is recorded: another; one"):
        recorder.gather({"here": NOTHING, "elsewhere": NOTHING}, ["--seconds", "1"])


def test_medians_and_ranges_by_hand() -> None:
    pieces = [
        {"machine": {}, "figures": {"row": {"ms": ms, "watts": None, "losses": [1, 2]}}} for ms in (3.0, 1.0, 9.0)
    ]
    found = joined({"row": pieces}, set())
    assert found.figures == {"row": {"ms": 3.0, "watts": None, "losses": [1, 2]}}
    assert found.ranges["row"]["ms"] == [1.0, 9.0]
    assert combined([{"a": 1}, {"a": None}], max) == {"a": None}
    tree: dict[str, Any] = {"a": {"x": 1}}
    merge(tree, {"a": {"y": 2}, "b": 3})
    assert tree == {"a": {"x": 1, "y": 2}, "b": 3}


def test_the_rate_is_the_one_whose_worst_seed_ends_lowest() -> None:
    assert best_rate({"0.01": [0.1, 0.1, 3.9], "0.003": [0.2, 0.3, 0.25], "0.001": [0.5, 0.5, 0.4]}) == 0.003
    assert best_rate({"0.01": [0.1, float("nan"), 0.1], "0.001": [2.0, 2.0, 2.0]}) == 0.001


def test_the_command_of_a_record_names_no_folder() -> None:
    said = ["--gpus", "4", "--work", "/home/me/x", "--out=/tmp/y.json", "--seconds", "2"]
    assert shown(said) == ["--gpus", "4", "--seconds", "2"]


def test_the_data_sheets() -> None:
    assert sheet("NVIDIA H100 80GB HBM3") == {
        "FP32": 67.0, "TF32": 494.7, "FP16": 989.4, "BF16": 989.4, "FP8": 1978.9, "memory": 3350.0,
    }  # fmt: skip
    assert (sheet("NVIDIA H200 NVL") or {})["FP16"] == 835.5
    assert (sheet("NVIDIA H200") or {})["memory"] == 4800
    assert sheet("NVIDIA GeForce GTX 1080") is None
    for gpu, row in SHEETS.items():  # each tensor-core format is twice as fast as the one that is twice as wide
        tf32, fp16, fp8 = row["TF32"], row["FP16"], row["FP8"]
        assert fp16 is not None
        assert tf32 is None or fp16 / tf32 == pytest.approx(2, rel=0.02), gpu
        assert fp8 is None or fp8 / fp16 == pytest.approx(2, rel=0.02), gpu


# ---- the whole commands, with stubs in place of measurements ----


def in_this_process(self: Recorder, parts: Mapping[str, Part], options: Sequence[str]) -> Gathered:
    """Stands for Recorder.gather: every part once, here, through the file that a process would write."""
    parser, found = argparse.ArgumentParser(), {}
    for name, kind in (("--batch", int), ("--seconds", float), ("--rate", float), ("--steps", int)):
        parser.add_argument(name, type=kind)
    for name in parts:
        chosen = parser.parse_args(options)
        chosen.part, chosen.into = name, self._file((name, 0), options)
        measure_here(parts, chosen)
        found[name] = [json.loads(chosen.into.read_text())]
    return joined(found, {name for name, part in parts.items() if part.once})


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU that is not there, and measurements that take no time."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(Recorder, "gather", in_this_process)
    monkeypatch.setattr("mpkit.course.record.processes.machine", lambda: dict(MACHINE))
    stubs: dict[str, Any] = {
        "resnet_row": lambda way, batch, seconds: {"ms": 100.0 + len(way)},
        "parts": lambda batch: {"fp32 forward": 1.0}, "matmuls": lambda: {"FP32": {"64": 2.0, "128": 5.0}},
        "fp8_products": lambda: {"FP8": {"64": 1.0}}, "bandwidth": lambda n: {"FP32": float(n), "FP16": float(n)},
        "small": lambda make: {"fp32 eager": 1.0}, "small_compiled": lambda make: {"torch.amp compiled": 2.0},
        "tuned": lambda rate: {"tuning": {str(rate): [rate, 0.5, 0.5 + abs(rate - 0.001)]}},
        "arm": lambda name, rate: {"losses": {name: [[1.0, rate] * 10]}, "skipped": {name: [1]}},
    }  # fmt: skip
    for name, stub in stubs.items():
        monkeypatch.setattr(speed, name, stub)
    monkeypatch.setattr(transformer, "transformer_row", lambda model, way, seconds: {"tokens_per_s": float(len(way))})
    monkeypatch.setattr(transformer, "sizes", lambda: {"BERT base": {"parameters": 7}})
    monkeypatch.setattr(
        transformer,
        "train",
        lambda model, run, steps: {"losses": {model: {run: [1.0]}}, "curves": {model: {run: [1.0]}}},
    )
    return monkeypatch


def test_record_speed_from_beginning_to_end(stubbed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert speed.main(["--gpus", "4", "--batch", "64", "--out", str(tmp_path / "speed_x.json")]) == 0
    record = SpeedRecord.load("speed_x", tmp_path)
    assert record.command == "python -m mpkit record-speed --gpus 4 --batch 64"
    assert (record.gpu, record.driver, record.processes, record.gpus) == ("NVIDIA H100 80GB HBM3", "580", 3, 4)
    assert "CUDA 13, cuDNN 9, Triton 3, Python 3.12, driver 580; each figure is the median of 3" in record.versions
    assert tuple(record.resnet50) == tuple(resnet_rows.WAYS)
    assert record.range["resnet50"]["tf32"]["ms"] == [104.0, 104.0]
    assert record.rate == 0.001  # the worst seed of the stub's smallest rate ends lowest
    assert tuple(record.tuning) == tuple(map(str, RATES))
    assert tuple(record.losses) == tuple(record.skipped) == ARMS
    assert record.ends(PLANTED) == [pytest.approx((1 + 0.001) / 2)]
    assert (record.best("FP32"), record.peak("FP32"), record.roof("FP32")) == (5.0, 67.0, 67.0)
    assert record.matmul["FP8"] == {64: 1.0}
    assert record.bandwidth["FP16"] == 2**26
    assert record.small["mlp"] == {"fp32 eager": 1.0, "torch.amp compiled": 2.0}


def test_record_transformer_from_beginning_to_end(stubbed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert transformer.main(["--out", str(tmp_path / "transformer_x.json"), "--steps", "40"]) == 0
    record = TransformerRecord.load("transformer_x", tmp_path)
    assert record.steps == 40
    assert {model: tuple(rows) for model, rows in record.speed.items()} == dict.fromkeys(
        transformer_rows.SIZES, tuple(transformer_rows.WAYS)
    )
    assert record.speedup("BERT base", "tf32", over="bf16-mixed") == pytest.approx(4 / 10)
    assert "losses" not in record.range


def test_only_some_parts_are_printed_and_nothing_is_written(
    stubbed: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speed.main(["--only", "resnet50: torch.amp", "--out", str(tmp_path / "no.json")]) == 0
    assert len(json.loads(capsys.readouterr().out)["figures"]["resnet50"]) == 3
    assert not (tmp_path / "no.json").exists()
    with pytest.raises(ValueError, match="no part has 'gpt' in its name; use a piece of one of tuning"):
        speed.main(["--only", "gpt"])


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["--gpus", "5"], "--gpus 5: torch sees 4 here; use a number from 1"),
        (["--processes", "0"], "at least 1 is needed"),
    ],
)
def test_options_that_cannot_be(stubbed: Any, capsys: pytest.CaptureFixture[str], said: list[str], told: str) -> None:
    stubbed.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(SystemExit):
        speed.main(said)
    assert told in capsys.readouterr().err


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(
        ValueError, match="there is no way 'fp4' to train; use one of PyTorch's defaults, fp32, NCHW, fp32"
    ):
        resnet_rows.resnet_row("fp4", 1, 1.0)
