"""The clinic panel: its tests are real reruns, who reasons rightly is right, and one of three cures heals."""

from __future__ import annotations

import math
import textwrap
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
    assert "Of 193 gradients" not in panel.words.value, "there is room for one of the two"
    assert panel.chart.left == 0
    panel.test("tally")
    assert "Of 193 gradients" in panel.words.value
    assert "norm.running_mean" not in panel.words.value


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
