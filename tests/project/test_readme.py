"""The README is true: its code prints what it says, its tables match the project, its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from mpkit.course import table
from mpkit.course.recorded.speed import SpeedRecord

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_prints_what_its_comments_say() -> None:
    code = re.search(r"``python\n(.*?)``", TEXT, re.S)
    assert code is not None
    lines = [line for line in code.group(1).splitlines() if line.strip()]
    assert len(lines) == 8
    said = [line.split("# ", 1)[1] for line in lines if line.startswith("print(")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n".join(lines), "README", "exec"), {})
    found = printed.getvalue().splitlines()
    assert len(found) == len(said) >= 4
    for claim, output in zip(said, found, strict=True):
        start = claim.split(" …")[0]
        assert output.startswith(start) if claim.endswith("…") else output == claim


def test_the_table_lists_the_lessons_that_exist() -> None:
    ready = [entry for entry in table.LESSONS if entry.ready]
    rows = re.findall(r"\| \[(\d\d) ([^\]]+)\]\(notebooks/([^)]+)\) \| ([^|]+) \| (\d+) \|", TEXT)
    assert rows == [(e.number, e.title, e.filename, e.question, str(e.minutes)) for e in ready]


def test_every_link_and_picture_exists() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(targets) > 5
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_tree_names_what_is_there_and_nothing_is_missing() -> None:
    section = TEXT.split("## The library, in reading order")[1].split("##")[0]
    named = [name.rstrip("/") for name in re.findall(r"^  (\w+/?) ", section, re.M)]
    there = {path.stem for path in (ROOT / "mpkit").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert sorted(named) == sorted(there)
    assert len(section.split("```")[1].splitlines()) <= 24


def test_the_first_screen_names_both_commands_and_shows_the_widget() -> None:
    first_screen = "\n".join(TEXT.splitlines()[:12])
    assert "make lab" in first_screen
    assert "make test" in first_screen
    assert re.search(r"!\[.{40,}\]\(docs/", first_screen)


def test_its_times_are_those_of_the_record() -> None:
    record = SpeedRecord.load()
    ways = ("torch.amp", "torch.amp compiled, reduce-overhead", "fp16-mixed compiled, captured")
    eager = ("torch.amp eager", *ways[1:])
    measured = [
        [record.small["mlp"][way] for way in eager],
        [record.small["transformer"][way] for way in eager],
        [record.resnet50[way]["ms"] for way in ways],
    ]
    section = TEXT.split("## How fast is it?")[1].split("##")[0]
    said = [
        re.findall(r"\| ([\d.]+)(?= \|)", line) for line in section.splitlines() if re.search(r"\| [\d.]+ \|", line)
    ]
    assert said == [[f"{ms:.3g}" for ms in row] for row in measured]
    assert record.date in section
    assert record.processes == 3


def test_without_make_the_first_lesson_opens_too() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for text in (TEXT, makefile):
        first = re.search(r"jupyter lab (notebooks/00_\w+\.ipynb)", text)
        assert first
        assert (ROOT / first[1]).is_file()
