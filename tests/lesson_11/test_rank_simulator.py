"""The rank simulator: who skips in every case, sums worked out by hand, and words that say what the numbers are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from harness.pictures import page_size

from mpkit import BF16, FP16, FP32, FloatFormat, StaticScale
from mpkit.course.lesson_11.rank_simulator import RankSimulatorPanel
from mpkit.course.lesson_11.rank_simulator_picture import SIZE
from mpkit.course.lesson_11.rank_simulator_words import by_rank, describe, headline, numbers, share
from mpkit.course.lesson_11.simulated_ranks import (
    AFTER_SUM,
    AGREEMENTS,
    AUTO,
    BIRTHS,
    BORN_AT,
    DATA,
    DIVISIONS,
    EARLY,
    GRAD_SCALER,
    IN_DATA,
    MAX,
    REPLICA_FIRST,
    SHARDED_FIRST,
    STEPS,
    Run,
    Setup,
    decisions,
    mean_of_ranks,
    simulate,
)


@pytest.fixture(scope="module")
def made_once() -> RankSimulatorPanel:
    torch.set_num_threads(1)
    return RankSimulatorPanel()


@pytest.fixture
def panel(made_once: RankSimulatorPanel, monkeypatch: pytest.MonkeyPatch) -> RankSimulatorPanel:
    """The panel in its first state; its canvas is drawn once for all tests."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    made_once.choose(agreement=EARLY, born=IN_DATA, ranks=4, divide="before", reduce=FP32)
    return made_once


# ---- who skips ----

# What tests/library/test_scaler_ranks.py and the lesson's real ranks find, with GradScaler, LossScaler and a group.
TOGETHER = {
    EARLY: set(),
    DATA: {IN_DATA},
    GRAD_SCALER: {IN_DATA, SHARDED_FIRST},
    AUTO: {IN_DATA, SHARDED_FIRST, REPLICA_FIRST},
    MAX: set(BIRTHS),
}


@pytest.mark.parametrize(("ranks", "seed"), [(4, 0), (2, 1), (3, 2), (5, 3), (8, 4)])
@pytest.mark.parametrize(("agreement", "born"), list(itertools.product(AGREEMENTS, BIRTHS)))
def test_who_skips_and_what_becomes_of_the_weights(agreement: str, born: str, ranks: int, seed: int) -> None:
    run = simulate(Setup(ranks, agreement, born), seed)
    first = run.skipped[: BORN_AT[0]]
    assert not first.any()
    assert not run.distance[: BORN_AT[0]].any()
    if born in TOGETHER[agreement]:
        assert run.skipped.sum(0).tolist() == [2] * ranks
        assert set(run.skipped.any(1).nonzero().flatten().tolist()) == set(BORN_AT)
        assert not run.distance.any()
        assert run.scales[-1].tolist() == [2.0**14] * ranks
        assert not run.spoiled.any()
    elif agreement == EARLY and born != IN_DATA:  # it tested too early
        assert run.spoiled.any(0).tolist() == [rank == 1 for rank in range(ranks)]
        assert math.isinf(run.distance[-1])
        whose = "the" if run.setup.sharded else "its"  # a shard's weights go to all ranks
        assert headline(run).endswith(f"gradients, and {whose} weights are lost")
    else:
        assert run.torn.tolist() == list(BORN_AT)
        assert run.skipped.sum(0).tolist() == [2 * (rank == 1) for rank in range(ranks)]
        assert run.distance[-1] > 0.1
        assert run.scales[-1].tolist() == [2.0 ** (16 - 2 * (rank == 1)) for rank in range(ranks)]


def test_decisions_are_what_each_asks() -> None:
    alone, seen = torch.tensor([True, False, False]), torch.tensor([False, True, False])
    assert decisions(Setup(3, EARLY), alone, seen).tolist() == [True, False, False]
    assert decisions(Setup(3, DATA), alone, seen).tolist() == [False, True, False]
    assert decisions(Setup(3, MAX), alone, seen).tolist() == [True] * 3
    assert decisions(Setup(3, MAX), alone, torch.zeros(3, dtype=torch.bool)).tolist() == [False] * 3


def test_ranks_without_an_inf_are_one_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over equal shares is the gradient of all rows: N ranks train as one with all of their rows would."""
    monkeypatch.setattr("mpkit.course.lesson_11.simulated_ranks.BORN_AT", ())
    from mpkit.course.lesson_11 import simulated_ranks as simulated

    run = simulate(Setup(4, DATA))
    assert not run.skipped.any()
    assert not run.distance.any()
    seen = []
    honest = simulated._stepped
    monkeypatch.setattr(simulated, "_stepped", lambda *args: seen.append(honest(*args)) or seen[-1])
    simulate(Setup(4, DATA))
    w = torch.zeros(64, dtype=torch.float64)
    for number in range(STEPS):
        x, y = (part[:4].double().flatten(0, 1) for part in simulated._batches(number, 0))
        w = w - 0.1 * x.T @ (x @ w - y) / len(x)
    assert torch.allclose(seen[-1][0].double(), w, rtol=1e-4, atol=1e-6)


# ---- the mean ----


def test_means_by_hand() -> None:
    large, small = torch.full((2, 1), 40000.0), torch.full((2, 1), 2.0**-24)
    for fmt, value, before, after in (
        (FP16, large, 40000.0, math.inf),
        (FP16, small, 0.0, 2.0**-24),
        (FP32, large, 40000.0, 40000.0),
        (BF16, small, 2.0**-24, 2.0**-24),
        (BF16, large, 39936.0, 39936.0),
    ):
        assert float(mean_of_ranks(value, "before", fmt)) == before
        assert float(mean_of_ranks(value, "after", fmt)) == after
    assert float(mean_of_ranks(large[:1].repeat(4, 1), "√N", FP16)) == math.inf  # 4 x 20000
    assert float(mean_of_ranks(torch.full((4, 1), 30000.0), "√N", FP16)) == 30000.0  # 4 x 15000 = 60000


@pytest.mark.parametrize("divide", DIVISIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_sum_is_torchs_in_that_dtype(dtype: torch.dtype, divide: str) -> None:
    parts = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    first = {"before": 5, "√N": math.sqrt(5), "after": 1}[divide]
    total = (parts[0] / first).to(dtype)
    for part in parts[1:]:
        total = total + (part / first).to(dtype)
    expected = total.float() / (5 / first)
    assert torch.equal(mean_of_ranks(parts, divide, FP16 if dtype == torch.float16 else BF16), expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_sum_overflows_at_one_end_and_flushes_at_the_other(seed: int) -> None:
    def run(divide: str, fmt: FloatFormat) -> Run:
        return simulate(Setup(8, MAX, IN_DATA, divide, fmt), seed)

    before, root, after = (run(divide, FP16) for divide in DIVISIONS)
    assert int(after.overflowed.sum()) >= 1
    assert int(before.overflowed.sum()) == 0
    assert int(root.overflowed.sum()) <= int(after.overflowed.sum())
    assert after.scales[-1, 0] < before.scales[-1, 0]
    assert before.flushed > 0.05
    assert before.flushed > root.flushed or root.overflowed.any()
    exact, coarse = run("before", FP32), run("before", BF16)
    assert (exact.flushed, int(exact.overflowed.sum())) == (0, 0)
    assert exact.error < 1e-6 < 1e-4 < before.error < 1e-3 < coarse.error < 1e-2
    assert not after.distance.any()


@pytest.mark.parametrize("seed", range(5))
def test_at_one_scale_dividing_first_flushes_most(seed: int) -> None:
    """With a scale of its own, dividing after overflows, halves it, and loses small values that way."""
    before, root, after = (
        simulate(Setup(8, MAX, IN_DATA, divide, FP16), seed, StaticScale(2.0**13)) for divide in DIVISIONS
    )
    assert before.flushed > root.flushed > after.flushed > 0
    assert not any(run.overflowed.any() for run in (before, root, after))


def test_a_coarse_sum_of_more_ranks_is_coarser() -> None:
    errors = [simulate(Setup(ranks, MAX, reduce=BF16)).error for ranks in (2, 4, 8)]
    assert errors == sorted(errors)


# ---- the panel ----


def test_the_default_drifts_and_one_switch_mends_it(panel: RankSimulatorPanel) -> None:
    assert (
        panel.headline()
        == "Tested before the sum: rank 1 alone skips 2 steps, and the 4 ranks' weights drift 80% apart"
    )
    for agreement in AGREEMENTS[1:]:
        panel.agreement = agreement
        assert panel.headline().endswith("all 4 ranks skip the same 2 steps, and their weights stay equal")


def test_every_control_redraws(panel: RankSimulatorPanel) -> None:
    seen = {panel.png()}
    for name, values in {
        "agreement": AGREEMENTS[1:3],
        "born": BIRTHS[1:3],
        "ranks": (2, 8),
        "divide": ("after",),
    }.items():
        for value in values:
            setattr(panel, name, value)
            seen.add(panel.png())
    panel.reduce = FP16
    seen.add(panel.png())
    assert len(seen) == 9
    assert page_size(panel.png()) == SIZE


def test_what_is_not_offered_is_refused(panel: RankSimulatorPanel) -> None:
    with pytest.raises(ValueError, match="ranks 9 is not in this panel"):
        panel.ranks = 9
    with pytest.raises(ValueError, match="agreement 'a vote' is not in this panel; use one of 'test before the sum'"):
        panel.agreement = "a vote"
    with pytest.raises(TypeError, match="has no setting 'group'"):
        RankSimulatorPanel(group=1)


def test_titles_say_what_the_numbers_say() -> None:
    for agreement, born, ranks, divide, fmt in itertools.product(
        AGREEMENTS, BIRTHS, (2, 8), ("before", "after"), (FP32, FP16)
    ):
        run = simulate(Setup(ranks, agreement, born, divide, fmt))
        title = headline(run)
        assert ("stay equal" in title) == (not run.distance.any() and not run.spoiled.any())
        assert ("lost" in title) == bool(run.spoiled.any())
        assert ("drift" in title) == (not run.spoiled.any() and bool(run.distance[-1] > 0))
        assert ("overflows" in title) <= bool(run.overflowed.any())
        assert title in describe(run)
        assert len(by_rank(run)) == ranks
        assert [int(skip) for skip, _ in by_rank(run)] == run.skipped.sum(0).tolist()
        assert dict(numbers(run))["ranks disagree at"].split()[0] == str(len(run.torn))


def test_titles_of_the_rare_cases() -> None:
    assert "both ranks skip the same 2 steps" in headline(simulate(Setup(2, MAX)))
    assert "all 8 ranks skip the same 4 steps, 2 as the FP16 sum overflows" in headline(
        simulate(Setup(8, MAX, IN_DATA, "after", FP16))
    )
    assert headline(simulate(Setup(4, EARLY, AFTER_SUM))).endswith(
        "rank 1 steps with Inf or NaN in the gradients, and its weights are lost"
    )
    assert "some ranks skip and others do not" in headline(simulate(Setup(8, DATA, SHARDED_FIRST, "after", FP16)))
    assert "all ranks step with Inf" in headline(simulate(Setup(8, EARLY, IN_DATA, "after", FP16)))
    assert (share(0.8), share(1.321), share(math.inf), share(0.0)) == ("80%", "132%", "not a number", "0%")


def test_without_a_finite_mean_nothing_is_measured() -> None:
    """Every mean is Inf, or the zeros of ranks that all send nothing."""
    said = dict(numbers(simulate(Setup(8, EARLY, IN_DATA, "after", FP16))))
    assert said["flushed to 0 in the mean"] == said["error of the mean"] == "no finite mean"
    assert said["weights apart at the end"] == "not a number"


def test_shares_that_are_compared_differ_as_written() -> None:
    said = [dict(numbers(simulate(Setup(8, MAX, IN_DATA, divide, FP16))))["flushed to 0 in the mean"]
            for divide in DIVISIONS]  # fmt: skip
    assert said == ["16.5%", "13.4%", "15.5%"]


def test_alt_says_what_is_drawn(panel: RankSimulatorPanel) -> None:
    alt = panel.alt()
    assert alt.startswith(panel.headline())
    for part in ("a row for each rank", "largest distance", "rank 1 skips 2 of 24, scale 2¹⁴", "(step 6, 15)", "FP32"):
        assert part in alt
