"""`make test-gpu` proves that the lessons train on the GPU: its command, and what its kernels write down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gpulessons
import gpuproof
import kernelrecord
import pytest
import torch
from harness.gpu_cells import CELL, START
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

# ---- the recorder, with a GPU that is not there ----


class Result:
    """What IPython tells of a cell that ran."""

    info = type("Info", (), {"raw_cell": "train()"})


class Gpu:
    """Counts how often a profiler starts and ends; a capture goes on during the steps in `captured`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.captured, self.step, self.count, self.known = set[int](), 0, 5, True
        monkeypatch.setattr(kernelrecord.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(kernelrecord, "_start", lambda: self.done.append(f"start {self.step}") or self)
        monkeypatch.setattr(kernelrecord, "_kernels", lambda _: self.done.append(f"end {self.step}") or self.count)
        monkeypatch.setattr(kernelrecord, "_capturing", lambda: self.step in self.captured)
        monkeypatch.setattr(kernelrecord, "_can_count", lambda: self.known)

    def cell(self, recorder: kernelrecord.Recorder, steps: int) -> dict[str, Any]:
        """Run a cell with so many optimizer steps, and return its line."""
        sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        recorder.before_cell(None)
        for self.step in range(1, steps + 1):
            recorder.before_step(sgd, (), {})
            recorder.after_step(sgd, (), {})
        recorder.after_cell(Result)
        return dict(json.loads(recorder.file.read_text(encoding="utf-8").splitlines()[-1]))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


@pytest.fixture
def recorder(tmp_path: Path) -> kernelrecord.Recorder:
    return kernelrecord.Recorder(tmp_path / "record.jsonl")


@pytest.mark.parametrize(
    ("steps", "captured", "done"),
    [
        (0, [], []),
        (1, [], ["start 1", "end 1"]),
        (9, [], ["start 1", "end 2"]),
        (9, [2, 3], ["start 1", "end 4"]),  # no profiler ends during a capture
        (9, [1], ["start 2", "end 3"]),  # and none starts
        (2, [1, 2], []),
    ],
)
def test_the_first_two_steps_are_watched(
    gpu: Gpu, recorder: kernelrecord.Recorder, steps: int, captured: list[int], done: list[str]
) -> None:
    gpu.captured = set(captured)
    line = gpu.cell(recorder, steps)
    assert gpu.done == done
    assert (line["steps"], line["kernels"]) == (steps, 5 if done else None)
    assert line["devices"] == (["cpu"] if steps else [])
    gpu.done.clear()
    gpu.captured = set()
    gpu.cell(recorder, 3)
    assert gpu.done == ["start 1", "end 2"], "the next cell is watched, too"


def test_no_kernel_is_unknown_where_the_profiler_is_blind(gpu: Gpu, recorder: kernelrecord.Recorder) -> None:
    gpu.count = 0
    assert (line := gpu.cell(recorder, 2))["kernels"] == 0
    assert line["trouble"] == ""
    gpu.known = False
    assert (line := gpu.cell(recorder, 2))["kernels"] is None
    assert line["trouble"] == kernelrecord.NO_COUNT


@pytest.mark.parametrize("part", ["_start", "_kernels"])
def test_a_profiler_that_fails_breaks_no_cell(
    gpu: Gpu, recorder: kernelrecord.Recorder, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUPTI is taken")

    monkeypatch.setattr(kernelrecord, part, fail)
    line = gpu.cell(recorder, 5)
    assert (line["steps"], line["kernels"], line["trouble"]) == (5, None, "RuntimeError: CUPTI is taken")


# ---- a kernel that is recorded, on the CPU ----


def test_a_notebook_that_trains_on_the_cpu_is_refused(tmp_path: Path) -> None:
    train = (
        "net = torch.nn.Linear(2, 1)\nsgd = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "for _ in range(3):\n    net(torch.ones(4, 2)).sum().backward()\n    sgd.step()"
    )
    names = "print(sorted(name for name in dir() if 'record' in name or name in ('sys', 'os', 'json')))"
    notebook = new_notebook(
        cells=[new_code_cell(f'import torch, mpkit\nmpkit.start("04")\n{names}'), new_code_cell(train)]
    )
    environment = {**os.environ, **gpulessons.recording(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(env=environment)
    [lesson] = gpuproof.read(tmp_path)
    first, second = lesson.cells
    assert (first.steps, first.devices, first.trains) == (0, [], False)
    assert (second.source, second.steps, second.devices, second.kernels) == (train, 3, ["cpu"], 0)
    assert second.trouble == ""
    assert notebook.cells[0].outputs[-1].text.endswith("[]\n"), "the recorder leaves names among the lesson's"
    assert gpuproof.violations([lesson], {"04": 2}) == [
        "lesson 04, `net = torch.nn.Linear(2, 1)`: 3 optimizer steps, parameters on cpu, 0 CUDA kernels"
    ]


# ---- the command ----


class Pytest:
    """Stands for subprocess.run: writes down the commands, and records what a good lesson would."""

    def __init__(self, status: int = 0, cell: dict[str, Any] | None = None) -> None:
        self.ran: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.returncode, self.cell = status, cell or {}

    def __call__(self, command: list[str], cwd: Path, env: dict[str, str]) -> Pytest:
        self.ran.append(command[command.index("--nbval-cell-timeout=300") + 1 :])
        self.environments.append(env)
        for path in map(Path, [word for word in self.ran[-1] if word.endswith(".ipynb")]):
            start = {**START, "source": f'mpkit.start("{path.name[:2]}")'}
            lines = [json.dumps({**CELL, **one}) for one in (start, self.cell)]
            (Path(env[kernelrecord.FOLDER]) / f"{path.name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return self


@pytest.fixture
def books(tmp_path: Path) -> list[str]:
    """Three lessons of two cells."""
    paths = [tmp_path / f"{number}_lesson.ipynb" for number in ("00", "04", "05")]
    for path in paths:
        path.write_text(
            json.dumps({"cells": [{"cell_type": "code"}, {"cell_type": "markdown"}, {"cell_type": "code"}]})
        )
    return [str(path) for path in paths]


def test_lesson_00_runs_by_itself_and_the_others_at_once(
    books: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Pytest()
    monkeypatch.setattr(gpulessons.subprocess, "run", ran)
    assert gpulessons.main(books) == 0
    assert ran.ran == [books[:1], [*books[1:], "-n", "2", "--dist", "loadscope"]]
    homes = {environment["MPKIT_HOME"] for environment in ran.environments}
    assert len(homes) == 2
    assert not any(kernelrecord.GIB in environment for environment in ran.environments)
    printed = capsys.readouterr().out
    assert "Proven: 3 training cells, each with its parameters on the GPU." in printed
    assert printed.endswith("Outputs: as they are stored, in every lesson.\n")
    ran.ran.clear()
    assert gpulessons.main([*books[1:], "--jobs", "1"]) == 0
    assert ran.ran == [books[1:]]


@pytest.mark.parametrize(
    ("status", "cell", "text"),
    [
        (1, {}, "Outputs: NOT as they are stored, see above."),
        (
            0,
            {"devices": ["cpu"], "kernels": 0},
            "Not proven:\n  lesson 04, `runs = watch(`: 400 optimizer steps, parameters on cpu",
        ),
    ],
)
def test_either_of_both_fails_the_run(
    books: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int,
    cell: dict[str, Any], text: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(gpulessons.subprocess, "run", Pytest(status, cell))
    assert gpulessons.main(books[1:2]) == 1
    assert text in capsys.readouterr().out


def test_each_kernel_gets_a_part_of_the_memory(books: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpulessons.subprocess, "run", ran := Pytest())
    monkeypatch.setattr(gpulessons.torch.cuda, "is_available", lambda: True)
    assert gpulessons.main([*books[1:], "--gib", "3.5"]) == 0
    assert ran.environments[0][kernelrecord.GIB] == "3.5"
    given: list[float] = []
    whole = type("Card", (), {"total_memory": 14 * 2**30})
    monkeypatch.setattr(kernelrecord.torch.cuda, "get_device_properties", lambda _: whole)
    monkeypatch.setattr(kernelrecord.torch.cuda, "set_per_process_memory_fraction", given.append)
    for gib in ("3.5", "99"):
        kernelrecord.limit(gib)
    assert given == [0.25, 1.0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["04.ipynb"], "no notebook 04.ipynb; name files such as notebooks/04_scale_the_loss.ipynb."),
        (["--gib", "4"], "--gib limits a GPU's memory and there is no GPU here; leave it out."),
    ],
)
def test_wrong_options_are_named(
    options: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpulessons.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpulessons.subprocess, "run", Pytest())
    with pytest.raises(SystemExit):
        gpulessons.main(options)
    assert text in capsys.readouterr().err
