"""The clinic panel: its tests are real reruns, who reasons rightly is right, and one of three cures heals."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.pictures import page_size
from torch.nn import functional as F

from mpkit.course.clinic import PATIENTS
from mpkit.course.lesson_10.against import AGAINST, against
from mpkit.course.lesson_10.answers import ALSO, GROUPS, HALF, OTHERS, SHOWS, TELLS, cure_judged, cures, judged, told
from mpkit.course.lesson_10.calls import disorder, made
from mpkit.course.lesson_10.chart import BUDGET, LEAST, Chart
from mpkit.course.lesson_10.clinic_panel import ClinicPanel
from mpkit.course.lesson_10.clinic_picture import SIZE, TITLE
from mpkit.course.lesson_10.clinic_words import about, bad_steps, course, finding, shown
from mpkit.course.lesson_10.examination import Examination
from mpkit.course.lesson_10.facts import Facts
from mpkit.course.lesson_10.in_words import number
from mpkit.course.lesson_10.look_alikes import Reads, anomaly, in_fp32_from_the_start, reruns
from mpkit.course.lesson_10.slow_script import LINES, toy, train
from mpkit.course.lesson_10.tests import TESTS
from mpkit.course.lesson_10.waiting_room import NUMBERS, ORDER, admitted, curves, patient
from mpkit.course.pictures.canvas import _fitting
from mpkit.diagnosis import KINDS
from mpkit.diagnosis.diagnose import MOST

SLOW = ORDER.index("micro-batches-in-bf16") + 1
QUICK = [which for which in NUMBERS if which != SLOW]
everyone = pytest.mark.parametrize("which", NUMBERS)


@pytest.fixture(scope="module")
def made_once() -> ClinicPanel:
    torch.set_num_threads(1)
    return ClinicPanel()


@pytest.fixture
def panel(made_once: ClinicPanel, monkeypatch: pytest.MonkeyPatch) -> ClinicPanel:
    """The panel in its first state; its canvas is drawn once for all tests."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    made_once.charts.clear()
    made_once.choose(patient=1)
    return made_once


def number_of(name: str) -> int:
    return ORDER.index(name) + 1


# ---- who is there, and what is right ----


def test_all_patients_are_there_once_and_known_by_number_alone(panel: ClinicPanel) -> None:
    assert sorted(ORDER) == sorted(PATIENTS)
    for which in NUMBERS:
        label = dict(panel.controls["patient"]._options_full)
        assert any(text.startswith(f"{which} · {patient(which).complaint}") for text in label)
        assert patient(which).name not in " ".join(label)


def test_every_kind_is_in_the_menu_with_its_meaning_and_has_tests_that_tell(panel: ClinicPanel) -> None:
    assert (
        sorted(kind for kinds in GROUPS.values() for kind in kinds) == sorted(KINDS) == sorted(TELLS) == sorted(AGAINST)
    )
    for text, kind in panel.controls["diagnosis"].options:
        assert text == (f"{told(kind)}: {KINDS[kind]}" if kind else "what is it?")


def test_what_is_accepted_besides_or_half_is_another_kind_of_a_patient() -> None:
    for table in (ALSO, HALF):
        assert set(table) <= set(PATIENTS)
        assert all(kind in KINDS and kind != PATIENTS[name].kind for name, kinds in table.items() for kind in kinds)
    assert not any(set(ALSO.get(name, {})) & set(kinds) for name, kinds in HALF.items())


@everyone
def test_the_tests_that_are_recommended_for_the_right_kind_show_it(which: int) -> None:
    own = patient(which)
    shows = set(SHOWS[own.name].split())
    assert shows <= set(TESTS)
    for kind in (own.kind, *ALSO.get(own.name, {})):
        assert shows & set(TELLS[kind][0].split())


# ---- a diagnosis is judged by what was tested ----


@pytest.mark.parametrize("which", QUICK)
def test_every_diagnosis_is_settled_when_all_is_tested_and_none_before(which: int) -> None:
    own, examined = patient(which), Examination(which)
    for kind in KINDS:
        verdict, said = judged(examined, kind, list(TESTS))
        assert (verdict == "right") == (kind == own.kind or kind in ALSO.get(own.name, {}))
        assert verdict != "open", said
        assert said.startswith({"right": "Right", "half": "True, but", "wrong": "“"}[verdict])
        assert not [odd for odd in ("  ", "Not not", "..", "? ?") if odd in said]
        assert judged(examined, kind, [])[0] == "open"
        for test in TESTS:
            verdict, said = judged(examined, kind, [test])
            assert kind != own.kind or verdict in ("right", "open")
            assert verdict != "open" or "No points are lost" in said


def phrases(found: dict[str, str], kept: bool, calls: list[str]) -> dict[str, bool]:
    """What some words in a reason claim, held against runs that were made apart from it."""
    return {
        "in FP32 all is finite": found["in FP32"] == "finite",
        "is finite in FP32": found["in FP32"] == "finite" and found["as it is"] != "finite",
        "it is not finite either": found["in FP32"] != "finite",
        "nothing is Inf or NaN": found["as it is"] == "finite",
        "here is Inf or NaN": found["as it is"] != "finite",
        "nothing that stays is Inf or NaN": not kept,
        "gives the same numbers twice": found["again"] == "the same",
        "gave two results": found["again"] == "differs",
        "one more step gives another loss": found["next loss"] in ("another", "NaN"),
        "gives the same loss as well": found["next, FP32"] == "same",
        "the same optimizer moves the loss": found["next, FP32"] == "another",
        "before any weight has moved": found["next loss"] == "NaN" or found["next loss"] == "same",
        "without a loss scale it is the same": found["without scale"] == "Inf, NaN",
        "there is no loss scale": "scale" not in calls,
    }


@pytest.mark.parametrize("which", QUICK)
def test_no_reason_says_what_the_runs_deny(which: int) -> None:
    """Also those that stand behind another reason, and are only read when that test was not made."""
    own, examined, found = patient(which), Examination(which), reruns(which)
    case = admitted(which)
    with examined.ready():
        bad, calls = examined.exam.base.bad, examined.exam.base.seen.calls
    kept = any(name.split(" ")[0] in ("parameter", "buffer", "average", "moment") for name in bad)
    claims, facts = phrases(found, kept, calls), Facts(examined)
    for kind in set(KINDS) - {own.kind, *ALSO.get(own.name, {})}:
        with examined.ready():
            said = list(against(kind, facts, list(TESTS)))
        assert said or kind in HALF.get(own.name, {}) or kind == "poisoned state"
        for one in said:
            assert all(true for words, true in claims.items() if words in one), (kind, one)
            assert "no checkpoint" not in one or case.state is None


Said = dict[str, str]  # what a patient's tests answer, by test


def losses(said: str) -> list[str]:
    """This loss and the next, in FP32 and as they are, as the test in FP32 gives them."""
    found = re.match(r"The loss is (\S+), a step later (\S+) \(as it is.*?: (\S+), then (\S+)\)", said)
    assert found, said
    return list(found.groups())


def nearly(one: str, other: str) -> bool:
    return math.isclose(float(one.replace(",", "")), float(other.replace(",", "")), rel_tol=2e-3)


def all_in_fp32(said: str) -> bool:
    return "FP8" not in said


def the_same_in_fp32(said: str) -> bool:
    wide, later, here, then = losses(said)
    odd = ("Not finite", "gradients that reach", "moves, in FP32")
    return all_in_fp32(said) and not any(o in said for o in odd) and nearly(wide, here) and nearly(later, then)


def has(pattern: str) -> Callable[[str], bool]:
    return lambda said: bool(re.search(pattern, said))


def lacks(pattern: str) -> Callable[[str], bool]:
    return lambda said: not re.search(pattern, said)


BAD, BAD_WIDE = r"Not finite as it is: (?!nothing)", r"in FP32: (?!nothing|[\d.,]+, then)"
# Words of a reason, the test that it stands on, and whether they can be read in what that test answered.
READ: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("it is not finite either", "fp32", has(BAD_WIDE)), ("FP32 gives the same loss", "fp32", the_same_in_fp32),
    ("this loss and the next are the same", "fp32", the_same_in_fp32), ("as FP32 does", "fp32", has("with BF16:")),
    ("finds no Inf that reaches", "trace", has("^No operation|reaches neither")),
    ("only ordinary numbers went in", "trace", has("^Invalid")),
    ("was bad before the first operation", "trace", has("^Input")),
    ("was not finite before the step began", "tally", has("not finite before this step")),
    ("was not finite before the step began", "data", has("[1-9] not finite")),
    ("too large, not too small", "trace", has(r"^Overflow|are cut|largest input \S+e\+0[5-9]")),
    ("too large, and not for a rounding", "trace", has("are cut")),
    ("comes in place of Inf", "fp32", has(BAD)), ("what stalls stays finite", "fp32", has(BAD)),
    ("keeps in 16 bits stands still", "fp32", lambda said: all_in_fp32(said) and "moves, in FP32" not in said),
    ("moments and averages are in FP32", "fp32", lambda said: all_in_fp32(said) and "moves, in FP32" not in said),
    ("sees no value cut", "trace", lacks("are cut")), ("sees no integers", "trace", lacks("different (numb|int)")),
    ("sees no eps", "trace", lacks("An eps")), ("the calls in the trace", "trace", has("Calls: [^n]")),
    ("calls no optimizer", "trace", has("Calls: none")), ("no order of calls", "data", has("float16.*[1-9] not fin")),
    ("the same calls move in FP32", "fp32", has("moves, in FP32")),
    ("there is no loss scale", "scale", has("^There is no loss scale")),
    ("without a loss scale it is the same", "scale", has("without a scale they are not finite")),
    ("finite at its scale", "scale", has("gradients are finite")),
    ("is made forward", "trace", has("in the forward pass")),
    ("one more step gives another loss", "again", lacks("to the last digit")),
    ("before any weight has moved", "again", has("the loss is (NaN|Inf) both")),
    ("all gradients are 0", "tally", has("100% zero")),
    ("where nothing is cast", "fp32", lambda said: all_in_fp32(said) and len(set(losses(said)[:2])) == 1),
    ("no cast stands between steps and moments", "fp32", has("Of moment")),
    ("the same optimizer moves the loss", "fp32", lambda said: len(set(losses(said)[:2])) == 2),
    ("belong to tensors of the optimizer", "tally", lacks("None of them")),
    ("has no backward pass", "tally", has("no backward pass")), ("no checkpoint is", "data", lacks("checkpoint")),
    ("nothing is Inf or NaN after", "fp32", lacks(BAD)), ("nothing that stays is", "fp32", has(BAD)),
    ("in FP32 all is finite", "fp32", lacks(BAD_WIDE)), ("same batch is finite", "fp32", has("in FP32: nothing")),
    ("FP32 learns", "fp32", lambda said: all_in_fp32(said) and len(set(losses(said)[:2])) == 2),
    ("the batch is finite", "data", has("^The batch")), ("the same numbers twice", "again", has("both times")),
    ("gave two results", "again", has("Nothing was changed")), ("here is Inf or NaN", "fp32", has(BAD)),
    ("gradients differ from", "fp32", has("gradients that reach")), (" moves, in FP32", "fp32", has(" moves, in FP32")),
    ("backward leaves gradients", "tally", has("As backward left them")),
    ("the optimizer holds nothing", "tally", has("None of them")),
    ("the trace names an operation", "trace", has("^(Overflow|Invalid)")), ("are cut", "trace", has("are cut")),
    ("eps of", "trace", has("An eps of")), ("positions counted", "trace", has("positions counted")),
    ("nobody calls", "trace", lacks("zero_grad")), ("unscaled twice", "trace", has("unscales as well")),
    ("while they carry", "trace", has("clip_grad_norm_")), ("the checkpoint has no", "data", lacks("scaler")),
)  # fmt: skip


@everyone
def test_a_reason_can_be_read_in_the_answer_of_its_test(which: int) -> None:
    own, examined = patient(which), Examination(which)
    facts, said = Facts(examined), {test: examined.said(test) for test in TESTS}
    for kind in set(KINDS) - {own.kind, *ALSO.get(own.name, {})}:
        with examined.ready():
            curve = set(against(kind, facts, ["none of them"]))
            alone = {test: set(against(kind, facts, [test])) - curve for test in TESTS}
            both = {pair: set(against(kind, facts, [*pair])) - curve for pair in combinations(TESTS, 2)}
        for test, reasons in alone.items():
            for one in reasons:
                seen = [read(said[test]) for words, of, read in READ if words in one and of == test]
                assert seen, f"{kind}, {test}: {one}"
                assert all(seen), f"{kind}: {one} | {said[test]}"
        for (one, other), reasons in both.items():
            assert reasons <= alone[one] | alone[other], "two tests say no more than each of them"


# Of a patient and a kind that is not its own: the tests that may deny it. The others do not see where it would be.
DENIED_BY = {
    ("stale-scale", "underflow"): {"trace"}, ("stale-scale", "lost eps"): {"trace"},
    ("stale-scale", "lost integer"): {"trace"}, ("stale-scale", "lost update"): {"trace"},
    ("stale-scale", "data"): {"data"}, ("stale-scale", "order"): set(), ("stale-scale", "stale cast"): set(),
    ("ema-in-bf16", "order"): {"fp32"}, ("ema-in-bf16", "underflow"): {"fp32"},
    ("ema-in-bf16", "lost integer"): {"trace"}, ("ema-in-bf16", "lost eps"): {"trace"},
    ("one-autocast", "order"): set(), ("one-autocast", "lost integer"): {"trace"}, ("adam-eps", "overflow"): set(),
    ("other-parameters", "order"): set(), ("scaler-not-saved", "order"): set(), ("bf16-checkpoint", "order"): {"data"},
    ("colliding-positions", "underflow"): {"fp32"}, ("adam-in-bf16", "underflow"): {"fp32"},
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), DENIED_BY)
def test_no_test_rules_out_what_it_does_not_see(name: str, kind: str) -> None:
    examined = Examination(number_of(name))
    for tests in [(test,) for test in TESTS] + list(combinations(TESTS, 2)):
        verdict, said = judged(examined, kind, list(tests))
        assert (verdict == "wrong") == bool(DENIED_BY[name, kind] & set(tests)), f"{tests}: {said}"
        assert verdict != "right"


def test_the_calls_of_a_trace_are_held_against_a_disorder_only_where_they_are_all() -> None:
    for which in QUICK:
        examined = Examination(which)
        with examined.ready():
            found = list(against("order", Facts(examined), ["trace"]))
            eight_bit = examined.exam.fp32.left
        case, name = examined.case, patient(which).name
        elsewhere = case.ema is not None or case.state is not None or eight_bit or name == "one-autocast"
        assert not (elsewhere and found), name


def test_fp8_stays_in_fp32_and_so_that_rules_nothing_out() -> None:
    examined = Examination(number_of("stale-scale"))
    assert examined.said("fp32").endswith("The casts to FP8 stay.")
    assert "FP8" not in Examination(number_of("one-autocast")).said("fp32")
    for kind in ("saturated", "overflow"):
        for test in set(TESTS) - {"trace"}:
            assert judged(examined, kind, [test])[0] == "open", "a guess"
        assert judged(examined, kind, ["trace"])[0] == "right"


def test_what_stays_bad_is_said_by_the_test_that_sees_it() -> None:
    examined = Examination(number_of("adam-eps"))
    assert judged(examined, "poisoned state", ["trace"])[0] == "open", (
        "a trace does not look at what the optimizer does"
    )
    assert judged(examined, "poisoned state", ["fp32"])[0] == "half"
    assert judged(Examination(number_of("bf16-checkpoint")), "poisoned state", ["trace"])[0] == "half"


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("bf16-checkpoint", "poisoned state", "before the step began. How did it get there?"),
        ("attention-scores", "poisoned state", "after the step there is Inf or NaN in 2 parameters"),
        ("scale-to-zero", "loss scale", "no scale was small enough"),
        ("discarded-log", "overflow", "Does it reach the loss or a gradient?"),
    ],
)
def test_what_is_true_but_a_consequence_costs_nothing(panel: ClinicPanel, name: str, kind: str, words: str) -> None:
    panel.patient = number_of(name)
    panel.test("fp32")
    before = panel.chart.left
    panel.name(kind)
    assert words in panel.said()
    assert (panel.chart.left, panel.chart.kind) == (before, None)


def test_a_cause_that_the_tests_do_not_show_yet_is_not_accepted_nor_punished(panel: ClinicPanel) -> None:
    panel.patient = number_of("no-scaler")
    panel.name("underflow")
    assert panel.said().startswith("“underflow” may be. Make a test first")
    panel.test("again")
    panel.name("underflow")
    assert "Try “tally the gradients”." in panel.said()
    assert panel.chart.left == BUDGET - 1
    panel.name("overflow")
    assert "neither shows it nor rules it out" in panel.said(), "FP32 would cure it, so that is no reason against it"
    panel.test("tally")
    panel.name("underflow")
    assert panel.said().startswith("Right: underflow")


def test_the_healthy_need_no_cure(panel: ClinicPanel) -> None:
    for name in ("probing-scaler", "discarded-log"):
        panel.patient = number_of(name)
        panel.test("trace")
        panel.name("healthy")
        assert "Now pick the cure" not in panel.said()
        assert panel.said().startswith("Right: healthy")
        assert panel.headline().startswith(f"Patient {number_of(name)}, healthy: ")
        assert (panel.naming.layout.display, panel.curing.layout.display) == ("none", "none")
        assert panel.chart.earned == BUDGET - 4


@everyone
def test_one_of_three_cures_heals(which: int) -> None:
    offered = cures(which)
    assert len({code for _, code in offered}) == 3
    assert all(code.strip() for _, code in offered)
    heals = [place for place in range(3) if cure_judged(which, place)[0]]
    assert [offered[place][0] for place in heals] == [patient(which).name]
    assert PATIENTS[OTHERS[patient(which).name].split()[0]].name in [name for name, _ in offered]
    for place in set(range(3)) - set(heals):
        assert cure_judged(which, place)[1].startswith("The curve does not heal:")


# ---- the tests are real ----


def test_the_same_step_twice() -> None:
    assert (
        Examination(number_of("left-over-memory"))
        .said("again")
        .startswith("From the same state the loss is 4.84, then")
    )
    assert "9.46 to the last digit" in Examination(number_of("one-autocast")).said("again")
    said = Examination(number_of("double-unscale")).said("again")
    assert "the loss is 9.459 both times. One more step on the same data: 9.456." in said
    assert "the loss is NaN both times. The script logs 0." in Examination(1).said("again")
    assert "Inf to the last digit" not in Examination(number_of("sum-before-mean")).said("again")


def test_what_was_asked_before_changes_no_answer() -> None:
    """Some scripts keep things in a list, which nobody puts back."""
    for which in (1, number_of("scaler-not-saved"), number_of("poisoned-batch-norm")):
        one, other = Examination(which), Examination(which)
        first = {test: one.said(test) for test in TESTS}
        assert {test: other.said(test) for test in reversed(TESTS)} == first


def test_fp32_says_what_it_cures_and_what_moves() -> None:
    said = Examination(1).said("fp32")
    assert "Not finite as it is: 6 gradients, 2 buffers; in FP32: nothing." in said
    assert "in FP32: the loss, 2 gradients" not in said
    assert "Of average weight 0% moves, in FP32 100%." in Examination(number_of("ema-in-bf16")).said("fp32")
    assert "exp_avg_sq 0% moves, in FP32 100%." in Examination(number_of("adam-in-bf16")).said("fp32")
    assert "in FP32: loss" in Examination(number_of("ignored-labels")).said("fp32")


def test_the_scale() -> None:
    assert "there is nothing to change" in Examination(number_of("attention-scores")).said("scale")
    assert "nothing is left to divide" in Examination(number_of("no-scaler")).said("scale")


def test_the_data() -> None:
    assert "32 integers, all −100" in Examination(number_of("ignored-labels")).said("data")
    assert "1 row of zeros" in Examination(number_of("eps-in-norm")).said("data")
    assert "float16, finite ones up to" in Examination(number_of("bf16-checkpoint")).said("data")
    assert "The checkpoint has: model, optimizer." in Examination(number_of("scaler-not-saved")).said("data")


def test_the_tally() -> None:
    assert "100% zero" in Examination(number_of("no-scaler")).said("tally")
    assert "100% NaN" in Examination(number_of("attention-scores")).said("tally")
    assert "None of them belongs to a tensor of the optimizer." in Examination(number_of("other-parameters")).said(
        "tally"
    )
    assert "As backward left them, without the scale, it was" in Examination(number_of("double-unscale")).said("tally")
    assert "before this step began" in Examination(number_of("zero-grad-after-skip")).said("tally")
    assert "no backward pass" in Examination(number_of("bf16-checkpoint")).said("tally")
    for which in (1, number_of("attention-scores"), number_of("discarded-log")):
        assert "None of them" not in Examination(which).said("tally")


def test_the_trace() -> None:
    assert "matmul in attention makes" in Examination(number_of("attention-scores")).said("trace")
    assert "513 different numbers" in Examination(number_of("colliding-positions")).said("trace")
    assert "reaches neither loss nor gradient" in Examination(number_of("discarded-log")).said("trace")
    calls = Examination(number_of("clip-before-unscale")).said("trace").split("Calls: ")[1]
    assert calls == "zero_grad → scaler.scale → backward → clip_grad_norm_ → scaler.step → scaler.update."
    healthy = Examination(number_of("probing-scaler")).said("trace").split("Calls: ")[1]
    assert healthy == "zero_grad → scaler.scale → backward → scaler.step → scaler.update."
    twice = Examination(number_of("double-unscale")).said("trace")
    assert "unscale_ → clip_grad_norm_ → scaler.step, which unscales as well → scaler.update." in twice


def test_calls_of_a_script() -> None:
    inside = ["zero_grad", "scale", "backward", "step", "unscale_", "optimizer.step", "update"]
    assert made(inside) == ["zero_grad", "scale", "backward", "step", "update"]
    assert disorder(inside) == disorder(["zero_grad", "backward", "optimizer.step"]) == disorder([]) == ""
    assert disorder(["scale", "backward", "step", "update"]) == "nobody calls zero_grad"
    own = ["zero_grad", "scale", "backward", "unscale_", "clip_grad_norm_"]
    assert disorder([*own, "step", "unscale_", "update"]) == "gradients are unscaled twice"
    assert disorder([*own, "step", "optimizer.step", "update"]) == ""
    assert disorder([*own, "update", "step"]) == "the scaler is updated before the step"
    assert "while they carry" in disorder(["zero_grad", "scale", "backward", "clip_grad_norm_", "step", "update"])


def test_the_scale_test_tells_a_scale_that_is_too_high_from_an_overflow() -> None:
    assert Examination(number_of("scaler-not-saved")).said("scale") == (
        "At 65,536 gradients are not finite; at 256 they are not finite; without a scale they are finite, and the step "
        "is taken."
    )
    assert (
        Examination(number_of("scale-to-zero"))
        .said("scale")
        .endswith("at 256 they are not finite; without a scale they are not finite, and the step is skipped.")
    )


@pytest.mark.parametrize("which", QUICK)
def test_every_test_answers_in_a_sentence_and_leaves_the_lesson_alone(which: int) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    examined = Examination(which)
    for test in TESTS:
        said = examined.said(test)
        assert said.endswith(".")
        assert patient(which).name not in said
        assert "nan " not in said.replace("output nan", "")
    assert torch.equal(torch.get_rng_state(), before)


def test_look_alikes_differ_in_one_column() -> None:
    for one, other, column in (("attention-scores", "ignored-labels", "in FP32"),
                               ("scale-to-zero", "scaler-not-saved", "without scale"),
                               ("one-autocast", "other-parameters", "next, FP32"),
                               ("left-over-memory", "discarded-log", "again")):  # fmt: skip
        a, b = reruns(number_of(one)), reruns(number_of(other))
        assert a["as it is"] == b["as it is"]
        assert a[column] != b[column]


def test_reads_and_anomalies() -> None:
    with Reads() as reads:
        torch.ones(()).item()
        bool(torch.ones(()))
        torch.ones(3).sum()
    assert reads.count == 2
    assert anomaly(admitted(number_of("discarded-log"))) == "nothing"
    assert "SqrtBackward0" in anomaly(admitted(number_of("where-sqrt")))
    assert "LogSoftmaxBackward0" in anomaly(
        admitted(4), loss=lambda out, y: F.cross_entropy(out[..., 0], y[..., 0].argmax(-1))
    )
    assert "MseLossBackward0" in anomaly(admitted(4))


def test_fp32_from_the_first_step() -> None:
    assert in_fp32_from_the_start(number_of("zero-grad-after-skip"))
    for name in ("ignored-labels", "where-sqrt", "bf16-checkpoint"):
        assert not in_fp32_from_the_start(number_of(name))


def test_the_silent_script_can_be_copied_and_run() -> None:
    names: dict[str, Any] = {}
    exec("\n".join(LINES), names)
    losses = names["train"](*toy("cpu"))
    assert losses == train(*toy("cpu"))
    assert losses[-1] == losses[0]


# ---- points ----


def test_points() -> None:
    assert sum(test.cost for test in TESTS.values()) == BUDGET - 2
    chart = Chart()
    assert (chart.left, chart.earned) == (BUDGET, 0)
    chart.tests += ["fp32", "trace"]
    chart.wrong.append("data")
    chart.wrong_cures.append(0)
    assert chart.left == BUDGET - 6 - 2 - 1
    chart.cured = True
    assert chart.earned == 3
    chart.wrong += ["order", "invalid"]
    assert chart.earned == LEAST
    chart.told = True
    assert chart.earned == 0


def test_a_patient_from_beginning_to_end(panel: ClinicPanel) -> None:
    assert panel.score() == "12 of 12 points left · 0 of 29 solved, 0 points"
    panel.tests["data"].click()
    panel.tests["data"].click()
    assert panel.chart.left == 11, "the second look is free"
    assert "The first batch of the run" in panel.words.value
    panel.name_it.click()
    assert "Choose a diagnosis from the list first." in panel.message.value
    panel.diagnosis = "healthy"
    assert panel.said().startswith("If it were “healthy”, FP32 would differ in nothing that matters")
    assert panel.chart.left == 11, "to think costs nothing"
    panel.name_it.click()
    assert panel.said() == "“healthy” does not fit: eval loss is NaN from step 12."
    panel.diagnosis = "data"
    panel.name_it.click()
    assert panel.said().startswith("Right, the batch began it.")
    assert (panel.naming.layout.display, panel.curing.layout.display) == ("none", None)
    sick = panel.png()
    right = next(place for place in range(3) if cure_judged(1, place)[0])
    panel.cures[(right + 1) % 3].click()
    assert panel.said().startswith("The curve does not heal")
    panel.cures[right].click()
    assert (
        panel.headline()
        == "Patient 1, cured: the loss falls from 9.16 to 0.355, and eval loss falls from 8.38 to 0.133"
    )
    assert panel.score() == "8 points for this one · 1 of 29 solved, 8 points"
    assert panel.png() != sick
    panel.again.click()
    assert panel.score() == "12 of 12 points left · 0 of 29 solved, 0 points"


def test_show_me_prints_the_diagnosis_for_no_points(panel: ClinicPanel) -> None:
    panel.test("tally")
    panel.ask.click()
    assert "<b>poisoned state:</b> norm.running_mean" in panel.words.value
    assert "Of 193 gradients" not in panel.words.value.split("<details>")[0], "there is room for one of the two"
    assert panel.chart.left == 0
    panel.test("tally")
    assert "Of 193 gradients" in panel.words.value
    assert "norm.running_mean" not in panel.words.value


def test_show_me_says_what_it_costs_and_keeps_what_was_tested(panel: ClinicPanel) -> None:
    panel.test("tally")
    panel.name("healthy")
    assert "does not fit" in panel.said()
    panel.show_me()
    assert panel.said().startswith("This is what mpkit.diagnose says. There are no points, but you may still name it")
    assert "does not fit" not in panel.words.value
    assert "norm.running_mean" in panel.words.value
    before, after = panel.words.value.split("<summary>What your tests said</summary>")
    assert "Of 193 gradients" not in before
    assert "Of 193 gradients" in after
    panel.again.click()
    panel.show_me()
    assert "<summary>" not in panel.words.value, "nothing was tested"


def test_show_me_between_diagnosis_and_cure(panel: ClinicPanel) -> None:
    panel.test("data")
    panel.name("poisoned state")
    panel.show_me()
    assert panel.said() == "This is what mpkit.diagnose says. There are no points, but you may still pick the cure."
    panel.test("tally")
    assert panel.said() == "Now pick the cure."
    right = next(place for place in range(3) if cure_judged(1, place)[0])
    panel.cure(right)
    healed = panel.said()
    panel.show_me()
    assert panel.said() == healed, "who is cured is told why"
    assert panel.chart.left == 0


def test_how_often_diagnose_runs_the_step(panel: ClinicPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST == 8
    waited: list[str] = []
    monkeypatch.setattr(panel, "wait", waited.append)
    panel.show_me()
    assert waited == ["mpkit.diagnose runs the step, eight times at most …"]
    lesson = (Path(__file__).parents[2] / "notebooks" / "10_debug_the_nan.ipynb").read_text(encoding="utf-8")
    assert "runs it eight times at most" in lesson
    assert "ten times" not in lesson


def test_another_patient_is_announced_before_the_script_runs(
    panel: ClinicPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bytes]] = []
    before, honest = panel.png(), curves
    panel.diagnosis = "data"
    monkeypatch.setattr(
        "mpkit.course.lesson_10.clinic_page.curves",
        lambda *args: seen.append((panel.words.value, panel.png())) or honest(*args),
    )
    panel.patient = 5
    assert "The script runs" in seen[0][0]
    assert seen[0][1] not in (before, panel.png())
    assert panel.diagnosis == ""


def test_only_what_is_there_is_in_the_legend(panel: ClinicPanel) -> None:
    for which, there in ((1, {"as it came", "Inf or NaN", "step skipped"}), (5, {"as it came"})):
        panel.patient = which
        words = {text for _, text, *_ in panel.figure.frame._words}
        assert words & {"as it came", "cured", "Inf or NaN", "step skipped"} == there


def test_a_patient_and_a_diagnosis_can_be_chosen_at_once(panel: ClinicPanel) -> None:
    panel.choose(patient=panel.patient % 29 + 1, diagnosis="invalid")
    assert panel.diagnosis == "invalid"
    assert panel.said().startswith("If it were “mathematics”")


def test_charts_are_kept_when_another_patient_comes(panel: ClinicPanel) -> None:
    panel.test("tally")
    panel.patient = 9
    assert panel.chart.tests == []
    panel.patient = 1
    assert panel.chart.tests == ["tally"]


# ---- the picture and the words ----


def test_the_first_picture_makes_the_point(panel: ClinicPanel) -> None:
    assert panel.headline() == "Patient 1: the loss falls from 9.16 to 0.355, and eval loss is NaN from step 12"
    assert page_size(panel.png()) == SIZE
    assert shown(panel.sick) == ["eval loss"]
    assert "running_mean" not in panel.summary(), "the cause is for the learner to find"


@pytest.mark.parametrize("which", QUICK)
def test_every_title_fits_and_says_what_is_not_finite(which: int) -> None:
    for sick in (True, False):
        found = curves(which, sick)
        said = finding(found)
        lines = textwrap.wrap(f"Patient {which}, cured: {said}", 72)
        assert len(lines) <= 2, said
        assert all(_fitting(line, TITLE, True, SIZE[0] - 8) >= 14 for line in lines), said
        assert len(textwrap.wrap(about(which), 92)) <= 2
        assert any(map(math.isnan, found["loss"])) == said.startswith("the loss is NaN")
        assert patient(which).name not in said


def test_a_curve_in_words() -> None:
    nan, inf = math.nan, math.inf
    assert course("it", [nan, nan]) == "it is NaN at every step"
    assert course("it", [1.0, nan, nan]) == "it is NaN from step 1"
    assert course("it", [inf, inf, 2.0]) == "it is Inf for 2 steps, and finite from step 2"
    assert course("it", [2.0, 2.0]) == "it is 2 at every step"
    assert course("it", [2.0, 2.01]) == "it stays near 2"
    assert course("it", [2.0, 1.0]) == "it falls from 2 to 1"
    assert course("it", [2.0, 9.0]) == "it rises from 2 to 9"
    assert course("it", [2.0, 2.5]) == "it goes from 2 to 2.5"
    assert bad_steps([1.0, nan, -inf]) == [1, 2]
    assert [number(x) for x in (0.0, -3.0, 1024.0, 1.5, 35447.3, 6.2e-9, -1.7e-4, nan, -inf)] == [
        "0", "−3", "1,024", "1.5", "35,400", "6.2e-9", "−0.00017", "NaN", "−Inf",
    ]  # fmt: skip


def test_it_tells_those_who_cannot_see_it(panel: ClinicPanel) -> None:
    panel.test("tally")
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.summary()
    assert metadata["image/png"]["alt"] == panel.alt()
    assert panel.alt().startswith(f"{panel.headline()}. “The training loss falls nicely.")
    assert "tally the gradients: Of 193 gradients" in panel.alt()


# ---- what is junk ----


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda panel: panel.test("biopsy"), "test 'biopsy' is not in this panel"),
        (lambda panel: panel.name("flu"), "kind 'flu' is not in this panel"),
        (lambda panel: panel.cure(3), "cure 3 is not in this panel"),
        (lambda panel: panel.cure(0), "name the diagnosis first"),
        (lambda panel: setattr(panel, "patient", 30), "patient 30 is not in this panel"),
    ],
)
def test_junk_is_refused_and_changes_nothing(panel: ClinicPanel, call: Any, text: str) -> None:
    before = panel.summary()
    with pytest.raises(ValueError, match=text):
        call(panel)
    assert panel.summary() == before
