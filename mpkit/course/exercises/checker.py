"""`checker`, and what a checker is written with: its verdicts, and the questions that many ask of an answer.

The checkers of lesson NN live in `mpkit/course/lesson_NN/exercises.py`:

    @checker("04.1", wants="function")
    def scale_rule(answer):
        require(answer(8.0, True) < 8.0, "After an overflow the scale must fall.")
        return passed("The scale falls after an overflow and stays otherwise.")

A checker names no device for its tensors: `check` may run it with torch.device("cuda") around it. Random numbers are
drawn on the CPU, so that they are the same everywhere, and go to `torch.get_default_device()`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from mpkit.course import markup
from mpkit.course.exercises import store
from mpkit.course.exercises.store import Status

MARK: dict[Status, str] = {"pass": "✓", "not yet": "○", "wrong": "✗"}
ACCENT: dict[Status, str] = {"pass": "good", "not yet": "note", "wrong": "bad"}
KINDS = {"bool": "True or False", "int": "a number", "float": "a number", "str": "a text"}


@dataclass(frozen=True)
class Feedback:
    """What a check found. `message` is for the learner: it names the misconception, never the answer."""

    status: Status
    message: str
    key: str = ""

    def __repr__(self) -> str:
        return f"{MARK[self.status]} Exercise {self.key}: {self.message}"

    def _repr_html_(self) -> str:
        title = f"<b>{MARK[self.status]} Exercise {markup.escape(self.key)}</b><br>"
        return markup.card(title + markup.escape(self.message), ACCENT[self.status])


Judge = Callable[[Any], "Feedback | Iterator[Feedback]"]
Wants = Literal["function"] | None
CHECKERS: dict[str, tuple[Judge, Wants, bool]] = {}


def checker(key: str, *, wants: Wants = None, returns_nothing: bool = False) -> Callable[[Judge], Judge]:
    """Register a checker under a key such as "04.1".

    It gets the answer and returns a Feedback, or yields several, of which the first that is no pass counts.

    wants: "function" tells a learner who passes something else that the function itself is asked for.
    returns_nothing: the learner's function works by side effect, so None from it does not mean "still empty".
    """
    store.lesson_of(key)

    def register(judge: Judge) -> Judge:
        CHECKERS[key] = (judge, wants, returns_nothing)
        return judge

    return register


class Stop(Exception):
    """Ends a checker early with a feedback."""

    def __init__(self, feedback: Feedback) -> None:
        self.feedback = feedback


def passed(message: str) -> Feedback:
    """The answer is right; say in one sentence why it works."""
    return Feedback("pass", message)


def wrong(message: str) -> Feedback:
    """The answer is wrong; name the misconception."""
    return Feedback("wrong", message)


def not_yet(message: str) -> Feedback:
    """Something is still missing."""
    return Feedback("not yet", message)


def require(condition: object, message: str) -> None:
    """Go on if the condition holds, else end the checker with `wrong(message)`."""
    if not condition:
        raise Stop(wrong(message))


def number(value: Any, message: str) -> float:
    """A learner's number as a float; one from torch or numpy is as good. All else ends with `wrong(message)`."""
    value = plain(value)
    if isinstance(value, str):
        with suppress(ValueError):
            require(math.isnan(float(value)), f"{value!r} in quotes is a text. Write it without them: {value}")
    require(isinstance(value, Real) and not isinstance(value, bool), message)
    return float(value)


def plain(value: Any) -> Any:
    """A single number or truth value of torch or numpy as Python's; anything else as it came."""
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):  # nothing of theirs, or several values
        return value


def kind(value: Any) -> str:
    """What came, in a learner's words: "a number", "a text", "a Tensor"."""
    name = type(plain(value)).__name__
    return KINDS.get(name, f"a {name}")


def is_open(value: Any) -> bool:
    """Whether it still stands there as the exercise left it: None or the three dots."""
    return value is None or value is Ellipsis
