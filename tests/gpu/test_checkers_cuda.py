"""A learner's tensors may lie on a CUDA device: every known answer is judged by what it computes.

Each answer of tests/lesson_NN/answers.py whose exercise asks for a function is judged as it is, and in three wrappings.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import lesson_cells
from harness.lesson_cells import Exercise
from torch import Tensor

from mpkit.course.exercises import Feedback, check
from mpkit.course.exercises.checker import CHECKERS
from mpkit.trees import map_leaves, map_tensors, tensors_in

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch.cuda.is_available() is False"),
]
GPU = "cuda"
Function = Callable[..., Any]
Way = Callable[[Function, bool], Function]  # the learner's function, and whether it works by side effect

EXERCISES: dict[str, Exercise] = {}
RIGHT: list[tuple[str, str]] = []
WRONG: list[tuple[str, str, str]] = []
for path in sorted(Path(__file__).parents[1].glob("lesson_*/answers.py")):
    bank = importlib.import_module(f"{path.parent.name}.answers")
    importlib.import_module(f"mpkit.course.{path.parent.name}.exercises")  # fills CHECKERS
    EXERCISES |= lesson_cells.exercises(path.parent.name[-2:])
    RIGHT += bank.RIGHT
    WRONG += [*bank.WRONG, *bank.ALSO_WRONG]
CODE = {key for key in EXERCISES if CHECKERS[key][1] == "function"}
RIGHT = [(key, EXERCISES[key].solution) for key in sorted(CODE)] + [(key, code) for key, code in RIGHT if key in CODE]
WRONG = [(key, code, words) for key, code, words in WRONG if key in CODE]


# --- the ways that a learner may use the device ----------------------------------------------------------------------


def as_it_is(answer: Function, by_side_effect: bool) -> Function:
    return answer


def move_weights(args: Any) -> None:
    """Weights, and copies of weights, go to the GPU and stay the objects that the checker looks at afterwards.

    A loss stays where it is, for it hangs on weights that are not among the arguments.
    """
    for x in tensors_in(args):
        if x.is_leaf:
            grad, x.grad = x.grad, None
            x.data = x.data.to(GPU)
            x.grad = None if grad is None else grad.to(GPU)


def moves_its_inputs(answer: Function, by_side_effect: bool) -> Function:
    """Every tensor that comes goes to the GPU, and what is computed there stays there."""

    @functools.wraps(answer)
    def call(*args: Any) -> Any:
        if by_side_effect:
            move_weights(args)
            return answer(*args)
        return answer(*map_tensors(lambda x: x.to(GPU), args))

    return call


def helps_itself_there(answer: Function, by_side_effect: bool) -> Function:
    """Every tensor that comes meets one that was made on the GPU."""

    @functools.wraps(answer)
    def call(*args: Any) -> Any:
        held = [group["params"] for arg in args if hasattr(arg, "param_groups") for group in arg.param_groups]
        for x in tensors_in((args, held)):
            torch.cat([x.detach().reshape(-1), torch.zeros(1, dtype=x.dtype, device=GPU)])
        return answer(*args)

    return call


def leaves_its_result_there(answer: Function, by_side_effect: bool) -> Function:
    """What comes back is on the GPU: a tensor, and a number too where the exercise is about numbers."""

    def there(value: Any, number: bool) -> Any:
        if number and isinstance(value, bool | int | float):
            return torch.tensor(value, dtype=torch.bool if isinstance(value, bool) else torch.float64, device=GPU)
        return value.to(GPU) if isinstance(value, Tensor) else value

    @functools.wraps(answer)
    def call(*args: Any) -> Any:
        numbers = not any(True for _ in tensors_in(args))
        result = map_leaves(lambda value: there(value, numbers), answer(*args))
        if by_side_effect:
            for x in tensors_in(args):
                x.grad = None  # used, and the next one is the checker's
            move_weights(args)
        return result

    return call


WAYS: list[Way] = [as_it_is, moves_its_inputs, helps_itself_there, leaves_its_result_there]


def judged(patch: pytest.MonkeyPatch, key: str, code: str, way: Way) -> Feedback:
    """What `check` says to a learner's code that uses the device in that way."""

    def look(key: str, answer: Any, *, record: bool) -> Feedback:
        return check(key, way(answer, CHECKERS[key][2]) if callable(answer) else answer, record=record)

    patch.setattr(lesson_cells, "check", look)
    return lesson_cells.judge(EXERCISES[key], code)


# --- the judgements --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("key", "code"), RIGHT)
def test_a_right_answer_passes(key: str, code: str, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    feedback = judged(monkeypatch, key, code, way)
    assert feedback.status == "pass", feedback


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("key", "code", "words"), WRONG)
def test_a_wrong_answer_hears_what_it_hears_on_the_cpu(
    key: str, code: str, words: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = judged(monkeypatch, key, code, way)
    assert feedback.status != "pass"
    assert words in feedback.message


@pytest.mark.parametrize("key", ["02.2", "03.2", "04.2", "06.1", "06.2", "08.1", "08.2"])
def test_helper_tensors_there_do_meet_a_mismatch_at_first(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would show nothing."""
    ran: list[bool] = []

    def noting(answer: Function, by_side_effect: bool) -> Function:
        def call(*args: Any) -> Any:
            try:
                result = helps_itself_there(answer, by_side_effect)(*args)
            except RuntimeError:
                ran.append(False)
                raise
            ran.append(True)
            return result

        return call

    assert judged(monkeypatch, key, EXERCISES[key].solution, noting).status == "pass"
    assert ran[0] is False
    assert all(ran[1:])
    assert len(ran) > 1


def test_nothing_is_left_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, "08.2", EXERCISES["08.2"].solution, helps_itself_there)
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.zeros(1).device.type == "cpu"
