"""Predict first: a question whose answer is stored on the learner's machine before the experiment shows the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from mpkit.course import markup, table
from mpkit.course.exercises import store
from mpkit.course.panels.panel import BadInput, Panel, guarded
from mpkit.course.read_number import read_number

Value = float | str

CLOSE = 0.1  # a prediction within 10 % of the measurement is called close

# What was asked in this kernel, so that the score card can repeat the question and the unit.
asked: dict[str, Prediction] = {}


class Prediction(Panel):
    """Radio buttons or a number field. `.value` is the learner's answer, or the default until there is one."""

    def __init__(
        self, key: str, question: str, choices: Sequence[str] | None, unit: str, default: Value, low: float, high: float
    ) -> None:
        self.close = CLOSE
        self.key, self.question, self.unit, self.default = key, question, unit, default
        self.low, self.high = low, high
        self.choices = None if choices is None else tuple(choices)
        self.record = False  # nothing is stored while the stored answer is being restored
        self.answer: Value | None = None
        heading = widgets.HTML(f"<b>Your prediction.</b> {markup.escape(question)}")
        if self.choices is not None:
            self.field = widgets.RadioButtons(options=self.choices, value=None, layout=widgets.Layout(width="auto"))
            super().__init__(heading, self.field)
        else:
            # A text field can be empty and can say why an entry is no number; a number field silently corrects it.
            self.field = widgets.Text(
                placeholder="a number", continuous_update=False, layout=widgets.Layout(width="10em")
            )
            super().__init__(heading, widgets.HBox([self.field, widgets.HTML(markup.escape(unit))]))
        self.field.observe(self._on_change, names="value")

    @property
    def value(self) -> Value:
        """The learner's answer; the default while there is none, so that Run All goes on."""
        return self.default if self.answer is None else self.answer

    @property
    def made(self) -> bool:
        """Whether the learner has answered."""
        return self.answer is not None

    def show(self, value: Value) -> str:
        """A value with its unit, as the learner reads it."""
        return value if isinstance(value, str) else f"{in_words(value)} {self.unit}".rstrip()

    def restore(self, value: Any) -> None:
        """Put a stored answer back into the field. One that no longer fits the question is ignored."""
        if self.choices is not None:
            if value in self.choices:
                self.field.value = value
        elif store.is_number(value, self.low, self.high):
            self.field.value = repr(value).removesuffix(".0")  # every digit: nothing is rounded on the way

    @guarded
    def _on_change(self, change: dict[str, Any]) -> None:
        new = change["new"]
        if new is None or new == "":
            self.say("" if self.answer is None else f"The field is empty; {self.show(self.answer)} stays noted.")
            return
        self.answer = new if self.choices is not None else self._number(new)
        if self.record:
            store.put("predictions", self.key, self.answer)
        self.say(f"Noted: {self.show(self.answer)}. Now run the experiment below.")

    def _number(self, text: str) -> float:
        value = parse(text, self.unit, self.low, self.high)
        if self.close == 0 and not value.is_integer():
            raise BadInput(f"{in_words(value)} is no whole number, and a count is asked for.")
        return value

    def summary(self) -> str:
        """Key and answer in one line."""
        if self.answer is None:
            return f"Prediction {self.key}: not made yet (run this cell to answer)"
        return f"Prediction {self.key}: {self.show(self.answer)}"

    def html(self) -> str:
        """The question and its options, for readers without a live widget."""
        lines = f"<b>Your prediction.</b> {markup.escape(self.question)}"
        if self.choices is not None:
            lines += "<ul>" + "".join(f"<li>{markup.escape(text)}</li>" for text in self.choices) + "</ul>"
        return markup.card(f"{lines}<div><i>{markup.escape(self.summary())}</i></div>")


def parse(text: str, unit: str = "", low: float = -math.inf, high: float = math.inf) -> float:
    """Number that a learner typed: 40, 40 %, 40,5, 1,000, 1e-8, 2^-14.

    Raises:
        BadInput: it is no finite number, or lies outside low to high.
    """
    try:
        value = read_number(text.strip().removesuffix(unit))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"`{text}` is not a number that can be used here; type one such as 40, 0.5, 1e-8 or 2^-14.")
    if not low <= value <= high:
        said, first, last = (in_words(x, digits=10) for x in (value, low, high))
        raise BadInput(f"{said} is outside the possible range; type a number from {first} to {last}.")
    return value


def in_words(value: Value, digits: int = 4) -> str:
    """A text as it is; a whole number in full, as 65,505; any other in `digits` digits, or in 10 from 1,000 on."""
    if isinstance(value, str):
        return value
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.{10 if abs(value) >= 1000 else digits}g}"


def predict(
    key: str,
    question: str,
    *,
    default: Value,
    choices: Sequence[str] | None = None,
    unit: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    close: float = CLOSE,
    record: bool = True,
) -> Prediction:
    """Ask for a prediction; show it by making it the last line of a cell.

    Args:
        key: lesson and name, such as "04.flushed".
        question: plain text; words in backticks are shown as code.
        default: `.value` until the learner answers. Never stored, never shown.
        choices: options of radio buttons; without them the answer is a number.
        unit: shown behind the number, such as "%".
        low, high: limits of the number.
        close: part of the measured number by which a prediction may be off and still be called close; 0 for a count.
        record: False neither reads nor stores (for probe cells, which must not touch the learner's answers).

    Raises:
        ValueError: unknown lesson in the key, an impossible default, fewer than two choices, or a negative close.
    """
    table.find(store.lesson_of(key))
    if not close >= 0:
        raise ValueError(f"prediction {key}: close={close!r} is no part of a number; use 0 or more.")
    if choices is not None and (len(set(choices)) < 2 or len(set(choices)) != len(choices)):
        raise ValueError(f"prediction {key}: choices must be two or more different texts, but {choices!r} came.")
    possible = default in choices if choices is not None else store.is_number(default, low, high)
    if not possible:
        options = f"one of {list(choices)}" if choices is not None else f"a number from {low} to {high}"
        raise ValueError(f"prediction {key}: default={default!r} is no possible answer; use {options}.")
    panel = Prediction(key, question, choices, unit, default, low, high)
    panel.close = close
    if record:
        panel.restore(store.get("predictions", key))
        panel.record = True
        asked[key] = panel
    return panel
