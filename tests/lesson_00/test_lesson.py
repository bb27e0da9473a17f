"""What lesson 00 says: a CPU trains in 16 bits, and the first prediction is answered nowhere above it."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from harness.lesson_cells import cells

from mpkit import FP16, cast
from mpkit.course import table
from mpkit.course.lesson_00.robustness import SWEEPS
from mpkit.course.lesson_00.without_gpu import EIGHT_BITS, WAYS, trained_without_gpu
from mpkit.course.robustness.table import robustness_table
from mpkit.course.runs.equivalence import equivalence

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"
PROSE = "\n".join(cell.source for cell in cells("00") if cell.kind == "markdown")


def test_a_cpu_trains_in_16_bits_as_well_as_in_fp32_and_not_in_e4m3() -> None:
    torch.set_num_threads(1)
    scores = {way: trained_without_gpu(way, seeds=range(10, 15)) for way in WAYS}  # others than the lesson's
    found = {way: equivalence(scores[way], scores["FP32"], 1.0).equivalent for way in WAYS[1:]}
    assert found == {way: way != "E4M3, emulated" for way in WAYS[1:]}
    assert min(scores["FP16, torch's own"]) > 85
    for way in EIGHT_BITS:  # it is the range that E4M3 lacks
        assert equivalence(trained_without_gpu(way, seeds=range(10, 15)), scores["FP32"], 1.0).equivalent


def test_the_steps_are_plain_sgd() -> None:
    """The steps written out are those of torch's own optimizer."""
    from mpkit.course.nets.digits import digits
    from mpkit.course.nets.models import MLP

    images, model = digits(), MLP([3])
    sgd, data = torch.optim.SGD(model.parameters(), lr=0.1), images.classification()
    for step in range(210):
        inputs, labels = data.batch(step)
        sgd.zero_grad()
        model.loss(model(inputs), labels).sum().backward()
        sgd.step()
    accuracy = 100 * float(model.accuracy(images.test_images, images.test_labels))
    assert trained_without_gpu("FP32", seeds=[3]) == [pytest.approx(accuracy, abs=0.25)]


def test_another_way_is_refused() -> None:
    with pytest.raises(ValueError, match=r"way must be one of FP32, FP16, torch's own, .*, but 'FP8' came"):
        trained_without_gpu("FP8")


def test_the_stored_sweep_is_this_one_and_its_verdicts_hold() -> None:
    (sweep,) = SWEEPS
    stored = robustness_table(sweep.key)
    assert set(stored.scores[sweep.chosen]) == set(WAYS)
    assert stored.holds_for == [0.03, 0.1]  # at 0.3 E4M3 passes too, and the lesson says so


def test_the_first_prediction_can_be_reasoned_out_and_is_answered_below_it() -> None:
    step, total = float(np.float16(0.001)), np.float16(1)
    for _ in range(1000):
        total = np.float16(total + np.float16(step))
    assert 1.976 < float(total) < 1.978
    for _ in range(1000):
        total = np.float16(total + np.float16(step))
    assert f"{float(total):.3f}" == "3.906", "the teachers' question"
    above = [cell.source + cell.stored for cell in cells("00")]
    place = next(k for k, cell in enumerate(cells("00")) if '"00.sum"' in cell.source)
    assert not [text for text in above[:place] if "1.977" in text or "a little less than 2" in text]


def test_dtypes_are_named_and_the_minutes_agree() -> None:
    for words in ("**FP16 is `torch.float16`**", "**BF16 is `torch.bfloat16`**", "FP32 is `torch.float32`"):
        assert words in PROSE
    assert f"About {table.find('00').minutes} minutes." in PROSE
    assert "**Next:** [01 · See the bits](01_see_the_bits.ipynb)" in PROSE


def test_a_product_is_not_the_same_bit_for_bit() -> None:
    a, b = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)).half() for seed in (0, 1))
    share = float(((a @ b).float() != cast(a.float() @ b.float(), FP16)).double().mean())
    assert 0 < share < 0.01


# ---- the first ten minutes ----


def test_a_whole_round_comes_first_and_is_short_enough_for_ten_minutes() -> None:
    ids = [cell.id for cell in nbformat.read(NOTEBOOK, as_version=4).cells]
    for first in ("predict-sum", "exercise-1", "quiz-panel", "score-card", "course-map"):
        assert ids.index(first) < ids.index("second-part"), first
    read = [cell.source for cell in cells("00")[: ids.index("second-part")] if cell.kind == "markdown"]
    words = re.sub(r"<details>.*?</details>", "", "\n".join(read), flags=re.S).split()
    assert len(words) / 150 + 5 < table.find("00").minutes, "five minutes to run, predict, answer and look"


def test_what_settles_the_prediction_is_folded_away_until_it_is_run() -> None:
    """Stored, it stood 260 pixels below the question, on the same screen."""
    stored = {cell.id: cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    assert stored["claim-sum"].metadata.jupyter.outputs_hidden
    assert "folded away" in stored["explore"].source


def test_no_output_above_the_exercise_answers_it() -> None:
    above = cells("00")[: next(k for k, cell in enumerate(cells("00")) if 'check("00.1"' in cell.source)]
    assert not [cell.stored for cell in above if "exactly 1 in FP16" in cell.stored]
