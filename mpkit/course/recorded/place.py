"""Where a command that measures writes: beside you, and over what the lessons read only if it is told to."""

import argparse
from pathlib import Path


def add_place(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the two options; `out` says what --out names: a file or a folder."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, help=f"{out}; default: in the current folder")
    where.add_argument("--for-lessons", action="store_true", help="write over what the lessons read")


def folder(chosen: argparse.Namespace, lessons: Path) -> Path:
    """The folder to write to, where --out names none. `lessons`: the one that the lessons read."""
    return lessons if chosen.for_lessons else Path()
