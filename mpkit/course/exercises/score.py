"""The score card of one lesson, and the map of the course with what is done."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass

from mpkit.course import markup, table
from mpkit.course.exercises import store
from mpkit.course.exercises.check import exercises, material
from mpkit.course.exercises.checker import MARK
from mpkit.course.exercises.predict import CLOSE, Value, asked, in_words
from mpkit.course.exercises.quiz import at_first_try

KIND_OF_EXERCISE = {"pass": "passed", "not yet": "not yet", "wrong": "not right yet"}


@dataclass(frozen=True)
class Table:
    """A title and rows, shown as an HTML table or as text columns. The first row is the header."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str, ...] = ()  # file behind the second cell of each row below the header; "" for none

    def __repr__(self) -> str:
        return f"{self.title}\n{markup.columns(self.rows)}" if len(self.rows) > 1 else self.title

    def _repr_html_(self) -> str:
        cells = [[markup.escape(cell) for cell in row] for row in self.rows]
        for row, link in zip(cells[1:], self.links, strict=False):
            if link:
                row[1] = f'<a href="{link}">{row[1]}</a>'
        return markup.card(f"<b>{markup.escape(self.title)}</b>" + markup.table(cells[0], cells[1:]))


def score_card(number: str, measured: Mapping[str, Value] | None = None) -> Table:
    """Compare the stored predictions of a lesson with what was measured; list exercises and quiz.

    Args:
        number: two digits, such as "04".
        measured: prediction key -> outcome, such as {"04.flushed": 40.3}. Round it: the text must not vary.

    Raises:
        ValueError: unknown lesson, or a key of another lesson.
    """
    table.find(number)
    outcomes = dict(measured or {})
    for key in outcomes:
        if store.lesson_of(key) != number:
            raise ValueError(f"score card of lesson {number}: {key!r} belongs to another lesson.")
    guesses = store.section("predictions", number)
    rows = [("What", "You", "Measured", "")]
    rows += [_prediction_row(key, guesses.get(key), outcome) for key, outcome in outcomes.items()]
    done = store.section("exercises", number)
    for key in exercises(number):
        status = done.get(key, "not yet")
        rows.append((f"Exercise {key}", KIND_OF_EXERCISE[status], "", MARK[status]))
    if (result := _quiz_result(number)) is not None:
        rows.append(("Quiz", *result))
    return Table(f"Score card of lesson {number}", tuple(rows))


def _prediction_row(key: str, guess: Value | None, outcome: Value) -> tuple[str, str, str, str]:
    """One prediction against its measurement, with the question and the unit if it was asked in this kernel."""
    panel = asked.get(key)
    show = panel.show if panel else in_words
    name = panel.question if panel else f"Prediction {key}"
    if guess is None:
        return name, "no prediction", show(outcome), "○"
    return name, show(guess), show(outcome), _verdict(guess, outcome, panel.close if panel else CLOSE)


def _verdict(guess: Value, outcome: Value, close: float) -> str:
    if isinstance(guess, str) or isinstance(outcome, str):
        return "✓" if guess == outcome else "✗ surprised?"
    if guess == outcome:
        return "✓"
    if abs(guess - outcome) <= close * abs(outcome):
        return "✓ close"
    return "✗ too low" if guess < outcome else "✗ too high"


def _quiz_result(number: str) -> tuple[str, str, str] | None:
    """Right answers of the lesson's quiz, or None for a lesson without one."""
    total = len(getattr(material(number), "QUIZ", ()))
    if not total:
        return None
    state = store.get("quizzes", f"{number}.quiz")
    if not isinstance(state, dict):
        return "not taken", "", MARK["not yet"]
    right = state.get("right", ())
    now, first = (sum(map(operator.eq, state.get(name, ()), right)) for name in ("now", "first"))
    return f"{first} of {total}{at_first_try(first, now)}", "", MARK["pass" if now == total else "not yet"]


def course_map() -> Table:
    """All lessons with their question, minutes, and how far the learner is."""
    rows = [("", "Lesson", "Question", "Minutes", "You")]
    links = []
    for entry in table.LESSONS:
        progress = _progress(entry.number) if entry.ready else "in preparation"
        rows.append((entry.number, entry.title, entry.question, str(entry.minutes), progress))
        links.append(entry.filename if entry.ready else "")
    return Table("The course", tuple(rows), tuple(links))


def _progress(number: str) -> str:
    """ "✓ done" once every exercise is passed and the quiz is all right; else what is there so far."""
    if not store.load(number):
        return "○ not started"
    keys, done = exercises(number), store.section("exercises", number)
    count = sum(done.get(key) == "pass" for key in keys)
    so_far = f"○ {count} of {len(keys)} exercises"
    if count < len(keys):
        return so_far
    result = _quiz_result(number)
    return "✓ done" if result is None or result[2] == MARK["pass"] else f"{so_far}, quiz open"
