"""The benchmark runs, writes a record that can be read again, and survives a row that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mpkit.bench import cpu as bench_cpu
from mpkit.bench import gpu as bench_gpu
from mpkit.bench import gpu_steps as bench_gpu_steps
from mpkit.bench import scaled as bench_scaled
from mpkit.bench import table as bench
from mpkit.bench.measure import Case, Row, line, measure, timed

FIELDS = {"name", "ours_ms", "peer", "peer_ms", "ratio", "ratio_quartiles", "bar", "met", "note"}
TINY = ["--device", "cpu", "--elements", "4096", "--repeats", "1", "--processes", "1"]


def test_a_tiny_run_prints_a_table_and_writes_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cpu.json"
    assert bench.main([*TINY, "--only", "cast to", "--json", str(file)]) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert {"device", "torch", "cuda", "cudnn", "triton", "python", "date", "command"} <= record.keys()
    assert {"threads", "elements", "repeats", "rows"} <= record.keys()
    assert record["torch"] == torch.__version__
    assert record["command"].startswith("python -m mpkit bench --device cpu")
    assert len(record["rows"]) == 15
    for row in record["rows"]:
        assert row.keys() == FIELDS
        assert row["ours_ms"] is not None
        assert row["ratio"] == pytest.approx(row["ours_ms"] / row["peer_ms"])
        assert row["met"] is (None if row["bar"] is None else row["ratio"] <= row["bar"])
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in record["rows"])
    assert "0 of 15 rows have no figure" in printed


@pytest.mark.parametrize("name", ["histogram", "found_inf", "unscale_", "LossScaler", "emulated"])
def test_the_other_cpu_rows_have_figures(name: str) -> None:
    cases = [case for case in bench_cpu.cases(4096) if name in case.name]
    assert cases
    for case in cases:
        [row] = measure(case, 1)
        assert row.ratio is not None, row.note
        assert row.ratio > 0


def test_a_scaled_cast_has_figures_and_bars() -> None:
    cases = {(case.name, case.peer): case for case in bench_scaled.casts("cpu", 4096)}
    eager = cases["scaled_cast, MXFP8", "cast to E4M3"]
    [row] = measure(eager, 1)
    assert row.ratio is not None, row.note
    assert (eager.bar, cases["scaled_cast, NVFP4, torch.compile", "x.clone()"].bar) == (2.5, 3.0)


def test_the_bars_are_those_of_the_design() -> None:
    bars = {(case.name, case.peer): case.bar for case in bench_cpu.cases(64)}
    assert bars["cast to FP16", "x.clone()"] == bars["cast to BF16", "x.clone()"] == 1.5
    assert {bars[f"cast to {name}", "x.clone()"] for name in ("TF32", "E4M3", "E5M2", "e5m7")} == {4.0}
    assert bars["cast to FP16, stochastic", "x.clone()"] == 10.0
    assert bars["exponent histogram", "x.clone()"] == 4.0
    assert bars["import mpkit", "import torch"] == 1.05
    gpu = {case.name: case.bar for case in bench_gpu.cases(64)}
    assert gpu["check + unscale in step(), ResNet-50's gradients"] == 0.33
    assert gpu["cast to E4M3"] == 6.0
    assert gpu["cast to E4M3, torch.compile"] == 1.2
    assert gpu["cast to E4M3, stochastic, torch.compile"] == 2.0


def test_the_bars_of_whole_steps_are_those_of_the_design() -> None:
    """So many times the peer's speed, at least; each way to step meets each peer."""
    bars = {(case.name, case.peer): case.bar for case in bench_gpu_steps.cases()}
    eager, default, reduced = "torch.amp, eager", "torch.compile", "torch.compile, reduce-overhead"
    wanted = {"MLP": (15, 10), "transformer d = 256": (7, 2), "ResNet-50 batch 256": (1.15, 0.98)}
    for model, (over_eager, over_reduced) in wanted.items():
        step = f"FP16 step, {model}"
        assert bars.pop((f"{step}, eager", eager)) == 1.05
        for peer, bar in ((eager, 1 / over_eager), (default, None), (reduced, 1 / over_reduced)):
            assert bars.pop((f"{step}, compiled + captured", peer)) == bar
            assert bars.pop((f"{step}, captured", peer)) is None
    assert bars.pop(("the article's step, ResNet-50 batch 256", "FP32 without TF32")) == 1 / 1.2
    for model, bar in {"transformer d = 256": 2.5, "ResNet-50 batch 256": 1.5}.items():
        step = f"FP16 step, {model}, eager, with"
        assert bars.pop((f"{step} mpkit.trace", "without it")) == bar
        assert bars.pop((f"{step} detect_anomaly", "without it")) is None
    assert bars.pop(("FP16 step, ResNet-50 batch 256, eager, guarded", "without guard")) == 1.03
    assert bars.pop(("diagnose, a healthy transformer of 109 M parameters", "one plain step")) == 20
    assert bars == {}


def test_resnet50_has_its_161_parameters() -> None:
    shapes = bench_gpu.resnet50_shapes()
    assert len(shapes) == 161
    assert sum(torch.Size(shape).numel() for shape in shapes) == 25_557_032


def test_a_row_that_fails_says_why(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'nothing'\nsecond line")

    def build() -> tuple[bench_cpu.Sampler, bench_cpu.Sampler]:
        return timed(broken), timed(broken)

    [row] = measure(Case("a broken row", "peer", build, 1.5), 1)
    assert (row.ours_ms, row.ratio, row.met) == (None, None, None)
    assert row.note == "ModuleNotFoundError: No module named 'nothing'"
    good = bench_cpu.cases(64)[0]
    monkeypatch.setattr(bench, "_cases", lambda *_: [Case("a broken row", "peer", build, 1.5), good])
    assert bench.main(TINY) == 0
    printed = capsys.readouterr().out
    assert "a broken row" in printed
    assert "no figure: ModuleNotFoundError: No module named 'nothing'" in printed
    assert "1 of 2 rows have no figure" in printed


def test_what_interrupts_a_run_leaves_the_rows_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> tuple[bench_cpu.Sampler, bench_cpu.Sampler]:
        raise KeyboardInterrupt

    cases = [Case("a row", "peer", lambda: (lambda: 1.0, lambda: 2.0)), Case("the end", "peer", interrupted)]
    monkeypatch.setattr(bench, "_cases", lambda *_: cases)
    file = tmp_path / "cpu.json"
    with pytest.raises(KeyboardInterrupt):
        bench.main([*TINY, "--json", str(file)])
    assert [row["ratio"] for row in json.loads(file.read_text(encoding="utf-8"))["rows"]] == [0.5]


def test_the_median_of_paired_samples_decides() -> None:
    ours, theirs = iter([9.0, 3.0, 1.0, 2.0]), iter([9.0, 2.0, 2.0, 2.0])  # the first pair is a warm-up
    [row] = measure(Case("known", "peer", lambda: (lambda: next(ours), lambda: next(theirs)), bar=1.0), 3)
    assert row == Row("known", 2000.0, "peer", 2000.0, 1.0, (0.5, 1.5), 1.0, True)
    assert "1.00   0.50-1.50" in line(row)
    assert line(row).split()[-2:] == ["1", "yes"]


def test_small_ratios_and_bars_keep_three_digits() -> None:
    row = Row("a step", 1.0, "peer", 15.0, 1 / 15, (0.0612, 0.25), 1 / 15, True)
    assert line(row).split()[-4:] == ["0.067", "0.061-0.25", "0.0667", "yes"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--only", "no such row"], "--only 'no such row' fits no row; leave it out to see all names."),
        (["--repeats", "0"], "0 came; use 1 or more"),
        (["--processes", "0"], "0 came; use 1 or more"),
        (["--gpus", "2"], "--gpus is for --device cuda; leave it out."),
    ],
)
def test_wrong_options_are_named(options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(options)
    assert text in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is what happens without a CUDA device")
def test_cuda_without_a_device_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--device", "cuda"])
    assert "--device cuda needs a CUDA device and there is none; use --device cpu." in capsys.readouterr().err
