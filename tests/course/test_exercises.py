"""Predictions, checks, quiz and score card: driven by setting traits, as a front end does."""

from __future__ import annotations

import functools
import json
import re
import sys
import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy
import pytest
import torch

from mpkit.course.exercises import Feedback, check, course_map, predict, quiz, score_card, store
from mpkit.course.exercises import check as check_function
from mpkit.course.exercises.checker import CHECKERS, checker, not_yet, number, passed, require, wrong
from mpkit.course.exercises.predict import parse
from mpkit.course.exercises.quiz import Item
from mpkit.course.panels.panel import WIDGET_VIEW, BadInput

ITEMS = (
    Item("Which <one>?", ("a", "b", "c"), 1, ("a is not it", "b it is", "c is not it")),
    Item("And `now`?", ("x", "y"), 0, ("x it is", "y is not it")),
)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPKIT_STRICT", "1")


@pytest.fixture
def doubling() -> Iterator[str]:
    """An exercise: write a function that doubles a number."""
    key = "00.doubling"

    @checker(key)
    def double(answer: Any) -> Feedback:
        require(callable(answer), "A function is asked for.")
        require(answer(2.0) != 2.0, "Your function hands its input back.")
        require(answer(2.0) == 4.0, "Two becomes something else than its double.")
        return passed("It doubles.") if answer(3.0) == 6.0 else wrong("It works for 2 only.")

    yield key
    del CHECKERS[key]


# --- predict ---------------------------------------------------------------------------------------------------------


def test_a_prediction_is_a_default_until_it_is_made() -> None:
    panel = predict("04.flushed", "How many?", default=10.0, unit="%")
    assert (panel.value, panel.made) == (10.0, False)
    assert repr(panel) == "Prediction 04.flushed: not made yet (run this cell to answer)"
    assert store.load("04") == {}, "a default is never stored"
    assert "10" not in panel.html(), "and never shown: it would be a hint"
    panel.field.value = "40"
    assert (panel.value, panel.made, repr(panel)) == (40.0, True, "Prediction 04.flushed: 40 %")
    assert store.get("predictions", "04.flushed") == 40.0


def test_a_prediction_comes_back_in_the_next_session() -> None:
    predict("04.flushed", "How many?", default=10.0).field.value = "2^-14"
    again = predict("04.flushed", "How many?", default=10.0)
    assert again.value == 2**-14
    predict("04.where", "Where?", choices=("here", "there"), default="here").field.value = "there"
    assert predict("04.where", "Where?", choices=("here", "there"), default="here").value == "there"


@pytest.mark.parametrize("value", [65519.99, 1 / 3, 99999.0, 12345678.9, 1e-8, -0.1, 7, 2.0**-24])
def test_a_stored_number_comes_back_exactly(value: float) -> None:
    store.put("predictions", "04.many", value)
    assert predict("04.many", "How many?", default=1.0, low=-1, high=max(99999.0, value)).value == value


def test_true_is_no_number() -> None:
    panel = predict("04.many", "How many?", default=10.0, low=0, high=20)
    panel.restore(True)
    assert not panel.made
    with pytest.raises(ValueError, match="default=True is no possible answer"):
        predict("04.many", "How many?", default=True, low=0, high=20)


@pytest.mark.parametrize(
    ("typed", "words"),
    [("65505", "65,505"), ("65519.9999", "65,519.9999"), ("1/3", "0.3333"), ("3e-8", "3e-08"), ("1e20", "1e+20"),
     ("-0", "-0")],
)  # fmt: skip
def test_whole_numbers_are_noted_in_full(typed: str, words: str) -> None:
    panel = predict("04.many", "How many?", default=10.0)
    panel.field.value = typed
    assert f"Noted: {words}. Now run" in panel.message.value


def test_an_emptied_field_says_that_the_answer_stays() -> None:
    panel = predict("04.flushed", "How many?", default=10.0, unit="%")
    panel.field.value = "40"
    panel.field.value = ""
    assert "The field is empty; 40 % stays noted." in panel.message.value
    assert (panel.value, store.get("predictions", "04.flushed")) == (40.0, 40.0)
    fresh = predict("04.flushed", "How many?", default=10.0, record=False)
    fresh.field.value = "many"
    fresh.field.value = ""
    assert (fresh.message.value, fresh.made) == ("", False)


@pytest.mark.parametrize("stored", ["gone", 3.0, None, ["here"]])
def test_a_stored_answer_that_no_longer_fits_is_ignored(stored: Any) -> None:
    store.put("predictions", "04.where", stored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are of no kind that is ever stored: `store` says so
        assert not predict("04.where", "Where?", choices=("here", "there"), default="here").made
    store.reset("04")
    store.put("predictions", "04.many", 3.0 if stored == 3.0 else "text")
    assert not predict("04.many", "How many?", default=10.0, low=10, high=20).made


def test_a_probe_neither_reads_nor_writes_the_learners_answers() -> None:
    store.put("predictions", "04.where", "there")
    panel = predict("04.where", "Where?", choices=("here", "there"), default="here", record=False)
    assert not panel.made
    panel.field.value = "here"
    assert panel.value == "here"
    assert store.get("predictions", "04.where") == "there"


@pytest.mark.parametrize(
    ("typed", "value"),
    [("40", 40.0), ("40 %", 40.0), ("40%", 40.0), ("40,5", 40.5), (" 1e-8 ", 1e-8), ("2^-14", 2**-14),
     ("2**(-14)", 2**-14), ("-3", -3.0), ("2 ^ 3", 8.0), ("0", 0.0), ("1,000", 1000.0), ("12,5", 12.5),
     ("-12,345,678", -12345678.0), ("1,000.5 %", 1000.5), ("0,125", 0.125), ("12,50", 12.5), ("-2^2", -4.0),
     ("-2**-1", -0.5)],
)  # fmt: skip
def test_numbers_are_read_as_people_type_them(typed: str, value: float) -> None:
    assert parse(typed, unit="%") == value


@pytest.mark.parametrize(
    "typed",
    ["many", "1/0", "nan", "inf", "2^99999", "2^1e9", "0^-1", "-", "%", "1.2.3", "1,000,5", "<b>", "2^" + "9" * 9],
)
def test_what_is_no_number_gets_a_friendly_line_and_nothing_is_stored(typed: str) -> None:
    with pytest.raises(BadInput, match=r"is not a number that can be used here; type one such as 40, 0.5"):
        parse(typed, unit="%")
    panel = predict("04.flushed", "How many?", default=10.0, unit="%")
    panel.field.value = typed
    assert "is not a number" in panel.message.value
    assert "<b>" not in panel.message.value
    assert not panel.made
    assert store.load("04") == {}
    panel.field.value = "7"
    assert "Noted: 7 %" in panel.message.value


def test_a_number_outside_its_limits_names_them() -> None:
    panel = predict("04.flushed", "How many?", default=10.0, low=0, high=100)
    panel.field.value = "101"
    assert "101 is outside the possible range; type a number from 0 to 100." in panel.message.value
    with pytest.raises(BadInput, match=r"^100,000 is outside the possible range; type a number from 1 to 70,000\.$"):
        parse("100000", low=1, high=70000)
    with pytest.raises(BadInput, match=r"^100\.00001 is outside"):
        parse("100.00001", high=100)
    assert panel.value == 10.0


def test_a_choice_shows_its_options_and_is_escaped() -> None:
    panel = predict("04.where", "Is `x` < 1?", choices=("yes & no", "no"), default="no")
    data, _ = panel._repr_mimebundle_()
    assert WIDGET_VIEW in data
    assert "<code>x</code> &lt; 1?" in data["text/html"]
    assert "<li>yes &amp; no</li><li>no</li>" in data["text/html"]


def test_predict_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match=r"default='maybe' is no possible answer; use one of \['yes', 'no'\]"):
        predict("04.a", "?", choices=("yes", "no"), default="maybe")
    with pytest.raises(ValueError, match=r"default=-1 is no possible answer; use a number from 0 to 1"):
        predict("04.a", "?", default=-1, low=0, high=1)
    with pytest.raises(ValueError, match="two or more different texts"):
        predict("04.a", "?", choices=("yes", "yes"), default="yes")
    with pytest.raises(ValueError, match="there is no lesson '77'"):
        predict("77.a", "?", default=1)
    with pytest.raises(ValueError, match=r"'flushed' must be the lesson's two digits"):
        predict("flushed", "?", default=1)


# --- check -----------------------------------------------------------------------------------------------------------


def test_a_right_answer_passes_and_stays_passed(doubling: str) -> None:
    feedback = check(doubling, lambda x: 2 * x)
    assert repr(feedback) == "✓ Exercise 00.doubling: It doubles."
    assert store.get("exercises", doubling) == "pass"
    check(doubling, None)
    assert store.get("exercises", doubling) == "pass", "a fresh copy of the lesson takes nothing away"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x, "✗ Exercise 00.doubling: Your function hands its input back."),
        (lambda x: x + 3, "✗ Exercise 00.doubling: Two becomes something else than its double."),
        (lambda x: x * x, "✗ Exercise 00.doubling: It works for 2 only."),
        (4.0, "✗ Exercise 00.doubling: A function is asked for."),
    ],
)
def test_each_wrong_answer_has_its_own_message(doubling: str, answer: Any, message: str) -> None:
    assert repr(check(doubling, answer)) == message
    assert store.get("exercises", doubling) == "wrong"


def raises_not_implemented(x: float) -> float:
    raise NotImplementedError


@pytest.mark.parametrize("stub", [None, ..., lambda x: None, lambda x: ..., raises_not_implemented])
def test_an_empty_stub_fails_kindly(doubling: str, stub: Any) -> None:
    feedback = check(doubling, stub)
    assert feedback.status == "not yet"
    assert repr(feedback).startswith("○ Exercise 00.doubling: Not yet: your ")


def divides_by_zero(x: float) -> float:
    return x / 0


def test_an_exception_names_the_learners_line(doubling: str) -> None:
    number = divides_by_zero.__code__.co_firstlineno + 1
    assert check(doubling, divides_by_zero).message == (
        "Your code stopped with ZeroDivisionError: float division by zero. "
        f"It happened in line {number}: `return x / 0`"
    )
    through_library = check(doubling, lambda x: re.compile("("))
    assert "`through_library = check(" in through_library.message, "the learner's line, not the library's"


def leaves(x: float) -> float:
    sys.exit("bye")


def interrupts(x: float) -> float:
    raise KeyboardInterrupt


def test_an_exit_is_feedback_and_an_interrupt_passes(doubling: str) -> None:
    feedback = check(doubling, leaves)
    assert feedback.status == "wrong"
    assert feedback.message.startswith("Your code stopped with SystemExit: bye. It happened in line ")
    with pytest.raises(KeyboardInterrupt):
        check(doubling, interrupts)


def test_an_answer_of_the_wrong_kind_is_told_apart(doubling: str) -> None:
    message = check(doubling, len).message
    assert message == (
        "The check could not use your answer (TypeError: object of type 'float' has no len()). "
        "Is it of the kind that the exercise asks for?"
    )


def test_checkers_may_yield_and_may_accept_functions_that_return_nothing() -> None:
    @checker("00.parts", returns_nothing=True)
    def parts(answer: Any) -> Iterator[Feedback]:
        box: list[int] = []
        answer(box)
        yield passed("It ran.")
        yield passed("Two things.") if len(box) == 2 else not_yet(f"{len(box)} of 2 things are in the box.")

    try:
        assert repr(check("00.parts", lambda box: box.extend([1, 2]))) == "✓ Exercise 00.parts: Two things."
        assert repr(check("00.parts", lambda box: box.append(1))).startswith("○ Exercise 00.parts: 1 of 2")
    finally:
        del CHECKERS["00.parts"]


def test_a_check_that_says_nothing_is_our_fault(doubling: str) -> None:
    checker("00.silent")(lambda answer: None)  # type: ignore[arg-type,return-value]
    try:
        assert "a fault in mpkit, not in your answer" in check("00.silent", 1).message
    finally:
        del CHECKERS["00.silent"]


@pytest.fixture
def calling() -> Iterator[str]:
    """An exercise whose answer is a function that works by side effect."""
    key = "00.calling"

    @checker(key, wants="function", returns_nothing=True)
    def call(answer: Any) -> Feedback:
        answer()
        return passed("It ran.")

    yield key
    del CHECKERS[key]


class CanBeCalled:
    """As good as a function."""

    def __call__(self) -> None: ...


@pytest.mark.parametrize("answer", [list, lambda: None, print, CanBeCalled(), functools.partial(print)])
def test_where_a_function_is_wanted_whatever_can_be_called_is_one(calling: str, answer: Any) -> None:
    assert check(calling, answer).status == "pass"


@pytest.mark.parametrize(
    ("answer", "came"),
    [(4, "a number"), (4.0, "a number"), (numpy.float32(4), "a number"), (torch.tensor(4.0), "a number"),
     (torch.tensor(True), "True or False"), (torch.ones(2), "a Tensor"), (numpy.ones(2), "a ndarray"),
     (True, "True or False"), ("f", "a text"), ((1, 2), "a tuple"), ({}, "a dict")],
)  # fmt: skip
def test_where_a_function_is_wanted_the_result_of_a_call_is_told_apart(calling: str, answer: Any, came: str) -> None:
    feedback = check(calling, answer)
    assert feedback.status == "wrong"
    assert feedback.message == (
        "The answer is the function itself: its name, without parentheses behind it. "
        f"What came is {came}, which looks like the result of a call."
    )


@pytest.mark.parametrize("answer", [None, ...])
def test_where_a_function_is_wanted_an_empty_answer_is_still_empty(calling: str, answer: Any) -> None:
    feedback = check(calling, answer)
    assert feedback.status == "not yet"
    assert feedback.message.startswith("Not yet: your answer is still empty.")


@pytest.mark.parametrize(
    "value",
    [2, 2.0, Fraction(2), torch.tensor(2), torch.tensor([2.0]), numpy.int8(2), numpy.float64(2), numpy.array(2)],
)
def test_a_number_may_come_from_torch_or_numpy(value: Any) -> None:
    got = number(value, "A number is asked for.")
    assert (type(got), got) == (float, 2.0)


@pytest.mark.parametrize(
    "value", [True, torch.tensor(True), numpy.True_, "two", 2j, [2], torch.ones(2), numpy.ones(2), torch.ones(0), {}]
)
def test_what_is_no_number_hears_what_is_asked_for(doubling: str, value: Any) -> None:
    @checker(doubling)
    def ask(answer: Any) -> Feedback:
        return passed(str(number(answer, "A number is asked for.")))

    assert repr(check(doubling, value)) == "✗ Exercise 00.doubling: A number is asked for."
    said = "✗ Exercise 00.doubling: '2' in quotes is a text. Write it without them: 2"
    assert repr(check(doubling, "2")) == said


def test_record_false_stores_nothing(doubling: str) -> None:
    assert check(doubling, lambda x: 2 * x, record=False).status == "pass"
    assert store.load("00") == {}


def test_feedback_is_escaped_html() -> None:
    html = Feedback("wrong", "`x` <= 1 & more", "04.1")._repr_html_()
    assert "<code>x</code> &lt;= 1 &amp; more" in html
    assert "✗ Exercise 04.1" in html


def test_an_unknown_exercise_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"there is no exercise '00.9'; this lesson has 00.1"):
        check_function("00.9", 1)
    with pytest.raises(ValueError, match=r"there is no exercise '12.1'; this lesson has none yet"):
        check("12.1", 1)


# --- quiz ------------------------------------------------------------------------------------------------------------


def test_each_option_answers_at_once_and_the_first_try_counts() -> None:
    panel = quiz("00", ITEMS)
    assert repr(panel) == "Quiz 00: 0 of 2 answered"
    panel.answer(0, 2)
    assert "✗ c is not it" in panel.notes[0].value
    panel.answer(0, 1)
    assert "✓ b it is" in panel.notes[0].value
    panel.answer(1, 0)
    assert repr(panel) == "Quiz 00: 2 of 2 answered: 1 right at the first try, 1 after that"
    assert store.get("quizzes", "00.quiz") == {"first": [2, 0], "now": [1, 0], "right": [1, 0]}


def test_a_right_answer_stays_right_whatever_is_looked_at_afterwards() -> None:
    panel = quiz("00", ITEMS)
    panel.answer(0, 1)
    panel.answer(0, 2)
    assert "✗ c is not it" in panel.notes[0].value
    assert repr(panel) == "Quiz 00: 1 of 2 answered: 1 right at the first try"
    assert store.get("quizzes", "00.quiz") == {"first": [1, None], "now": [1, None], "right": [1, 0]}
    assert repr(quiz("00", ITEMS)) == repr(panel), "and when it comes back"


def test_a_quiz_comes_back_and_a_probe_leaves_it_alone() -> None:
    quiz("00", ITEMS).answer(0, 2)
    assert repr(quiz("00", ITEMS)) == "Quiz 00: 1 of 2 answered: 0 right at the first try"
    probe = quiz("00", ITEMS, record=False)
    probe.answer(0, 1)
    assert repr(probe) == "Quiz 00: 1 of 2 answered: 1 right at the first try"
    assert store.get("quizzes", "00.quiz")["now"] == [2, None]


@pytest.mark.parametrize(
    "state",
    [3, {}, {"right": [0, 0], "first": [1, 1], "now": [1, 1]}, {"right": [1, 0], "first": [9, "a"], "now": [9, 0]},
     {"right": [1, 0]}],
)  # fmt: skip
def test_stored_choices_that_do_not_fit_are_ignored(state: Any) -> None:
    store.put("quizzes", "00.quiz", state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are of no kind that is ever stored: `store` says so
        panel = quiz("00", ITEMS)
    assert repr(panel) == "Quiz 00: 0 of 2 answered"


def test_the_still_quiz_folds_its_feedback_and_marks_no_option() -> None:
    html = quiz("00", ITEMS).html()
    assert html.count("<details>") == 5
    assert "1. Which &lt;one&gt;?" in html
    assert "✓" not in html


def test_the_still_quiz_opens_what_was_chosen_and_counts() -> None:
    panel = quiz("00", ITEMS)
    panel.answer(0, 2)
    html = panel.html()
    assert html.count("<details open>") == 1
    assert html.endswith("Quiz 00: 1 of 2 answered: 0 right at the first try")


def test_the_quiz_of_a_lesson_is_found() -> None:
    assert len(quiz("00").items) == 2
    with pytest.raises(
        ValueError, match=r"quiz '12' has no questions; pass items=\[...\] or define QUIZ in lesson_12/exercises.py"
    ):
        quiz("12")
    with pytest.raises(ValueError, match="there is no lesson '99'"):
        quiz("99")


@pytest.mark.parametrize(
    ("options", "right", "feedback", "message"),
    [
        (("a",), 0, ("x",), "two or more different options"),
        (("a", "a"), 0, ("x", "y"), "two or more different options"),
        (("a", "b"), 0, ("x",), "2 options need as many feedback texts, but 1 came"),
        (("a", "b"), 2, ("x", "y"), "right=2 is not the index of an option"),
    ],
)
def test_a_badly_written_item_is_refused(
    options: tuple[str, ...], right: int, feedback: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Item("?", options, right, feedback)


# --- score card and map ----------------------------------------------------------------------------------------------


def test_a_fresh_score_card_is_the_same_for_everyone() -> None:
    assert repr(score_card("00", {"00.fresh": "exactly 1"})) == (
        "Score card of lesson 00\n"
        "What                 You            Measured\n"
        "Prediction 00.fresh  no prediction  exactly 1  ○\n"
        "Exercise 00.1        not yet                   ○\n"
        "Quiz                 not taken                 ○"
    )


@pytest.mark.parametrize(
    ("guess", "outcome", "verdict"),
    [(40.0, 40, "✓"), (38.0, 40.3, "✓ close"), (10.0, 40.3, "✗ too low"), (90.0, 40.3, "✗ too high"),
     (0.0, 0.0, "✓"), (0.1, 0.0, "✗ too high"), ("here", "here", "✓"), ("here", "there", "✗ surprised?")],
)  # fmt: skip
def test_predictions_are_compared_with_the_measurement(guess: Any, outcome: Any, verdict: str) -> None:
    store.put("predictions", "00.scored", guess)
    assert score_card("00", {"00.scored": outcome}).rows[1][-1] == verdict


def test_a_count_can_ask_for_no_tolerance() -> None:
    predict("00.counted", "Which is the first?", default=1.0, close=0).field.value = "2048"
    assert score_card("00", {"00.counted": 2049}).rows[1][-1] == "✗ too low"
    assert score_card("00", {"00.counted": 2048}).rows[1][-1] == "✓"
    half = predict("00.counted", "Which is the first?", default=1.0, close=0)
    half.field.value = "2048.5"
    assert "2,048.5 is no whole number" in half.message.value
    assert half.answer == 2048
    with pytest.raises(ValueError, match="close=-1"):
        predict("00.counted", "Which is the first?", default=1.0, close=-1)


def test_the_score_card_repeats_question_and_unit_and_counts_what_is_done() -> None:
    predict("00.asked", "How <many>?", default=1.0, unit="%").field.value = "40"
    check("00.1", 11)
    panel = quiz("00")
    panel.answer(0, 0)
    panel.answer(0, 1)
    card = score_card("00", {"00.asked": 40.31})
    assert card.rows[1:] == (
        ("How <many>?", "40 %", "40.31 %", "✓ close"),
        ("Exercise 00.1", "passed", "", "✓"),
        ("Quiz", "0 of 2 right at the first try, 1 after that", "", "○"),
    )
    assert "How &lt;many&gt;?" in card._repr_html_()


def test_a_prediction_of_another_session_is_shown_like_one_that_was_just_asked() -> None:
    store.put("predictions", "00.unasked", 65504.0)
    card = score_card("00", {"00.unasked": 65505, "00.where": "here"})
    assert card.rows[1:3] == (
        ("Prediction 00.unasked", "65,504", "65,505", "✓ close"),
        ("Prediction 00.where", "no prediction", "here", "○"),
    )


def test_the_score_card_refuses_another_lessons_key() -> None:
    with pytest.raises(ValueError, match=r"score card of lesson 00: '04.flushed' belongs to another lesson"):
        score_card("00", {"04.flushed": 1.0})


def test_odd_stored_values_do_not_stop_the_score_card_or_the_map() -> None:
    store.home().mkdir(parents=True)
    odd = {"predictions": {"00.x": [1]}, "exercises": {"00.1": "bogus"}, "quizzes": {"00.quiz": {"now": 5}}}
    (store.home() / "00.json").write_text(json.dumps(odd))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = score_card("00", {"00.x": 1.0}).rows[1:]
        assert course_map().rows[1][-1] == "○ 0 of 1 exercises"
        assert repr(quiz("00")) == "Quiz 00: 0 of 2 answered"
    assert [row[1] for row in rows] == ["no prediction", "not yet", "not taken"]
    assert len(caught) == 1


def test_the_map_shows_progress_and_links_ready_lessons() -> None:
    def row() -> tuple[str, ...]:
        return course_map().rows[1]

    assert row() == (
        "00",
        "Start here",
        "What can my machine do, and how do these lessons work?",
        "10",
        "○ not started",
    )
    check("00.1", 11)
    assert row()[-1] == "○ 1 of 1 exercises, quiz open"
    panel = quiz("00")
    for place, item in enumerate(panel.items):
        panel.answer(place, item.right)
    assert row()[-1] == "✓ done"
    html = course_map()._repr_html_()
    assert '<a href="00_start_here.ipynb">Start here</a>' in html
    assert 'href="12_' not in html
    assert course_map().rows[13][-1] == "in preparation"
