"""Every exercise of every lesson: its card, its help, its solution, and what typical answers hear.

What learners answer stands in tests/lesson_NN/answers.py:
    RIGHT        (exercise, code): answers that pass, besides the notebook's own solution
    WRONG        (exercise, code, words): at least three misconceptions an exercise, each with a message of its own
    ALSO_WRONG   (exercise, code, words): the same misconceptions in another form
    STUBS        exercise -> (status, words): what the untouched stub hears
    SECRETS      exercise -> regex of what no message may say: the heart of the solution
    ECHO         regex of what a message repeats from the learner's own answer; it is no secret and no message
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from harness.lesson_cells import CARD, Exercise, exercises, judge

from mpkit.course.exercises import Feedback, store
from mpkit.course.table import LESSONS

BANKS: dict[str, ModuleType] = {
    path.parent.name[-2:]: importlib.import_module(f"{path.parent.name}.answers")
    for path in sorted(Path(__file__).parents[1].glob("lesson_*/answers.py"))
}
EXERCISES: dict[str, Exercise] = {key: one for number in BANKS for key, one in exercises(number).items()}
RIGHT = [answer for bank in BANKS.values() for answer in bank.RIGHT]
WRONG = [answer for bank in BANKS.values() for answer in bank.WRONG]
ALL_WRONG = WRONG + [answer for bank in BANKS.values() for answer in bank.ALSO_WRONG]


def bank_of(key: str) -> ModuleType:
    return BANKS[key.split(".")[0]]


def without_echo(key: str, feedback: Feedback) -> str:
    """The message without what it repeats of the learner's own answer."""
    return re.sub(bank_of(key).ECHO + r"|line \d+: `.*`", "", feedback.message)


def test_every_lesson_has_its_exercises() -> None:
    assert set(BANKS) == {entry.number for entry in LESSONS if entry.ready}
    for number in BANKS:
        keys = list(exercises(number))
        assert len(keys) >= (1 if number == "00" else 3)
        assert keys == [f"{number}.{k}" for k in range(1, len(keys) + 1)]


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_each_exercise_has_a_card_and_three_hints(exercise: Exercise) -> None:
    (card,) = CARD.findall(exercise.card)
    kind, difficulty, minutes = card
    assert kind in {"Code", "Debug", "Explain"}
    assert re.fullmatch(r"●{1,5}○*", difficulty)
    assert 1 <= int(minutes) <= 15
    assert f"Exercise {exercise.key}" in exercise.card
    assert len(exercise.hints) == len(set(exercise.hints)) == 3
    assert all(len(hint) > 20 for hint in exercise.hints)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_the_notebooks_solution_passes(exercise: Exercise) -> None:
    feedback = judge(exercise, exercise.solution)
    assert feedback.status == "pass", feedback
    assert store.load(exercise.key.split(".")[0]) == {}


@pytest.mark.parametrize("key", EXERCISES)
def test_the_untouched_stub_fails_kindly(key: str) -> None:
    status, words = bank_of(key).STUBS[key]
    feedback = judge(EXERCISES[key], EXERCISES[key].stub)
    assert feedback.status == status != "pass"
    assert words in feedback.message
    assert not re.search(bank_of(key).SECRETS[key], without_echo(key, feedback))


@pytest.mark.parametrize("key", EXERCISES)
def test_stub_and_solution_answer_the_same_question(key: str) -> None:
    """They cannot drift apart: every name that the stub defines, the solution defines with the same arguments."""
    heads = [re.findall(r"^(?:def \w+\(.*\)|\w+ =)", text, re.MULTILINE)
             for text in (EXERCISES[key].stub, EXERCISES[key].solution)]  # fmt: skip
    assert heads[0], "the stub defines what the learner fills in"
    assert set(heads[0]) <= set(heads[1])


@pytest.mark.parametrize(("key", "answer"), RIGHT)
def test_other_right_answers_pass(key: str, answer: str) -> None:
    feedback = judge(EXERCISES[key], answer)
    assert feedback.status == "pass", feedback


@pytest.mark.parametrize(("key", "answer", "words"), ALL_WRONG)
def test_a_wrong_answer_hears_what_is_wrong_and_not_what_is_right(key: str, answer: str, words: str) -> None:
    feedback = judge(EXERCISES[key], answer)
    assert feedback.status != "pass"
    assert words in feedback.message
    assert not re.search(bank_of(key).SECRETS[key], without_echo(key, feedback)), feedback.message


@pytest.mark.parametrize("key", EXERCISES)
def test_each_wrong_answer_has_a_message_of_its_own(key: str) -> None:
    said = [without_echo(key, judge(EXERCISES[key], answer)) for number, answer, _ in WRONG if number == key]
    assert len(said) >= 3
    assert len(set(said)) == len(said)
