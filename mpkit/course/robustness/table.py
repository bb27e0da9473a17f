"""The stored answers of a sweep, and the table that a lesson shows."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from mpkit.course import markup
from mpkit.course.recorded.machine import FOLDER
from mpkit.course.robustness.sweep import Cell, Outcome, Scores, judge, mean


@dataclass(frozen=True)
class Table:
    """One sweep as it was measured. `scores[value][way]` has a number a seed; the rest is as in `Sweep`."""

    key: str
    question: str
    knob: str
    chosen: float
    reference: str
    margin: float
    unit: str
    better: str
    expected: Mapping[str, Outcome]
    source: str
    scores: Mapping[float, Scores]

    @classmethod
    def load(cls, key: str, folder: Path = FOLDER) -> Self:
        """Read a stored sweep. ValueError: there is none of this key; it lists the known."""
        path = folder / f"robustness_{key.split('.')[0]}.json"
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["sweeps"] if path.exists() else {}
        if key not in stored:
            known = ", ".join(stored) or "none"
            raise ValueError(
                f"there is no stored sweep {key!r}; known of this lesson: {known}. To make it: python -m mpkit "
                f"robustness {key.split('.')[0]}."
            )
        data = stored[key]
        return cls(key=key, **{**data, "scores": {float(value): ways for value, ways in data["scores"].items()}})

    def cell(self, value: float, way: str) -> Cell:
        """How a way compares with the reference at one value of the knob."""
        ways = self.scores[value]
        return judge(ways[way], ways[self.reference], self.margin, self.better)

    @property
    def holds_for(self) -> list[float]:
        """The values at which every way came out as the lesson says."""
        return [v for v in self.scores if all(self.cell(v, way).outcome == out for way, out in self.expected.items())]

    def rows(self) -> list[list[str]]:
        """Heading and rows, as text."""
        ways = next(iter(self.scores.values()))
        others = [way for way in ways if way != self.reference and way not in self.expected]
        rows = [[self.knob, self.reference, *self.expected, *others]]
        for value, found in self.scores.items():
            name = f"{_plain(value, 6)}{' (lesson)' if value == self.chosen else ''}"
            reference = _plain(mean(found[self.reference]), 3)
            tested = [self._words(self.cell(value, way)) for way in self.expected]
            rows.append([name, reference, *tested, *(_range(found[way]) for way in others)])
        return rows

    def _words(self, cell: Cell) -> str:
        """The difference and its interval, to about a hundredth of the margin."""
        if math.isnan(cell.difference):
            return cell.outcome
        places = max(0, 2 - math.floor(math.log10(self.margin)))
        low, middle, high = (_signed(x, places) for x in (cell.low, cell.difference, cell.high))
        return f"{middle} [{low}, {high}] {cell.outcome}"

    def caption(self) -> str:
        """What is compared with what, and the margin."""
        return (
            f"{self.question} Difference to {self.reference} in {self.unit}, [90 % interval] over "
            f"{len(next(iter(self.scores.values()))[self.reference])} seeds; equivalent: within {self.margin:g}."
        )

    def __repr__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self.caption(), *lines, self.source])

    def _repr_html_(self) -> str:
        head, *rows = self.rows()
        cells = "".join(f"<th style='text-align:left'>{markup.escape(cell)}</th>" for cell in head)
        lines = [
            "<tr>" + "".join(f"<td style='text-align:left'>{markup.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        ]
        return (
            f"<div>{markup.escape(self.caption())}</div><table><thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}"
            f"</tbody></table><div><small>{markup.escape(self.source)}</small></div>"
        )


def robustness_table(key: str) -> Table:
    """What happened when a lesson's knob was turned, such as "03.sgd". ValueError: there is no such stored sweep."""
    return Table.load(key)


def _range(numbers: Any) -> str:
    least, most = _plain(min(numbers)), _plain(max(numbers))
    return least if least == most else f"{least} to {most}"


def _plain(number: float, digits: int = 2) -> str:
    """So many significant digits, and no exponent: 0.00003 and 110."""
    return np.format_float_positional(number, precision=digits, unique=False, fractional=False, trim="-")


def _signed(number: float, places: int) -> str:
    """With two significant digits, and no more places behind the point than these."""
    text = _plain(number if abs(number) >= 10 ** (1 - places) else round(number, places) + 0.0)  # + 0.0: no -0
    return text if text.startswith("-") or text == "0" else f"+{text}"
