"""Figures that a command measured on a named machine, and the one way to read them."""

import importlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from mpkit.course.runs.energy import driver

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class MachineRecord:
    """What every record says: the machine, all versions, the day, the command that made it, and in how many processes.

    Each figure is the median of `processes` fresh processes, which ran on `gpus` GPUs of one host, one at a time on
    each. `range` repeats the figures' places, with [least, most] of the processes in each. What depends on a seed
    (losses) ran once, and is not in it.

    A subclass adds the figures as fields, and `KIND`: its command is `python -m mpkit record-KIND`, its files are
    KIND_*.json. `MACHINE`: whose figures the lessons show to those who have no GPU.
    """

    KIND: ClassVar[str]
    MACHINE: ClassVar[str]
    gpu: str
    torch: str
    cuda: str
    cudnn: str
    triton: str
    python: str
    driver: str
    date: str
    command: str
    processes: int
    gpus: int
    range: dict[str, Any]

    @classmethod
    def load(cls, name: str | None = None, folder: Path = FOLDER) -> Self:
        """Read a record; None is the one that comes with the course. ValueError: no such record; it lists the known."""
        return cls(**cls.figures(read(cls.KIND, name or f"{cls.KIND}_{cls.MACHINE}", folder)))

    @classmethod
    def figures(cls, data: dict[str, Any]) -> dict[str, Any]:
        """The fields out of what a file holds; KeyError: one is missing."""
        return {field.name: data[field.name] for field in fields(cls)}

    @property
    def source(self) -> str:
        """Where the figures come from, in a line."""
        return f"Recorded on an {self.gpu}, torch {self.torch}, {self.date}: {self.command}"

    @property
    def versions(self) -> str:
        """What they were measured with and how often, in a line."""
        return (
            f"CUDA {self.cuda}, cuDNN {self.cudnn}, Triton {self.triton}, Python {self.python}, driver {self.driver}; "
            f"each figure is the median of {self.processes} processes"
        )


def read(kind: str, name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """What <name>.json in `folder` holds. ValueError: there is no such file; the text lists those of this kind."""
    path = folder / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(one.stem for one in folder.glob(f"{kind}_*.json"))) or "none"
        raise ValueError(f"there is no record {name!r}; known: {known}. To make one: python -m mpkit record-{kind}.")
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def machine() -> dict[str, str]:
    """The GPU of this process and every version that a figure may depend on; "" for what cannot be read."""
    triton = importlib.import_module("triton").__version__ if find_spec("triton") else ""
    cudnn: Any = torch.backends.cudnn
    return {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda or "",
        "cudnn": str(cudnn.version() or ""), "triton": triton, "python": platform.python_version(),
        "driver": driver(),
    }  # fmt: skip


def header(kind: str, machine: dict[str, str], argv: Sequence[str], processes: int, gpus: int) -> dict[str, Any]:
    """The first fields of a record that `python -m mpkit record-KIND` makes today."""
    return {
        **machine, "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": " ".join([f"python -m mpkit record-{kind}", *argv]), "processes": processes, "gpus": gpus,
    }  # fmt: skip


def write(kind: str, record: dict[str, Any], path: Path | None, folder: Path) -> Path:
    """Store a record at `path`, or under its GPU's name in `folder`; returns where."""
    path = path or folder / f"{kind}_{record['gpu'].lower().replace(' ', '_')}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path
