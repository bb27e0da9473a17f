"""The clinic panel: its tests are real reruns, who reasons rightly is right, and one of three cures heals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from harness.pictures import page_size

from mpkit.course.clinic import PATIENTS
from mpkit.course.lesson_10.answers import ALSO, GROUPS, OTHERS, SPEAKS, cure_judged, cures, judged
from mpkit.course.lesson_10.chart import BUDGET, LEAST, Chart
from mpkit.course.lesson_10.clinic_panel import ClinicPanel
from mpkit.course.lesson_10.clinic_picture import SIZE
from mpkit.course.lesson_10.clinic_words import bad_steps, course, finding, shown
from mpkit.course.lesson_10.examination import TESTS, Examination
from mpkit.course.lesson_10.in_words import number
from mpkit.course.lesson_10.look_alikes import Reads, anomaly, reruns
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


def test_every_kind_has_a_button_and_a_test_that_speaks_for_it() -> None:
    assert sorted(kind for kinds in GROUPS.values() for kind in kinds) == sorted(KINDS) == sorted(SPEAKS)


@everyone
def test_who_reasons_rightly_is_right_and_others_hear_which_test_would_tell(which: int) -> None:
    own = patient(which)
    for kind in KINDS:
        right, said = judged(which, kind)
        assert right == (kind == own.kind or kind in ALSO.get(own.name, {}))
        assert said.startswith("Right" if right else "Not ")
        assert right or SPEAKS[kind] in said


def test_what_is_accepted_besides_is_another_kind_of_a_patient() -> None:
    assert set(ALSO) <= set(PATIENTS)
    assert all(kind in KINDS and kind != PATIENTS[name].kind for name, kinds in ALSO.items() for kind in kinds)


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
    case = admitted(1)
    assert (
        Examination(number_of("left-over-memory"))
        .said("again")
        .startswith("From the same state the loss is 4.84, then")
    )
    assert "9.46 to the last digit" in Examination(number_of("one-autocast")).said("again")
    assert case.batch is not None


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
    assert "at 256 gradients overflow" in Examination(number_of("scale-to-zero")).said("scale")
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
    assert calls.index("clip_grad_norm_") < calls.index("unscale_")


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
    assert panel.score() == "12 of 12 points left · 0 of 29 cured, 0 points"
    panel.tests["data"].click()
    panel.tests["data"].click()
    assert panel.chart.left == 11, "the second look is free"
    assert "The first batch of the run" in panel.words.value
    panel.kinds["invalid"].click()
    assert panel.said() == "Not mathematics: then FP32 would give NaN or Inf as well."
    panel.kinds["data"].click()
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
    assert panel.score() == "8 points for this one · 1 of 29 cured, 8 points"
    assert panel.png() != sick
    panel.again.click()
    assert panel.score() == "12 of 12 points left · 0 of 29 cured, 0 points"


def test_show_me_prints_the_diagnosis_for_no_points(panel: ClinicPanel) -> None:
    panel.ask.click()
    assert "poisoned state: norm.running_mean" in panel.words.value
    assert panel.chart.left == 0


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
        assert _fitting(f"Patient {which}, cured: {said}", 19, True, SIZE[0] - 12) >= 14, said
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
    assert [number(x) for x in (0.0, -3.0, 1024.0, 1.5, 35447.3, 6.2e-9, nan, -inf)] == [
        "0", "−3", "1,024", "1.5", "35,400", "6.2e-9", "NaN", "−Inf",
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
