"""Figures that a command measured on a named machine, and the one way to read them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

FOLDER = Path(__file__).parent
MACHINE = "nvidia_h200"  # whose figures the lessons show to those who have no GPU


@dataclass(frozen=True)
class MachineRecord:
    """What every record says: the machine, torch's version, the day, and the command that made it.

    A subclass adds the figures as fields, and `KIND`: its command is `python -m mpkit record-KIND`, its files are
    KIND_*.json.
    """

    KIND: ClassVar[str]
    gpu: str
    torch: str
    date: str
    command: str

    @classmethod
    def load(cls, name: str | None = None, folder: Path = FOLDER) -> Self:
        """Read a record; None is the one that comes with the course. ValueError: no such record; it lists the known."""
        return cls(**cls.figures(read(cls.KIND, name or f"{cls.KIND}_{MACHINE}", folder)))

    @classmethod
    def figures(cls, data: dict[str, Any]) -> dict[str, Any]:
        """The fields out of what a file holds; KeyError: one is missing."""
        return {field.name: data[field.name] for field in fields(cls)}

    @property
    def source(self) -> str:
        """Where the figures come from, in a line."""
        return f"Recorded on an {self.gpu}, torch {self.torch}, {self.date}: {self.command}"


def read(kind: str, name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """What <name>.json in `folder` holds. ValueError: there is no such file; the text lists those of this kind."""
    path = folder / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(one.stem for one in folder.glob(f"{kind}_*.json"))) or "none"
        raise ValueError(f"there is no record {name!r}; known: {known}. To make one: python -m mpkit record-{kind}.")
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def header(kind: str, argv: Sequence[str]) -> dict[str, Any]:
    """The fields of a record that `python -m mpkit record-KIND` makes on this GPU now."""
    return {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": " ".join([f"python -m mpkit record-{kind}", *argv]),
    }  # fmt: skip


def write(kind: str, record: dict[str, Any], path: Path | None = None) -> Path:
    """Store a record under its GPU's name beside the others, or at `path`; returns where."""
    path = path or FOLDER / f"{kind}_{record['gpu'].lower().replace(' ', '_')}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path
