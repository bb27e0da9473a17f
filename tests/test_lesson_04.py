"""The exercises of lesson 04: the notebook's own stubs and solutions, typical wrong answers, and the verdicts."""

from __future__ import annotations

import re

import pytest
from lesson_cells import CARD, Exercise, exercises, judge

from mpkit import store
from mpkit.exercises import verdict
from mpkit.exercises.lesson_04 import CURES, PATIENTS

LESSON = exercises("04")
FOUR = '"A": "raise the scale", "B": "lower the scale", "C": "scaling cannot help", "D": "leave it"'


def step(*lines: str) -> str:
    """A learner's sgd_step made of these lines."""
    return "def sgd_step(params, scale, max_norm, lr):\n" + "\n".join(f"    {line}" for line in lines) + "\n"


UNSCALE = "for p in params: p.grad /= scale"
CHECK = "if any(not p.grad.isfinite().all() for p in params): return"
CLIP = "torch.nn.utils.clip_grad_norm_(params, max_norm)"
UPDATE = "for p in params: p.data -= lr * p.grad"


def rule(expression: str) -> str:
    """A learner's largest_scale that returns this."""
    return f"import math\ndef largest_scale(amax):\n    return {expression}\n"


def four(**changes: str) -> str:
    """A learner's advice: the right one, with some changes."""
    return f"advice = {{**{{{FOUR}}}, **{changes!r}}}\n"


LIMIT = "mpkit.FP16.max / amax"
# Exercise, wrong answer, the words that name its misconception.
WRONG = [
    ("04.1", rule(LIMIT), "no power of two"),
    ("04.1", rule(f"2.0 ** math.ceil(math.log2({LIMIT}))"), "too large for FP16"),
    ("04.1", rule(f"math.floor(math.log2({LIMIT}))"), "looks like the exponent"),
    ("04.1", rule("mpkit.FP16.smallest_normal / amax"), "Which limit of the format matters"),
    ("04.1", rule(f"2.0 ** (math.floor(math.log2({LIMIT})) - 1)"), "not the largest"),
    ("04.1", rule("0"), "positive, finite"),
    ("04.1", rule("'2**15'"), "should return a number"),
    ("04.1", "largest_scale = 32768.0", "without parentheses"),
    ("04.2", step(UNSCALE, CHECK, UPDATE), "full length although `max_norm` is 1"),
    ("04.2", step(CHECK, CLIP, UNSCALE, UPDATE), "when it was compared with `max_norm`"),
    ("04.2", step(CHECK, CLIP, UPDATE), "Nothing had to be clipped here"),
    ("04.2", step(UNSCALE, UNSCALE, CHECK, CLIP, UPDATE), "divided out once too often"),
    ("04.2", step(UNSCALE, CHECK, CLIP, UPDATE.replace("-=", "+=")), "points uphill"),
    ("04.2", step(UNSCALE, CHECK, CLIP, UPDATE.replace("-= lr", "= -lr")), "Print the gradients after each line"),
    ("04.2", step(UNSCALE, CLIP, UPDATE), "was Inf, and now the weights are not finite"),
    ("04.2", step(UNSCALE, "for p in params: p.grad.nan_to_num_(0, 0, 0)", CLIP, UPDATE), "still a weight moved"),
    ("04.2", step(UNSCALE, "if any(p.grad.isinf().any() for p in params): return", CLIP, UPDATE), "was NaN, and now"),
    ("04.2", step(UNSCALE, CHECK, CLIP, "for p in params: p.data *= float('nan')"), "Already with ordinary gradients"),
    ("04.2", step(CHECK, CLIP, UNSCALE), "Not yet: the weights do not move"),
    ("04.2", step(UNSCALE, CHECK, CLIP, "for p in params: p -= lr * p.grad"), "stopped with RuntimeError"),
    *(("04.3", four(**{name: cure}), why) for name, (_, said) in PATIENTS.items() for cure, why in said.items()),
    ("04.3", four(A="more scale"), "is not one of the cures"),
    ("04.3", "advice = {'A': 'leave it', 'B': ..., 'C': 'leave it'}", "patients B, D still wait"),
    ("04.3", "advice = {'A': 'leave it', 'B': ..., 'C': 'leave it', 'D': 'leave it'}", "patient B still waits"),
    ("04.3", "advice = 'leave it'", "The answer is a dict"),
]  # fmt: skip
# The same misconceptions in another form.
ALSO_WRONG = [
    ("04.1", rule("math.exp(math.log(2) * 15)"), "no power of two"),
    ("04.1", rule("True"), "should return a number"),
    ("04.1", rule("32768.0"), "not the largest"),
    ("04.2", step(UNSCALE, CHECK.replace("in params", "in params[:1]"), CLIP, UPDATE), "weights are not finite"),
    ("04.2", step(CLIP.replace("max_norm", "max_norm / scale"), UNSCALE, CHECK, UPDATE), "Print the gradients"),
    ("04.2", step("..."), "the weights do not move"),
]

RIGHT = [
    ("04.1", rule(f"2 ** math.floor(math.log2({LIMIT})) if amax < 1 else 2.0 ** math.floor(math.log2({LIMIT}))")),
    ("04.1", rule(f"2.0 ** (math.frexp({LIMIT})[1] - 1)")),
    ("04.1", rule(f"math.ldexp(0.5, math.frexp({LIMIT})[1])")),
    ("04.1", rule("2.0 ** (15 - math.ceil(math.log2(amax * 32768 / 65504)))")),
    ("04.1", rule(f"2.0 ** torch.tensor({LIMIT}).log2().floor()")),
    ("04.1", rule("2.0 ** math.floor(math.log2(mpkit.FP16.overflow_at / amax))")),
    ("04.1", "def largest_scale(amax):\n    s = 2.0 ** -20\n    while 2 * s * amax <= 65504: s *= 2\n    return s\n"),
    ("04.2", step(CHECK, UNSCALE, CLIP, UPDATE)),
    ("04.2", step(CHECK, CLIP.replace("max_norm", "max_norm * scale"), UNSCALE, UPDATE)),
    ("04.2", step("torch._foreach_div_([p.grad for p in params], scale)", CHECK, CLIP,
                  "torch._foreach_add_([p.data for p in params], [p.grad for p in params], alpha=-lr)")),
    ("04.2", step(UNSCALE, f"norm = {CLIP}", "if norm.isfinite():", f"    {UPDATE}")),
    ("04.2", step(UNSCALE, CHECK.replace("return", "return False"), CLIP, "torch.optim.SGD(params, lr).step()")),
    ("04.3", four()),
]  # fmt: skip


@pytest.mark.parametrize("exercise", LESSON.values(), ids=list(LESSON))
def test_the_notebooks_solution_passes(exercise: Exercise) -> None:
    feedback = judge(exercise, exercise.solution)
    assert feedback.status == "pass", feedback
    assert store.load("04") == {}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("04.1", "Not yet: your function returns nothing"),
        ("04.2", "your step is 1.53e-05 times as long as the FP32 step. What did the norm look like"),
        ("04.3", "Not yet: patients A, B, C, D still wait"),
    ],
)
def test_the_untouched_stub_fails_kindly(key: str, message: str) -> None:
    feedback = judge(LESSON[key], LESSON[key].stub)
    assert feedback.status == ("wrong" if key == "04.2" else "not yet")
    assert message in feedback.message


@pytest.mark.parametrize(("key", "answer"), RIGHT)
def test_other_right_answers_pass(key: str, answer: str) -> None:
    assert judge(LESSON[key], answer).status == "pass", judge(LESSON[key], answer)


@pytest.mark.parametrize(("key", "answer", "words"), WRONG + ALSO_WRONG)
def test_a_wrong_answer_hears_what_is_wrong_with_it(key: str, answer: str, words: str) -> None:
    feedback = judge(LESSON[key], answer)
    assert feedback.status != "pass"
    assert words in feedback.message


# The heart of each solution, which no message may say.
SECRETS = {
    "04.1": r"floor|log2|frexp|[Rr]ound(ed|ing)? down|65504|15",
    "04.2": r"[Uu]nscale|isfinite|before|first|order",
    "04.3": r"(?i)(raise|lower) (it|the)|cannot help|advise",
}


@pytest.mark.parametrize("key", LESSON)
def test_each_wrong_answer_has_a_message_of_its_own(key: str) -> None:
    said = [judge(LESSON[key], answer).message for number, answer, _ in WRONG if number == key]
    reasons = {re.sub(r"^With amax.*? scale is \S+\. |^At scale.*?FP32 step\. ", "", text) for text in said}
    assert len(said) >= 3
    assert len(reasons) == len(said)


@pytest.mark.parametrize("key", LESSON)
def test_no_message_gives_the_answer(key: str) -> None:
    for number, answer, _ in WRONG + ALSO_WRONG:
        if number == key:
            message = judge(LESSON[key], answer).message
            choices = f"is not one of the cures: {'; '.join(CURES)}"  # names all four, so it gives none away
            own_numbers = r"your scale is \S+|× \S+|line \d+: `.*`"  # an echo of the learner's own answer
            assert not re.search(SECRETS[key], re.sub(own_numbers, "", message.replace(choices, ""))), message


@pytest.mark.parametrize("exercise", LESSON.values(), ids=list(LESSON))
def test_each_exercise_has_a_card_and_three_hints(exercise: Exercise) -> None:
    (card,) = CARD.findall(exercise.card)
    kind, difficulty, minutes = card
    assert kind in {"Code", "Debug", "Explain"}
    assert re.fullmatch(r"●{1,5}○*", difficulty)
    assert 1 <= int(minutes) <= 15
    assert f"Exercise {exercise.key}" in exercise.card
    assert len(exercise.hints) == 3
    assert len(set(exercise.hints)) == 3
    assert all(len(hint) > 20 for hint in exercise.hints)


def test_the_lesson_has_its_three_exercises() -> None:
    assert list(LESSON) == ["04.1", "04.2", "04.3"]


def test_lesson_00_has_its_solution_and_hints_too() -> None:
    (exercise,) = exercises("00").values()
    assert judge(exercise, exercise.solution).status == "pass"
    assert judge(exercise, exercise.stub).status == "not yet"
    assert len(exercise.hints) == 3


# --- verdict ---------------------------------------------------------------------------------------------------------


def test_a_verdict_holds_only_if_all_of_its_evidence_does() -> None:
    held = verdict("C05", "it helps", {"a < b": True, "five seeds agree": True})
    assert held.holds
    assert repr(held) == "C05: it helps\n  ✓ a < b\n  ✓ five seeds agree"
    open_ = verdict("C05", "it helps", {"a < b": True, "five seeds agree": False})
    assert not open_.holds
    assert repr(open_) == "C05: this run does not decide it\n  ✓ a < b\n  ✗ five seeds agree"
    assert "it helps" not in open_._repr_html_()


def test_a_verdict_without_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a verdict on C05 needs evidence: pass what was measured"):
        verdict("C05", "it helps", {})


def test_a_verdict_is_escaped_html() -> None:
    shown = verdict("C<5>", "x < y & z", {"<script>alert(1)</script>": True})._repr_html_()
    assert "<script>" not in shown
    assert "C&lt;5&gt;: x &lt; y &amp; z" in shown
    assert "✓ &lt;script&gt;" in shown


def test_evidence_may_come_as_torch_or_numpy_bools() -> None:
    import numpy as np
    import torch

    assert verdict("C05", "it helps", {"a": np.True_, "b": torch.tensor(True)}).holds  # type: ignore[dict-item]
    assert not verdict("C05", "it helps", {"a": np.False_}).holds  # type: ignore[dict-item]
