"""What lesson 01 says, measured another way: with numpy, ml_dtypes and torch's own types, and with five seeds."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from harness.lesson_cells import cells

from mpkit import BF16, FP16, tally
from mpkit.course import table
from mpkit.course.lesson_01.exercises import JOBS, QUIZ
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP
from mpkit.course.runs.snapshots import record_gradients
from mpkit.formats import FORMATS

PEER: dict[str, Any] = {"FP16": np.float16, "BF16": ml_dtypes.bfloat16, "E4M3": ml_dtypes.float8_e4m3fn,
                        "E5M2": ml_dtypes.float8_e5m2}  # fmt: skip
PRINTED = "\n".join(cell.stored for cell in cells("01"))
PROSE = "\n".join(cell.source for cell in cells("01") if cell.kind == "markdown")


def finite(name: str) -> np.ndarray:
    """Every finite number of a format, -0 and 0 as one."""
    bits = np.dtype(PEER[name]).itemsize * 8
    with np.errstate(invalid="ignore"):  # signalling NaN
        rows = np.arange(2**bits).astype(f"uint{bits}").view(PEER[name]).astype(np.float64)
    return np.unique(rows[np.isfinite(rows)])


@pytest.mark.parametrize(("name", "count"), [("FP16", 63_487), ("BF16", 65_279), ("E4M3", 253), ("E5M2", 247)])
def test_how_many_finite_numbers_there_are(name: str, count: int) -> None:
    assert len(finite(name)) == count
    assert re.search(rf"^{name} .* {count:,}\n", PRINTED, re.MULTILINE)
    assert re.search(
        rf"^{name} +{2 ** (8 * np.dtype(PEER[name]).itemsize):,} +\d .* {count:,}\n", PRINTED, re.MULTILINE
    )


@pytest.mark.parametrize(("name", "first"), [("FP16", 2049), ("BF16", 257), ("E4M3", 17), ("E5M2", 9)])
def test_the_first_whole_number_that_is_lost(name: str, first: int) -> None:
    n = np.arange(1, 3000, dtype=np.float64)
    assert n[n.astype(PEER[name]).astype(np.float64) != n][0] == first
    assert f"{name}: the first whole number that it cannot hold is {first}\n" in PRINTED


def test_counting_in_fp16_stands_still_at_2048_and_in_bf16_at_256() -> None:
    for dtype, stop in ((torch.float16, 2048), (torch.bfloat16, 256)):
        count = torch.tensor(0, dtype=dtype)
        for _ in range(stop + 100):
            count = count + 1
        assert count == stop
    x = torch.tensor(2048).half()
    assert (x + torch.tensor(1.01).half()).item() == 2050, "the teachers' question"


def test_between_powers_of_two_there_are_equally_many_and_half_lie_below_1() -> None:
    values = finite("FP16")
    counts = [int(((values >= low) & (values < 2 * low)).sum()) for low in (1, 1024, 2.0**-14, 32768)]
    assert counts == [1024] * 4
    positive = values[values > 0]
    assert (len(positive), round(100 * (positive < 1).mean())) == (31_743, 48)


def test_the_numbers_in_the_quiz_are_true() -> None:
    assert float(np.float16(1e-6)) == 17 * 2.0**-24
    assert np.isinf(torch.tensor(90_000.0).half().item())
    assert torch.tensor(90_000.0).bfloat16().item() == 90112
    assert int((finite("FP16") < 2.0**-14).sum() - (finite("FP16") <= 0).sum()) == 1023
    assert len(QUIZ) == 4
    assert any("subnormal" in item.question for item in QUIZ)


def test_the_start_s_six_numbers_and_the_limits_named_in_the_prose() -> None:
    assert len({*(float(np.array(3e-5).astype(peer)) for peer in PEER.values()), float(np.float32(3e-5))}) == 5
    assert float(np.float16(65519.99)) == 65504
    assert float(np.float16(2.0**-25)) == 0 < float(np.float16(1.01 * 2.0**-25))
    for words in (r"2^{-14} \approx 6.10\cdot10^{-5}", r"2^{-24} \approx 5.96\cdot10^{-8}", r"|x| \le 2^{-25}"):
        assert words in PROSE


@pytest.mark.parametrize("seed", range(5))
def test_where_the_classifier_s_gradients_lie_for_every_seed(seed: int) -> None:
    model = MLP(seeds=[seed])
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    recording = record_gradients(model, digits().classification(), adam, at=[0, 60, 400])
    found = {}
    for step in (0, 60, 400):
        for kind in ("weight", "signal"):
            size = torch.cat([getattr(layer, kind) for layer in recording.at(step).layers]).abs()
            found[step, kind] = size = size[size > 0]
            report = tally(size, FP16)
            below = (size <= 2.0**-25).double().mean(), ((size > 2.0**-25) & (size < 2.0**-14)).double().mean()
            assert (report.flushed, report.subnormal) == pytest.approx([float(x) for x in below], abs=1e-4)
            assert (report.overflowed, tally(size, BF16).flushed, tally(size, BF16).subnormal) == (0, 0, 0)
            if kind == "weight":
                assert report.subnormal + report.flushed < 0.2
    signals = [tally(found[step, "signal"], FP16) for step in (0, 60, 400)]
    assert signals[1].subnormal < signals[0].subnormal < 0.2, "first they grow"
    assert signals[2].subnormal > 0.6, "then they shrink"
    assert 0.01 < signals[2].flushed < 0.04
    both = tally(torch.cat([found[400, "weight"], found[400, "signal"]]), FP16)
    assert both.subnormal + both.flushed > 1 / 3, "the chart's title"
    images = digits()
    assert float(recording.at(400).model.accuracy(images.train_images, images.train_labels)) > 0.975  # type: ignore[operator]


def test_the_numbers_of_another_lesson_s_prediction_are_not_here() -> None:
    assert not re.search(r"38 ?%|0\.38\b|Autoencoder|autoencoder", PRINTED + PROSE)


def test_how_many_patterns_are_nan_is_asked_before_it_is_shown() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert int(np.isnan(every).sum()) == 2046
    here = cells("01")
    place = next(k for k, cell in enumerate(here) if '"01.nan"' in cell.source)
    assert not [cell for cell in here[:place] if "2,046" in cell.source + cell.stored]


def test_an_interval_belongs_to_each_number() -> None:
    for x in (1 - 2.0**-12, 1 + 2.0**-11):
        assert float(np.float16(x)) == 1 != float(np.float16(x + (x - 1) / 1024))


def test_spacing_is_the_distance_away_from_zero() -> None:
    for x in (1.0, 1024.0, -4.0):  # at a power of two the other neighbour is half as far
        near, far = (abs(float(np.nextafter(np.float16(x), np.float16(y))) - x) for y in (0, math.copysign(6e4, x)))
        assert (far, near) == (FP16.spacing(x), FP16.spacing(x) / 2)
    assert "distance to the next number away from 0" in PROSE
    assert "distance to the neighbours" not in PROSE


def test_the_smallest_exponent_is_that_of_a_stored_1() -> None:
    for fmt in FORMATS.values():
        assert math.log2(fmt.smallest_normal) == 1 - fmt.bias
    assert r"$e_{\min}=1-\text{bias}$" in PROSE
    a, b = np.float16(1.5 * 2.0**-14), np.float16(1.25 * 2.0**-14)
    assert float(a - b) == 2.0**-16 < 2.0**-14


def test_no_format_has_a_tenth_and_whether_the_sum_shows_it_differs() -> None:
    shows = {
        t: float(t(0.1) + t(0.2)) != float(t(0.3)) for t in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
    }
    assert set(shows.values()) == {True, False}
    assert all(float(t(x)) != Fraction(x).limit_denominator(10) for t in shows for x in (0.1, 0.2, 0.3))


def test_by_hand_comes_after_subnormals_and_the_minutes_add_up() -> None:
    heads = [cell.heading for cell in cells("01")]
    assert heads.index("Explain: subnormals") < heads.index("By hand, then with mpkit")
    assert f"About {table.find('01').minutes} minutes." in PROSE
    timing = PROSE[PROSE.index("**Timing:**") :].split(". ")[0]
    assert sum(map(int, re.findall(r"\d+", timing))) == table.find("01").minutes
    cards = sum(
        int(minutes) for minutes in re.findall(r"^(?:Code|Debug|Explain) · .* (\d+) minutes$", PROSE, re.MULTILINE)
    )
    assert f"exercises {cards}" in timing


def test_the_options_of_each_question_do_not_tell_by_their_length() -> None:
    lengths = [len(text) for text in QUIZ[0].options]
    assert max(lengths) - min(lengths) < 8


def test_the_six_jobs_have_one_answer_each() -> None:
    """A format fits if it has the bits, the range, and no rival of the same width is more precise."""
    spans = {"A": (1e-3, 1e5), "B": (1e-3, 1e3), "D": (0.02, 4.0), "E": (1e-4, 1e4), "F": (1e-6, 1e3)}
    width = {"A": 16, "B": 16, "D": 8, "E": 8, "F": 16}
    for job, (low, high) in spans.items():
        fitting = [f for f in FORMATS.values()
                   if f.bits == width[job] and f.smallest_normal <= low and high <= f.max]  # fmt: skip
        assert JOBS[job][0] == max(fitting, key=lambda f: f.mantissa_bits).name
    assert [f.name for f in FORMATS.values() if 2 ** (f.mantissa_bits + 1) >= 10**7] == [JOBS["C"][0]]


def test_no_comment_on_a_job_names_its_format() -> None:
    for right, comments in JOBS.values():
        assert right not in comments
        assert not [text for text in comments.values() if right in text]
