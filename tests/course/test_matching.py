"""Matching tasks: kind about spelling, exact about choices, in the unit and in each lesson that has one."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from torch import tensor

import mpkit
from mpkit.course.exercises import check
from mpkit.course.exercises.matching import Key, matching

CURES = ("raise the scale", "lower the scale", "launch-bound")
PATIENTS = {
    "A": ("raise the scale", {"lower the scale": "A is low already.", "launch-bound": "A does not launch."}),
    "B": ("launch-bound", {"lower the scale": "B has no scale.", "raise the scale": "B has none to raise."}),
}
RIGHT = {"A": "raise the scale", "B": "launch-bound"}
LESSONS = ("01", "02", "03", "04", "05", "06", "07", "08")


def judged(answer: Any, **words: str) -> tuple[str, str]:
    feedback = matching(answer, PATIENTS, CURES, each="patient", choice="cure", passes="Well matched.", **words)
    return feedback.status, feedback.message


@pytest.mark.parametrize(
    "answer",
    [
        RIGHT,
        {"A": " Raise the SCALE", "B": "launch bound"},
        {" a ": "raise_the_scale.", "b": "Launch-Bound"},
        {"B": "launch-bound", "A": "raise the scale", "C": "leave it", 7: ...},
        {"a": "lower the scale", "A": "raise the scale", "B": "launch-bound"},
        {"A": "raise the scale", "a": "lower the scale", "B": "launch-bound"},
        {"A": ..., "a": "raise the scale", "B": "launch-bound"},
    ],
)
def test_a_right_answer_passes_in_any_spelling(answer: dict[Any, Any]) -> None:
    assert judged(answer) == ("pass", "Well matched.")


def test_an_object_is_as_good_as_its_name() -> None:
    key = {"A": ("FP16", {"BF16": "No."})}
    assert (
        matching({"A": mpkit.FP16}, key, ("FP16", "BF16"), each="job", choice="format", passes="Yes.").status == "pass"
    )


@pytest.mark.parametrize("blank", [None, ..., "", "  ", "...", "…"])
def test_what_is_not_filled_in_waits(blank: object) -> None:
    assert judged({"A": "raise the scale", "B": blank}) == (
        "not yet",
        "Not yet: patient B still waits. Replace the three dots.",
    )
    assert judged({"A": "lower the scale", "B": blank})[0] == "not yet", "before anything is judged"
    assert judged({"A": blank, "B": blank})[1] == "Not yet: patients A, B still wait. Replace the three dots."
    assert judged({})[1] == "Not yet: patients A, B still wait. Replace the three dots."


def test_the_exercise_may_say_who_waits_in_its_own_words() -> None:
    assert judged({}, waiting="{count} patients are in the hall: {names}")[1] == (
        "Not yet: 2 patients are in the hall: A, B. Replace the three dots."
    )
    assert judged({"A": "launch-bound"}, waiting="{count} of 2")[1].startswith("Not yet: patient B still waits.")


def test_a_misspelled_name_is_mentioned_where_another_waits() -> None:
    assert judged({"A": "raise the scale", "BB": "launch-bound", 3: 4}) == (
        "not yet",
        "Not yet: patient B still waits. There is no patient 'BB', 3.",
    )


@pytest.mark.parametrize(
    "odd", ["more scale", "raise", 3, True, tensor([1.0, 2.0]), ["raise the scale", "launch-bound"]]
)
def test_a_choice_that_is_none_lists_them_all_and_is_not_called_wrong(odd: object) -> None:
    status, message = judged({"A": "lower the scale", "B": odd})
    assert status == "not yet", "and told before what is wrong"
    assert message == (
        f"Patient B: {str(odd)!r} is not one of the cures: raise the scale; lower the scale; launch-bound."
    )


def test_the_first_wrong_choice_hears_its_own_message() -> None:
    assert judged({"B": "RAISE THE SCALE", "A": "Lower the scale"}) == ("wrong", "A is low already.")
    assert judged({**RIGHT, "B": "raise the scale"}) == ("wrong", "B has none to raise.")


@pytest.mark.parametrize(
    ("answer", "came"),
    [
        ("raise the scale", "a text"),
        (3.0, "a number"),
        (tensor(3.0), "a number"),
        (tensor([1.0, 2.0]), "a Tensor"),
        (True, "True or False"),
        ([], "a list"),
        (judged, "a function"),
    ],
)
def test_what_is_no_dict_is_named_and_the_example_is_not_the_solution(answer: object, came: str) -> None:
    assert judged(answer) == (
        "wrong",
        f'The answer is a dict with one cure a patient, such as {{"A": "lower the scale", …}}. What came is {came}.',
    )


# ---- the eight lessons ----


@pytest.fixture(params=LESSONS)
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Key, tuple[str, ...]]:
    """Number, key and choices of a lesson's matching exercise, taken from its call of `matching`."""
    number, seen = request.param, list[Any]()

    def spy(answer: Any, key: Key, choices: tuple[str, ...], **words: str) -> Any:
        seen.extend((key, choices))
        return matching(answer, key, choices, **words)

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module(f"mpkit.course.lesson_{number}.exercises"), "matching", spy)
        check(f"{number}.3", {}, record=False)
    return number, *seen


# Where zero_grad may stand at the top of the loop, its line is the one where something is missing.
ALSO_RIGHT = {("06", "scaler.scale(loss).backward()", "fine")}


def said(number: str, answer: object) -> tuple[str, str]:
    feedback = check(f"{number}.3", answer, record=False)
    return feedback.status, feedback.message


def letters(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


def test_every_wrong_choice_of_a_lesson_has_a_message_of_its_own(task: tuple[str, Key, tuple[str, ...]]) -> None:
    number, key, choices = task
    for name, (right, messages) in key.items():
        assert {right, *messages} == set(choices)
        assert right not in messages
        assert len(set(messages.values())) == len(choices) - 1
        for chosen, message in messages.items():
            assert len(message) > 15
            given = said(number, {**{other: key[other][0] for other in key}, name: chosen})
            assert given == ("wrong", message) or ((number, name, chosen) in ALSO_RIGHT and given[0] == "pass")


def test_names_and_choices_of_a_lesson_differ_in_more_than_spelling(task: tuple[str, Key, tuple[str, ...]]) -> None:
    _, key, choices = task
    for texts in (tuple(key), choices):
        assert len({letters(text) for text in texts}) == len(texts)
        assert all(map(letters, texts))


@pytest.mark.parametrize("spelled", [str.upper, str.lower, str.title, letters, "  {} ".format, "{}.".format])
def test_the_right_answer_of_a_lesson_passes_in_any_spelling(
    task: tuple[str, Key, tuple[str, ...]], spelled: Any
) -> None:
    number, key, _ = task
    assert said(number, {spelled(name): spelled(right) for name, (right, _) in key.items()})[0] == "pass"


def test_what_waits_is_told_in_every_lesson(task: tuple[str, Key, tuple[str, ...]]) -> None:
    number, key, choices = task
    right = {name: right for name, (right, _) in key.items()}
    for name in key:
        assert said(number, {**right, name: ...}) == said(number, {k: v for k, v in right.items() if k != name})
        status, message = said(number, {**right, name: None})
        assert status == "not yet"
        assert f"{name} still waits. Replace the three dots." in message
        status, message = said(number, {**right, name: "something else"})
        assert status == "not yet"
        assert f"{name}: 'something else' is not one of the " in message
        assert message.endswith(f": {'; '.join(choices)}.")
