"""`check`: look at a learner's answer and say, kindly and precisely, what is right or missing. Never the solution.

The checkers of lesson NN live in `mpkit/course/lesson_NN/exercises.py`:

    @checker("04.1")
    def scale_rule(answer):
        require(answer(8.0, True) < 8.0, "After an overflow the scale must fall.")
        return passed("The scale falls after an overflow and stays otherwise.")
"""

from __future__ import annotations

import functools
import importlib
import inspect
import linecache
import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from mpkit.course import markup, table
from mpkit.course.exercises import store
from mpkit.course.exercises.store import Status

MARK: dict[Status, str] = {"pass": "✓", "not yet": "○", "wrong": "✗"}
ACCENT: dict[Status, str] = {"pass": "good", "not yet": "note", "wrong": "bad"}
EMPTY = "Not yet: your answer is still empty. Fill in the part marked with `...` and run the cell again."
NO_RESULT = "Not yet: your function returns nothing. Its last line should `return` the result."

# Frames of these folders are not the learner's: this package, the standard library, installed packages.
OURS = tuple(
    str(folder) + os.sep
    for folder in (Path(__file__).parents[2], *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
)


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


class _Stop(Exception):
    """Ends a checker early with a feedback."""

    def __init__(self, feedback: Feedback) -> None:
        super().__init__(feedback.message)
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
        raise _Stop(wrong(message))


Checker = Callable[[Any], "Feedback | Iterator[Feedback]"]
_CHECKERS: dict[str, tuple[Checker, bool]] = {}


def checker(key: str, *, returns_nothing: bool = False) -> Callable[[Checker], Checker]:
    """Register a checker under a key such as "04.1".

    It gets the answer and returns a Feedback, or yields several, of which the first that is no pass counts.
    `returns_nothing`: the learner's function works by side effect, so None from it does not mean "still empty".
    """
    store.lesson_of(key)

    def register(function: Checker) -> Checker:
        _CHECKERS[key] = (function, returns_nothing)
        return function

    return register


def material(number: str) -> ModuleType | None:
    """The module mpkit.course.lesson_NN.exercises, imported on demand; None for a lesson that is not there yet."""
    entry = table.find(number)
    return importlib.import_module(f"mpkit.course.lesson_{entry.number}.exercises") if entry.ready else None


def exercises(number: str) -> list[str]:
    """Keys of the exercises of a lesson, in the order of its checkers."""
    material(number)
    return [key for key in _CHECKERS if key.startswith(f"{number}.")]


def check(key: str, answer: Any, *, record: bool = True) -> Feedback:
    """Check an answer: a number, a text, or a function of the learner's.

    A pass is stored for the score card and stays until `mpkit.course.exercises.reset`, so that running a fresh copy
    of the lesson takes nothing away. `record=False` stores nothing (for solutions and tests).

    Raises:
        ValueError: there is no exercise of that key.
    """
    known = exercises(store.lesson_of(key))
    if key not in known:
        raise ValueError(f"there is no exercise {key!r}; this lesson has {', '.join(known) or 'none yet'}.")
    feedback = replace(_judge(*_CHECKERS[key], answer), key=key)
    if record and store.get("exercises", key) != "pass":
        store.put("exercises", key, feedback.status)
    return feedback


def _judge(function: Checker, returns_nothing: bool, answer: Any) -> Feedback:
    """Run a checker and turn every exception into a feedback."""
    if answer is None or answer is Ellipsis:
        return not_yet(EMPTY)
    try:
        result = function(answer if returns_nothing else _filled(answer))
        feedback = result if isinstance(result, Feedback) else _first_problem(result)
    except _Stop as stop:
        return stop.feedback
    except NotImplementedError:
        return not_yet(EMPTY)
    except (Exception, SystemExit) as error:  # sys.exit() must not end the lesson; an interrupt still may
        return wrong(_explain(error, function))
    return feedback


def _first_problem(results: Iterator[Feedback] | None) -> Feedback:
    last = wrong("The check of this exercise said nothing. That is a fault in mpkit, not in your answer.")
    for last in results or ():
        if last.status != "pass":
            break
    return last


def _filled(answer: Any) -> Any:
    """Wrap a learner's function so that a call that returns nothing ends the check with "not yet"."""
    if not inspect.isroutine(answer):
        return answer

    @functools.wraps(answer)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = answer(*args, **kwargs)
        if result is None or result is Ellipsis:
            raise _Stop(not_yet(NO_RESULT if result is None else EMPTY))
        return result

    return call


def _explain(error: BaseException, function: Checker) -> str:
    """Type, text and, if it happened in the learner's code, the line."""
    what = f"{type(error).__name__}: {error}".rstrip(": .")
    found = _learners_line(error.__traceback__, getattr(function, "__code__", None))
    if found is None:
        return f"The check could not use your answer ({what}). Is it of the kind that the exercise asks for?"
    number, line = found
    return f"Your code stopped with {what}. It happened in line {number}: `{line}`"


def _learners_line(trace: TracebackType | None, checker_code: CodeType | None) -> tuple[int, str] | None:
    """Deepest frame that is neither the checker's nor mpkit's nor a library's: its line number and text."""
    found = None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        theirs = trace.tb_frame.f_code is not checker_code and not name.startswith((*OURS, "<frozen"))
        if theirs:
            found = (trace.tb_lineno, linecache.getline(name, trace.tb_lineno).strip())
        trace = trace.tb_next
    return found
