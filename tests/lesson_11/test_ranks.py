"""What real ranks do: two and three processes with gloo, each experiment in one launch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mpkit.course.lesson_11 import agreement, checkpoint, drift, resume, sums
from mpkit.course.lesson_11.agreement import Agreement, Trained
from mpkit.course.lesson_11.checkpoint import Resumed
from mpkit.course.lesson_11.sums import Sums
from mpkit.course.ranks.agreement import BAD, CASES, STEPS
from mpkit.course.recorded.ranks import RanksRecord

NOT_SEEN = "clipping after unscale_"  # nobody looks at the gradients after that
SKIP = [step != BAD for step in range(STEPS)]
GROUP = "LossScaler, group"


@pytest.fixture(scope="module")
def two() -> Agreement:
    return agreement(2)


@pytest.fixture(scope="module")
def three() -> Agreement:
    return agreement(3, GROUP)


@pytest.mark.parametrize("case", CASES)
def test_with_a_group_all_ranks_agree_in_every_case(case: str, two: Agreement, three: Agreement) -> None:
    for found, ranks in ((two[case, GROUP], 2), (three[case, GROUP], 3)):
        assert len(found.stepped) == len(found.scales) == ranks
        assert found.agrees
        if case != NOT_SEEN:
            assert found.stepped == [SKIP] * ranks
            assert found.scales == [2.0**15] * ranks
            assert found.same_weights is (None if case == "sharded" else True)


def test_the_default_agrees_through_the_data_and_over_meshes_but_not_over_what_comes_later(two: Agreement) -> None:
    agrees = {one.case for one in two.of("LossScaler") if one.agrees and one.same_weights is not False}
    assert set(CASES) - agrees == {"after the sum", "local clipping", NOT_SEEN}
    for case in ("after the sum", "local clipping"):
        found = two[case, "LossScaler"]
        assert found.stepped == [[True] * STEPS, SKIP]
        assert found.scales == [2.0**16, 2.0**15]
        assert found.apart is not None
        assert 1e-3 < found.apart < 1


def test_grad_scaler_agrees_where_every_gradient_says_the_same(two: Agreement) -> None:
    """With a replicated parameter first it may not (torch 2.13); what it does there is what the lesson shows."""
    for case in ("in the data", "sharded", "sharded first"):
        assert two[case, "GradScaler"].stepped == [SKIP, SKIP]
    for case in ("after the sum", "local clipping"):
        assert not two[case, "GradScaler"].agrees
    found = two["replicated first", "GradScaler"]
    assert found.agrees == (found.scales == [2.0**15] * 2)
    assert ("DISAGREES" in str(found)) is not found.agrees


def test_what_is_born_after_unscale_nobody_sees(two: Agreement) -> None:
    for one in two.trained.values():
        if one.case == NOT_SEEN:
            assert one.stepped[0][BAD]
            assert one.apart == math.inf


def test_a_row_says_who_skipped() -> None:
    torn = Trained("after the sum", "GradScaler", [[True, True], [True, False]], [65536.0, 32768.0], 0.02)
    assert (
        str(torn).split()
        == "after the sum GradScaler ·· ·S DISAGREES, scale 65536 and 32768, weights 2e-02 apart".split()
    )
    one = Trained("sharded", "GradScaler", [[False], [False]], [32768.0, 32768.0], None)
    assert str(one).split() == "sharded GradScaler S S agrees, scale 32768".split()
    assert one.same_weights is None, "nothing was compared"
    assert not Trained("", "", [[True], [True]], [1.0, 2.0], 0.0).agrees


def test_sgd_drifts_on_and_what_remembers_gradients_first_comes_closer() -> None:
    """With large batches; noise hides it with small ones. A hundred steps later all are farther apart."""
    found = drift(2)
    assert list(found) == [(name, batch) for name in ("SGD", "SGD, momentum", "AdamW") for batch in (16, 512)]
    for (name, batch), apart in found.items():
        assert list(apart) == [0, 8, 100]
        assert apart[100] > 2 * apart[0] > 0
        if name == "SGD":
            assert apart[8] > 2 * apart[0]
        elif batch == 512:
            assert apart[8] < apart[0] / 1.2


def test_what_a_record_has_besides_its_command_stands_in_a_note() -> None:
    record = RanksRecord.load()
    once = {(name, n) for name, row in record.range["images"].items() for n, (low, high) in row.items() if low == high}
    assert once == {("fsdp", "2")}
    assert record.note == "FSDP on two GPUs ran once, all other timed runs twice"
    assert "(" not in record.command
    assert record.agree("ddp") is record.agree("fsdp") is True


# ---- sums ----


@pytest.fixture(scope="module")
def found() -> Sums:
    return sums(2)


def test_accumulation_sums_once_and_gives_the_same_gradient(found: Sums) -> None:
    assert found.reductions == {"DDP": [4, 1], "FSDP2": [4, 1]}
    assert all(0 <= difference < 1e-6 for difference in found.difference.values())


def test_an_inf_in_the_first_micro_batch_reaches_the_others_with_the_last(found: Sums) -> None:
    assert found.finite == [[True, True, True, False], [False] * 4]
    assert found.accumulated_step == [False, False]


def test_uneven_inputs_end_with_the_same_weights(found: Sums) -> None:
    assert found.uneven_steps == [[True, False, True], [True, False, True, True]]
    assert found.same_weights


def test_where_the_mean_is_divided_decides_what_is_lost(found: Sums) -> None:
    fp16 = {(value, when): mean for (fmt, value, when), mean in found.mean.items() if fmt == "FP16"}
    assert fp16["40000", "before"] == fp16["40000", "√N and √N"] == 40000
    assert fp16["40000", "after"] == math.inf
    assert fp16["2^-24", "before"] == 0, "half of the smallest subnormal rounds to 0"
    assert fp16["2^-24", "after"] == fp16["2^-24", "√N and √N"] == 2.0**-24
    bf16 = {key[1:]: mean for key, mean in found.mean.items() if key[0] == "BF16"}
    assert {mean for (value, _), mean in bf16.items() if value == "40000"} == {39936}, (
        "8 bits: neither end, but rounded"
    )
    assert {mean for (value, _), mean in bf16.items() if value == "2^-24"} == {2.0**-24}
    assert found.fsdp2_finite == {"as it comes": True, "not divided": False}


def test_a_sum_in_bf16_rounds_once_more(found: Sums) -> None:
    """At most half a unit in the last of 8 bits; two BF16 numbers of like size are added in FP32 exactly."""
    assert found.error["FP32"] < 1e-6
    assert 2.0**-12 < found.error["BF16"] < 2.0**-8


# ---- checkpoint ----


@pytest.fixture(scope="module")
def resumed() -> Resumed:
    return resume(others=(3,))


def test_as_many_ranks_resume_bit_for_bit_and_others_within_rounding(resumed: Resumed) -> None:
    assert resumed.bit_equal
    assert resumed.loaded == {2: resumed.state, 3: resumed.state}
    assert resumed.state == (6, 2.0**17, 2), "one growth after four steps"
    assert resumed.end == (12, 2.0**19, 0), "two more, the first of them two steps after the load"
    assert resumed.ended == {2: resumed.end, 3: resumed.end}
    assert resumed.distance[2] == 0
    assert resumed.distance[3] < 1e-6 * resumed.largest


FORGETFUL = """
import mpkit
from mpkit.course.ranks import checkpoint
from mpkit.course.ranks.rank import answer

honest = checkpoint.Training.load_state_dict

def forgets(self, state):
    honest(self, state)
    self.scaler = mpkit.LossScaler(mpkit.DynamicScale(init_scale=self.scaler.get_scale(), growth_interval=4))

checkpoint.Training.load_state_dict = forgets
answer(checkpoint.work)
"""


def test_a_scaler_that_forgets_its_clean_steps_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights cannot show it: a scale is a power of two, and the net is in FP32."""
    script = tmp_path / "forgetful.py"
    script.write_text(FORGETFUL, encoding="utf-8")
    monkeypatch.setattr(checkpoint, "SCRIPT", script)
    found = resume(others=())
    assert found.bit_equal
    assert found.loaded[2] == (*found.state[:2], 0)
    assert found.ended[2] == (12, 2.0**18, 2) != found.end


def test_another_global_batch_is_another_training(resumed: Resumed) -> None:
    """What the test above could have found: one image less on each rank."""
    assert resumed.cut[3] > 1000 * max(resumed.distance[3], 1e-7)


def test_a_batch_that_cannot_be_shared_out() -> None:
    with pytest.raises(
        ValueError, match=r"^the global batch is 48; 5 ranks cannot share it equally\. Use a divisor\.$"
    ):
        resume(others=(5,))
