"""The doctor: what it measures, what it finds, and the cure that it names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from harness.fake_gpu import H100, P100, T4, TOO_OLD, machine

import mpkit.__main__ as command
from mpkit.course.doctor import environment, format_speed, hardware
from mpkit.course.doctor import report as doctor
from mpkit.course.doctor.environment import Finding
from mpkit.course.doctor.format_speed import FormatSpeed
from mpkit.course.gpu import look
from mpkit.course.lesson_00.doctor import doctor_panel
from mpkit.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32, TF32, FloatFormat

GOOD = {"python": "3.11.7", "torch": "2.13.0", "ipywidgets": "8.1.9", "jupyterlab": "4.6.6"}


@pytest.fixture
def report() -> doctor.Report:
    """A report with known figures."""
    speeds = (FormatSpeed(FP32, 1.0, 1.0, "native"), FormatSpeed(FP16, 61.4, 1.25, "emulate"),
              FormatSpeed(E4M3, None, 2.94, "emulate"))  # fmt: skip
    found = (Finding("good", "All <well>."), Finding("bad", "x is missing.", "pip install x"))
    return doctor.Report("cpu", ("CPU", "GPU <1>"), 1, 256, speeds, {"python": "3.11.7", "x": ""}, found)


def server(folder: Path, version: str | None) -> Path:
    """A server's environment with this widget front end, or none."""
    if version is not None:
        package = folder / environment.EXTENSION
        package.parent.mkdir(parents=True)
        package.write_text(json.dumps({"version": version}))
    return folder


class Clock:
    """`time` for format_speed: a reading takes nothing, and a call that is measured as long as it says."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(format_speed, "time", Clock())
    return format_speed.time  # type: ignore[return-value]


def test_examine_covers_every_format() -> None:
    report = doctor.examine("cpu")
    assert [speed.fmt for speed in report.formats] == list(FORMATS.values())
    assert report.formats[0].native == 1.0
    assert all(speed.emulated > 0 and speed.native != 0 for speed in report.formats)
    assert {speed.fmt.name: speed.use for speed in report.formats} == dict.fromkeys(FORMATS, "emulate") | {
        "FP32": "native"
    }
    assert report.versions["torch"] == torch.__version__
    assert report.threads == 1


def test_examine_puts_threads_and_precision_back() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_num_threads(2)
    report = doctor.examine("cpu")
    assert torch.get_num_threads() == 2
    assert torch.get_float32_matmul_precision() == before
    assert any("torch uses 2 threads" in finding.text for finding in report.findings)


def test_examine_refuses_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    for device in ("cuda", "tpu"):
        with pytest.raises(ValueError, match=rf"device '{device}' is not here; use 'cpu'\. This machine has no CUDA"):
            doctor.examine(device)
    machine(monkeypatch, H100, step=torch.OutOfMemoryError())
    with pytest.raises(ValueError, match=r"device 'cuda' is not here; use 'cpu'\. The GPU's memory is full\.$"):
        doctor.examine("cuda")
    machine(monkeypatch, H100)
    with pytest.raises(ValueError, match=r"device 'tpu' is not here; use 'cpu' or 'cuda'\.$"):
        doctor.examine("tpu")


@pytest.mark.parametrize("fmt", [FP16, BF16])
def test_the_native_product_is_a_product_in_that_format(fmt: object) -> None:
    a, b = torch.randn(8, 16), torch.randn(16, 4)
    product = format_speed.native(fmt, a, b)  # type: ignore[arg-type]
    assert product is not None
    assert product().dtype == fmt.dtype  # type: ignore[attr-defined]
    np.testing.assert_allclose(product().float().numpy(), a.numpy() @ b.numpy(), atol=0.2)


@pytest.mark.parametrize("fmt", [TF32, E4M3, E5M2])
def test_a_cpu_has_no_native_product_of_tf32_and_fp8(fmt: object) -> None:
    assert format_speed.native(fmt, torch.ones(16, 16), torch.ones(16, 16)) is None  # type: ignore[arg-type]


def test_examine_measures_each_product_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(format_speed, "median_seconds", lambda call, budget: measured.append(call()) or 1.0)
    doctor.examine("cpu")
    natively = sum(format_speed.native(fmt, *torch.ones(2, 16, 16)) is not None for fmt in FORMATS.values())
    assert len(measured) == 1 + len(FORMATS) + natively <= 11


def test_text_shows_figures_findings_and_cures(report: doctor.Report) -> None:
    lines = report.text().splitlines()
    assert lines[0] == "Devices: CPU, GPU <1>. CPU threads: 1."
    assert "FP32    32    as fast        -                native" in lines
    assert "FP16    16    61x slower     1.2x slower      emulate" in lines
    assert "E4M3    8     none           2.9x slower      emulate" in lines
    assert lines[-1] == "✗ x is missing. → pip install x"
    assert "python 3.11.7, x missing" in lines
    assert not report.healthy
    assert replace(report, findings=report.findings[:1]).healthy


def test_the_table_says_what_the_lessons_do(report: doctor.Report) -> None:
    fast = (FormatSpeed(FP16, 0.2, 3.0, "native"), FormatSpeed(E4M3, 0.1, 3.0, "emulate"))
    assert replace(report, formats=fast).rows()[1:] == [
        ("FP16", "16", "5x faster", "3x slower", "native"), ("E4M3", "8", "10x faster", "3x slower", "emulate"),
    ]  # fmt: skip


@pytest.mark.parametrize(("card", "own"), [(H100, {FP32, TF32, FP16, BF16}), (T4, {FP32, FP16}), (P100, {FP32})])
def test_on_a_gpu_a_format_in_hardware_is_used_natively(
    card: str, own: set[FloatFormat], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card may take BF16 tensors that it computes in FP32, and FP8 that the lessons cannot use yet."""
    machine(monkeypatch, card)
    monkeypatch.setattr(format_speed, "native", lambda *_: int)
    monkeypatch.setattr(format_speed, "median_seconds", lambda *_: 1.0)
    on_the_gpu = SimpleNamespace(device=torch.device("cuda"))
    use = {fmt: format_speed._speed(fmt, on_the_gpu, on_the_gpu, 1.0).use for fmt in FORMATS.values()}  # type: ignore
    assert use == {fmt: "native" if fmt in own else "emulate" for fmt in FORMATS.values()}


NO_GPU = (
    "No GPU is needed: on a CPU the lessons emulate every small format in FP32, with the same rounding. "
    "Only the speed differs, and the order in which sums are added."
)
UNUSED = "No GPU is used."
SITE = "https://pytorch.org/get-started/locally/"


@pytest.mark.parametrize(
    ("given", "text", "cure"),
    [
        ({"cuda": None, "nvidia": True}, "There seems to be an NVIDIA GPU, but this torch is built without CUDA.",
         f"pip uninstall torch, then the command that {SITE} gives, with torch=="),
        ({"nvidia": True, "init": RuntimeError(TOO_OLD)}, "The NVIDIA driver is too old for this torch (CUDA 13.0).",
         "update the driver; or take a build for an older CUDA (nvidia-smi shows what the driver takes): pip"),
        ({"card": P100, "step": RuntimeError("no kernel image")},
         "This torch has no kernels for the GPU's architecture, sm_60.",
         "an older card needs a build for an older CUDA, a newer card one for a newer CUDA: pip"),
        ({"cuda": None, "mps": True}, "Apple's GPU (MPS) is not used: the lessons use NVIDIA GPUs only.", ""),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_used_is_a_note_with_a_cure(
    given: dict[str, Any], text: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **given)
    device, (needless, found) = hardware.findings(look())
    assert (device, needless) == ("cpu", Finding("good", NO_GPU))
    assert (found.kind, found.text) == ("note", f"{UNUSED} {text}")
    assert found.cure.startswith(cure)
    assert bool(found.cure) == bool(cure)


def test_without_a_gpu_there_is_nothing_to_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    assert hardware.findings(look()) == ("cpu", [Finding("good", NO_GPU)])


def test_a_gpu_that_fits_is_what_the_lessons_train_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, T4)
    fits = Finding("good", "The GPU (Tesla T4), its driver and this torch fit together.")
    train = Finding(
        "good",
        "The lessons train on the GPU. A small training step on it worked. FP16 is the hardware's own; BF16, TF32 "
        "and other formats are emulated on it. FP8 needs scales of its own, and is "
        "emulated too.",
    )
    assert hardware.findings(look()) == ("cuda", [train, fits])
    assert hardware.names() == ("CPU", "Tesla T4")
    monkeypatch.setenv("MPKIT_DEVICE", "cpu")
    asked = Finding("note", "The lessons compute on the CPU. It was asked for (MPKIT_DEVICE=cpu).")
    assert hardware.findings(look()) == ("cpu", [asked, Finding("good", NO_GPU), fits])


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("gpu", "MPKIT_DEVICE must be 'cpu' or 'cuda', but 'gpu' came. "
         "Without it, a lesson takes the GPU where one works."),
        ("cuda", "MPKIT_DEVICE is 'cuda', but no GPU can be used. This machine has no CUDA device. "
         "To go on without: unset MPKIT_DEVICE, or set it to cpu."),
    ],
)  # fmt: skip
def test_a_variable_that_stops_every_lesson_is_bad(word: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setenv("MPKIT_DEVICE", word)
    refused = Finding(
        "bad",
        f"Lessons will not start. {text}",
        "unset MPKIT_DEVICE in the shell that starts JupyterLab, and start it again",
    )
    assert hardware.findings(look()) == ("cpu", [refused])
    assert not doctor.examine().healthy


def test_a_gpu_that_cannot_be_timed_leaves_the_table_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def speeds(device: str) -> tuple[FormatSpeed, ...]:
        if device == "cuda":
            raise torch.OutOfMemoryError
        return (FormatSpeed(FP32, 1.0, 1.0, "native"),)

    machine(monkeypatch, H100)
    monkeypatch.setattr(doctor, "speeds", speeds)
    report = doctor.examine()
    assert (report.device, report.size, report.devices) == ("cpu", 256, ("CPU", H100))
    assert Finding("note", "The GPU could not be timed (OutOfMemoryError), so the table shows the CPU.") in (
        report.findings
    )
    monkeypatch.setattr(doctor, "speeds", lambda device: ())
    assert doctor.examine().device == "cuda"
    assert doctor.examine("cpu").device == "cpu"


def test_what_cannot_be_examined_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("Version")

    machine(monkeypatch, H100)
    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    monkeypatch.setattr(environment.metadata, "version", fail)
    monkeypatch.setattr(environment, "server_prefix", fail)
    assert hardware.names() == ("CPU",)
    assert set(environment.versions().values()) == {sys.version.split()[0], ""}
    assert environment.examine(GOOD) == [Finding("note", "The packages could not be examined (KeyError).")]


def test_a_product_that_fails_is_no_native_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(format_speed, "_product", lambda *_: fail)
    assert format_speed.native(FP16, torch.ones(2, 2), torch.ones(2, 2)) is None


def test_an_arrow_needs_no_colon_before_it(report: doctor.Report) -> None:
    shown = replace(report, findings=(Finding("note", "If sliders show as text:", "do x"), Finding("note", "So:")))
    assert shown.text().endswith("\n· If sliders show as text → do x\n· So:")
    assert "text<br>→ do x" in shown.html()


def test_html_says_the_same_and_is_escaped(report: doctor.Report) -> None:
    html = report.html()
    assert "GPU &lt;1&gt;" in html
    assert "All &lt;well&gt;." in html
    for text in ("61x slower", "none", "pip install x", "x missing"):
        assert text in html


def test_versions_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "surely-not-installed"))
    assert environment.versions() == {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "surely-not-installed": "",
    }


def test_missing_and_old_packages_get_a_cure(tmp_path: Path) -> None:
    place = server(tmp_path, "5.0.16")
    assert environment.findings(GOOD, place) == [Finding("good", "Kernel and server both have widgets.")]
    missing = environment.findings({**GOOD, "jupyterlab": ""}, place)
    assert missing[0] == Finding("bad", "jupyterlab is missing.", "pip install jupyterlab")
    old = environment.findings({**GOOD, "ipywidgets": "7.7.5"}, place)
    assert old[0] == Finding("bad", "ipywidgets 7.7.5 is too old.", 'pip install "ipywidgets>=8.1"')


@pytest.mark.parametrize(
    ("version", "kind", "text"),
    [
        ("5.0.16", "good", "Kernel and server both have widgets."),
        ("3.1.0", "bad", "The server's widget front end (3.1.0) is too old for ipywidgets 8."),
        (None, "bad", "The server has no widget front end: sliders show as text."),
    ],
)
def test_the_servers_front_end_is_judged(
    version: str | None, kind: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "nothing"))
    finding = environment.findings(GOOD, server(tmp_path, version))[-1]
    assert (finding.kind, finding.text) == (kind, text)
    assert finding.cure == ("" if kind == "good" else environment.CURE)


def test_without_a_server_in_sight_the_doctor_says_so() -> None:
    finding = environment.findings(GOOD, None)[-1]
    assert (finding.kind, finding.cure) == ("note", environment.CURE)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="only where /proc tells what runs")
@pytest.mark.parametrize("python", [sys.executable, "bin/" + Path(sys.executable).name])
def test_the_servers_environment_is_found_by_its_process(python: str) -> None:
    command = [python, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, cwd=sys.prefix, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before the new program runs, its command line is still empty
        found = environment.server_prefix({"JPY_PARENT_PID": str(process.pid)})
        process.communicate(b"\n")
    assert found == Path(sys.prefix)


@pytest.mark.parametrize("pid", ["", "one", "999999999"])
def test_what_is_no_python_process_is_no_server(pid: str) -> None:
    assert environment.server_prefix({"JPY_PARENT_PID": pid}) is None


def test_the_panel_shows_the_report_and_looks_again(report: doctor.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: report)
    panel = doctor_panel()
    assert repr(panel) == "Doctor: 3 formats examined on cpu"
    assert panel.view.value == panel.html() == report.html()
    monkeypatch.setattr(doctor, "examine", lambda: replace(report, threads=7))
    panel.examine()
    assert "CPU threads: 7" in panel.view.value


def test_command_doctor_prints_and_tells_by_its_status(
    report: doctor.Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str | None] = []

    def examine(device: str | None) -> doctor.Report:
        asked.append(device)
        return report

    monkeypatch.setattr(doctor, "examine", examine)
    assert command.main(["doctor", "--device", "cpu"]) == 1
    assert capsys.readouterr().out == report.text() + "\n"
    monkeypatch.setattr(doctor, "examine", lambda _: replace(report, findings=()))
    assert command.main(["doctor"]) == 0
    assert asked == ["cpu"]


def test_command_bench_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Bench:
        main: Callable[[list[str]], None] = staticmethod(seen.append)

    monkeypatch.setitem(sys.modules, "mpkit.bench.table", Bench)
    assert command.main(["bench", "--only", "cast"]) == 0
    assert seen == [["--only", "cast"]]


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["fly"])
    assert stop.value.code == 2
    assert "invalid choice: 'fly' (choose from 'doctor'" in capsys.readouterr().err


def test_alone_it_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    alone = capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert alone == capsys.readouterr().out
    assert "doctor             what this machine can do" in alone
