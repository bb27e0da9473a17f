"""Multiple choice with feedback on every option. A right answer stays right; the first try is told apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from mpkit.course import markup, table
from mpkit.course.exercises import store
from mpkit.course.exercises.check import material
from mpkit.course.panels.panel import Panel, guarded


@dataclass(frozen=True)
class Item:
    """One question: its options, the index of the right one, and a sentence of feedback for each option.

    Raises:
        ValueError: fewer than two options, two alike, not one feedback an option, or `right` outside them.
    """

    question: str
    options: tuple[str, ...]
    right: int
    feedback: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2 or len(set(self.options)) != len(self.options):
            raise ValueError(f"quiz item {self.question!r}: give two or more different options.")
        if len(self.feedback) != len(self.options):
            raise ValueError(
                f"quiz item {self.question!r}: {len(self.options)} options need as many feedback texts, "
                f"but {len(self.feedback)} came."
            )
        if self.right not in range(len(self.options)):
            raise ValueError(f"quiz item {self.question!r}: right={self.right!r} is not the index of an option.")


class Quiz(Panel):
    """Radio buttons with immediate feedback. `.answer(0, 2)` chooses the third option of the first question."""

    def __init__(self, key: str, items: Sequence[Item]) -> None:
        self.key, self.items = key, tuple(items)
        self.record = False
        self.first: dict[int, int] = {}  # item -> option chosen at the first try
        self.solved: set[int] = set()  # items whose right option was chosen; looking at the others takes nothing away
        self.choices = [self._radio(item) for item in self.items]
        self.notes = [widgets.HTML() for _ in self.items]
        self.score = widgets.HTML()
        rows: list[widgets.Widget] = []
        for number, item in enumerate(self.items):
            rows += [widgets.HTML(_heading(number, item)), self.choices[number], self.notes[number]]
        super().__init__(*rows, self.score)
        for number, radio in enumerate(self.choices):
            radio.observe(lambda change, number=number: self._on_choice(number, change["new"]), names="value")

    @staticmethod
    def _radio(item: Item) -> widgets.RadioButtons:
        options = [(text, index) for index, text in enumerate(item.options)]
        return widgets.RadioButtons(options=options, value=None, layout=widgets.Layout(width="auto"))

    def answer(self, item: int, option: int) -> None:
        """Choose an option as a click does: both count from 0."""
        self.choices[item].value = option

    @guarded
    def _on_choice(self, number: int, option: int | None) -> None:
        if option is None:
            return
        item = self.items[number]
        right = option == item.right
        self.first.setdefault(number, option)
        if right:
            self.solved.add(number)
        text = f"{'✓' if right else '✗'} {markup.escape(item.feedback[option])}"
        self.notes[number].value = markup.card(f'<div role="status">{text}</div>', "good" if right else "bad")
        self.score.value = markup.escape(self.summary())
        if self.record:
            store.put("quizzes", self.key, self.state())

    def state(self) -> dict[str, Any]:
        """What is stored: the first and the last choice of each question (null: none yet), a right one in its place."""
        return {
            "first": [self.first.get(number) for number in range(len(self.items))],
            "now": [
                item.right if number in self.solved else radio.value
                for number, (item, radio) in enumerate(zip(self.items, self.choices, strict=True))
            ],
            "right": [item.right for item in self.items],
        }

    def restore(self, state: Any) -> None:
        """Put stored choices back. A state that does not fit these questions is ignored."""
        if not isinstance(state, dict) or state.get("right") != [item.right for item in self.items]:
            return
        for number, (first, now) in enumerate(zip(state.get("first", ()), state.get("now", ()), strict=False)):
            if first in range(len(self.items[number].options)) and now in range(len(self.items[number].options)):
                self.first[number] = first
                self.answer(number, now)

    def summary(self) -> str:
        """How many are answered and right, in one line."""
        done = [number for number, radio in enumerate(self.choices) if radio.value is not None]
        at_once = sum(self.first[number] == self.items[number].right for number in done)
        text = f"Quiz {self.key.removesuffix('.quiz')}: {len(done)} of {len(self.items)} answered"
        return f"{text}: {at_once}{at_first_try(at_once, len(self.solved))}" if done else text

    def html(self) -> str:
        """Questions with folded feedback and what was chosen, for readers without a live widget."""
        cards = [
            markup.card(_heading(number, item) + _folded(item, self.choices[number].value))
            for number, item in enumerate(self.items)
        ]
        return "".join([*cards, self.score.value])


def at_first_try(at_once: int, right: int) -> str:
    """What follows a number of right answers: who clicks every option has none at the first try."""
    return " right at the first try" + (f", {right - at_once} after that" if right > at_once else "")


def _heading(number: int, item: Item) -> str:
    return f"<b>{number + 1}. {markup.escape(item.question)}</b>"


def _folded(item: Item, chosen: int | None) -> str:
    rows = enumerate(zip(item.options, item.feedback, strict=True))
    return "".join(
        f"<details{' open' if place == chosen else ''}><summary>{markup.escape(option)}</summary>{markup.escape(text)}"
        "</details>"
        for place, (option, text) in rows
    )


def quiz(key: str, items: Sequence[Item] | None = None, *, record: bool = True) -> Quiz:
    """Ask the questions of a lesson; show them by making this the last line of a cell.

    Args:
        key: "04" for the lesson's quiz, or "04.name" for another one.
        items: the questions. Default: `QUIZ` of mpkit/course/lesson_NN/exercises.py.
        record: False neither reads nor stores (for probe cells, which must not touch the learner's answers).

    Raises:
        ValueError: unknown lesson, or no items given and none in the lesson's module.
    """
    number = key[:2] if len(key) == 2 else store.lesson_of(key)
    table.find(number)
    full = f"{number}.quiz" if key == number else key
    if items is None:
        items = getattr(material(number), "QUIZ", None)
    if not items:
        raise ValueError(
            f"quiz {key!r} has no questions; pass items=[...] or define QUIZ in lesson_{number}/exercises.py."
        )
    panel = Quiz(full, items)
    if record:
        panel.restore(store.get("quizzes", full))
        panel.record = True
    return panel
