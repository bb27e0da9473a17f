"""`check`: look at a learner's answer and say, kindly and precisely, what is right or missing. Never the solution."""

import functools
import importlib
import inspect
import os
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from mpkit.course import table
from mpkit.course.exercises import store
from mpkit.course.exercises.checker import CHECKERS, Feedback, Judge, Stop, Wants, is_open, kind, not_yet, wrong

EMPTY = "Not yet: your answer is still empty. Fill in the part marked with `...` and run the cell again."
ITSELF = "The answer is the function itself: its name, without parentheses behind it."
NO_RESULT = "Not yet: your function returns nothing. Its last line should `return` the result."

# Frames of these folders are not the learner's: this package, the standard library, installed packages.
FOLDERS = (Path(__file__).parents[2], *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
OURS = (*(f"{folder}{os.sep}" for folder in FOLDERS), "<frozen")


def material(number: str) -> ModuleType | None:
    """The module mpkit.course.lesson_NN.exercises, imported on demand; None for a lesson that is not there yet."""
    entry = table.find(number)
    return importlib.import_module(f"mpkit.course.lesson_{entry.number}.exercises") if entry.ready else None


def exercises(number: str) -> list[str]:
    """Keys of the exercises of a lesson, in the order of its checkers."""
    material(number)
    return [key for key in CHECKERS if key.startswith(f"{number}.")]


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
    feedback = replace(_judge(*CHECKERS[key], answer), key=key)
    if record and store.get("exercises", key) != "pass":
        store.put("exercises", key, feedback.status)
    return feedback


def _judge(judge: Judge, wants: Wants, returns_nothing: bool, answer: Any) -> Feedback:
    """Run a checker and turn every exception into a feedback."""
    if is_open(answer):
        return not_yet(EMPTY)
    if wants == "function" and not callable(answer):
        return wrong(f"{ITSELF} What came is {kind(answer)}, which looks like the result of a call.")
    try:
        result = judge(answer if returns_nothing else _filled(answer))
        return result if isinstance(result, Feedback) else _first_problem(result)
    except Stop as stop:
        return stop.feedback
    except NotImplementedError:
        return not_yet(EMPTY)
    except (Exception, SystemExit) as error:  # sys.exit() must not end the lesson; an interrupt still may
        return wrong(_explain(error, judge))


def _first_problem(results: Iterator[Feedback] | None) -> Feedback:
    last = wrong("The check of this exercise said nothing. That is a fault in mpkit, not in your answer.")
    for last in results or ():
        if last.status != "pass":
            break
    return last


def _filled(answer: Any) -> Any:
    """Wrap a learner's function so that a call that returns nothing ends the check with "not yet"."""
    if not inspect.isroutine(answer):  # a callable object keeps its attributes, a module its parameters
        return answer

    @functools.wraps(answer)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = answer(*args, **kwargs)
        if is_open(result):
            raise Stop(not_yet(NO_RESULT if result is None else EMPTY))
        return result

    return call


def _explain(error: BaseException, judge: Judge) -> str:
    """Type, text and, if it happened in the learner's code, the line: of the deepest frame that is nobody else's."""
    what = f"{type(error).__name__}: {error}".rstrip(": .")
    checker = inspect.getfile(judge), judge.__name__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if (frame.filename, frame.name) != checker and not frame.filename.startswith(OURS):
            return f"Your code stopped with {what}. It happened in line {frame.lineno}: `{frame.line}`"
    return f"The check could not use your answer ({what}). Is it of the kind that the exercise asks for?"
