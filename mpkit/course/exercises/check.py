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

import torch

from mpkit.course import table
from mpkit.course.exercises import store
from mpkit.course.exercises.checker import CHECKERS, Feedback, Judge, Stop, Wants, is_open, kind, not_yet, wrong
from mpkit.trees import map_tensors, tensors_in

EMPTY = "Not yet: your answer is still empty. Fill in the part marked with `...` and run the cell again."
ITSELF = "The answer is the function itself: its name, without parentheses behind it."
NO_RESULT = "Not yet: your function returns nothing. Its last line should `return` the result."

# Frames of these folders are not the learner's: this package, the standard library, installed packages.
FOLDERS = (Path(__file__).parents[2], *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
OURS = (*(f"{folder}{os.sep}" for folder in FOLDERS), "<frozen")
GPU = "cuda"  # where a checker's tensors are made if the learner's are there


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
        return _on_either_device(judge, answer if returns_nothing else _filled(answer))
    except Stop as stop:
        return stop.feedback
    except NotImplementedError:
        return not_yet(EMPTY)
    except (Exception, SystemExit) as error:  # sys.exit() must not end the lesson; an interrupt still may
        return wrong(_explain(error, judge))


def _on_either_device(judge: Judge, answer: Any) -> Feedback:
    """Run a checker; if tensors of two devices met, once more with the checker's own tensors on the GPU.

    So a learner whose tensors are made with device=lesson.device is judged by what they compute.
    """
    try:
        return _run(judge, answer)
    except RuntimeError as error:
        # Nothing else is tried again: an index out of range is an error on the CPU, and the end of CUDA in this kernel.
        if "device" not in str(error) or not torch.cuda.is_available():
            raise
    with torch.device(GPU):
        return _run(judge, answer)


def _run(judge: Judge, answer: Any) -> Feedback:
    result = judge(answer)
    return result if isinstance(result, Feedback) else _first_problem(result)


def _first_problem(results: Iterator[Feedback] | None) -> Feedback:
    last = wrong("The check of this exercise said nothing. That is a fault in mpkit, not in your answer.")
    for last in results or ():
        if last.status != "pass":
            break
    return last


def _filled(answer: Any) -> Any:
    """Wrap a learner's function: a call that returns nothing ends the check with "not yet", and tensors come here."""
    if not inspect.isroutine(answer):  # a callable object keeps its attributes, a module its parameters
        return answer

    @functools.wraps(answer)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = answer(*args, **kwargs)
        if is_open(result):
            raise Stop(not_yet(NO_RESULT if result is None else EMPTY))
        return _brought_here(result)

    return call


def _brought_here(result: Any) -> Any:
    """`result` with its tensors on the checker's device; as it came if they are there, or have no values to bring."""
    here = torch.get_default_device()

    def away(tensor: torch.Tensor) -> bool:
        return tensor.device != here and not tensor.is_meta

    if not any(map(away, tensors_in(result))):
        return result
    return map_tensors(lambda tensor: tensor.to(here) if away(tensor) else tensor, result)


def _explain(error: BaseException, judge: Judge) -> str:
    """Type, text and, if it happened in the learner's code, the line: of the deepest frame that is nobody else's."""
    what = f"{type(error).__name__}: {error}".rstrip(": .")
    checker = inspect.getfile(judge), judge.__name__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if (frame.filename, frame.name) != checker and not frame.filename.startswith(OURS):
            return f"Your code stopped with {what}. It happened in line {frame.lineno}: `{frame.line}`"
    return f"The check could not use your answer ({what}). Is it of the kind that the exercise asks for?"
