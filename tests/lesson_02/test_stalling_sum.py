"""The panel of sums that stall: its words against hand-worked totals, its controls, and what a learner may type."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from harness.pictures import page_size

from mpkit import BF16, E4M3, E5M2, FP16, FP32, FloatFormat
from mpkit.course.arithmetic.accumulate import HOWS, How
from mpkit.course.lesson_02.running_sum import COUNTS, RANDOM
from mpkit.course.lesson_02.stalling_sum import StallingSumPanel
from mpkit.course.lesson_02.stalling_sum_picture import SIZE, number
from mpkit.course.lesson_02.stalling_sum_words import headline, reason, stalled_since


@pytest.fixture(scope="module")
def made_once() -> StallingSumPanel:
    torch.set_num_threads(1)
    return StallingSumPanel()


@pytest.fixture
def panel(made_once: StallingSumPanel, monkeypatch: pytest.MonkeyPatch) -> StallingSumPanel:
    """The panel in its first state; its canvas is drawn once for all tests."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    made_once.term, made_once.format, made_once.how, made_once.additions = "1", FP16, "sequential", 4096
    return made_once


@pytest.mark.parametrize(
    ("term", "fmt", "how", "count", "title", "why"),
    [
        ("1", FP16, "sequential", 4096, "FP16 stops at 2,048, after 2,048 of 4,096 additions", "half of that: a tie"),
        ("1", BF16, "sequential", 4096, "BF16 stops at 256, after 256 of 4,096 additions", "Neighbours are 2 apart."),
        ("0.1", FP16, "sequential", 16384, "FP16 stops at 256, after 2,207 of 16,384 additions", "less than half"),
        ("0.001", FP16, "sequential", 16384, "FP16 stops at 4, after 3,070 of 16,384 additions", "0.003906 apart"),
        ("1", FP16, "sequential", 1024, "FP16 ends at 1,024, the true total", "neighbours are 0.5 apart"),
        ("1", FP16, "fp32", 4096, "FP16 ends at 4,096, the true total", "kept in FP32, where neighbours are 0.0004883"),
        ("1", BF16, "kahan", 4096, "BF16 ends at 4,096, the true total", "kept in a second number"),
        ("1", BF16, "pairwise", 4096, "BF16 ends at 4,096, the true total", "about the same size"),
        ("10", FP16, "pairwise", 16384, "The total leaves FP16: Inf instead of 163,840", "FP16 ends at 65,504."),
        ("10", FP16, "kahan", 16384, "The total leaves FP16: NaN instead of 163,840", "FP16 ends at 65,504."),
        (RANDOM, BF16, "sequential", 16384, "BF16 stops at 256, after", "less than half of that"),
        (RANDOM, FP16, "fp32", 16384, "FP16 ends at 8,216, within 0.1 % of the true total", "rounded to FP16 once"),
    ],
)  # fmt: skip
def test_findings_and_reasons(
    panel: StallingSumPanel, term: str, fmt: FloatFormat, how: How, count: int, title: str, why: str
) -> None:
    panel.term, panel.format, panel.how, panel.additions = term, fmt, how, count
    assert headline(panel.view).startswith(title)
    assert why in reason(panel.view)
    assert panel.picture.tooltip == headline(panel.view)
    assert reason(panel.view) in repr(panel)


def test_a_total_that_ran_ahead_is_called_too_large(panel: StallingSumPanel) -> None:
    """683 times 3 is exact, to 2,049 = 2,048 after rounding; from there on 341 times 3 becomes 4: 2,048 + 4 × 341."""
    panel.term, panel.additions = "3", 1024
    assert headline(panel.view) == "FP16 ends at 3,412, 11% above the true total"
    assert stalled_since(panel.view) is None


def test_the_summary_is_one_line_with_everything(panel: StallingSumPanel) -> None:
    assert repr(panel) == (
        "4,096 times 1 in FP16, one by one: 2,048 instead of 4,096. "
        "Neighbours are 2 apart. The term is exactly half of that: a tie, and the total is the even one."
    )
    panel.term = RANDOM
    assert repr(panel).startswith("4,096 random numbers from 0 to 1 in FP16, one by one: ")
    assert panel.alt().startswith(headline(panel.view))


def test_each_control_changes_the_picture(panel: StallingSumPanel) -> None:
    seen = [panel.png()]
    for name, value in (("additions", 2048), ("format", "BF16"), ("how", "pairwise"), ("term", "2")):
        control = panel.controls[name]
        control.value = value
        seen.append(panel.png())
        assert control.description
        assert control.tooltip
    assert len(set(seen)) == 5
    assert page_size(seen[-1]) == SIZE


@pytest.mark.parametrize("count", COUNTS)
def test_every_count_can_be_drawn_in_every_way(panel: StallingSumPanel, count: int) -> None:
    panel.additions = count
    ways: tuple[How, ...] = ("fp32", "kahan", "pairwise", "sequential")
    for how in ways:
        panel.how = how
        assert repr(panel).startswith(f"{count:,} times 1 in FP16")
    assert panel.message.value == ""


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("abc", "<code>abc</code> is not a number that can be read; type one such as 1, 0.25, 1e-3 or 2^-10."),
        ("", "There is nothing to read yet; type one such as 1, 0.25, 1e-3 or 2^-10."),
        ("1e400", "<code>1e400</code> is too large: numbers are held in float64, which ends at 1.8e308; type one"),
        ("1/0", "<code>1/0</code> divides by zero; type one such as 1"),
        ("inf", "is not a number that can be added"),
        ("-1", "cannot be drawn; type a number from 1e-9 to 100,000."),
        ("0", "cannot be drawn"),
        ("1e9", "cannot be drawn"),
        ("9e-10", "cannot be drawn"),
        ("100001", "cannot be drawn"),
        ("<b>1</b>", "&lt;b&gt;1&lt;/b&gt;"),
    ],
)
def test_what_is_typed_wrongly_is_told_and_nothing_is_lost(panel: StallingSumPanel, typed: str, message: str) -> None:
    before = (panel.png(), repr(panel), panel.term)
    panel.controls["term"].value = typed
    assert message in panel.message.value
    assert panel.controls["term"].value == typed, "the entry stays, to be corrected"
    assert (panel.png(), repr(panel), panel.term) == before
    panel.controls["term"].value = "2"
    assert panel.message.value == ""
    assert repr(panel).startswith("4,096 times 2 in FP16")


@pytest.mark.parametrize(("typed", "same_as"), [("2^-4", "0.0625"), ("0,5", "0.5"), ("1/4", "0.25"), (" 1e-1 ", "0.1")])
def test_numbers_may_be_typed_in_many_ways(panel: StallingSumPanel, typed: str, same_as: str) -> None:
    panel.controls["term"].value = typed
    after = panel.view.after
    panel.term = same_as
    assert panel.view.after == after
    assert panel.message.value == ""


def test_bad_settings_by_code_are_refused(panel: StallingSumPanel) -> None:
    before = (panel.png(), repr(panel))
    bad: list[tuple[str, Any, type[Exception], str]] = [
        ("term", "one", ValueError, "`one` is not a number that can be read"),
        ("term", 0.0, ValueError, "`0` cannot be drawn; type a number from"),
        ("additions", 100, ValueError, "additions 100 is not in this panel; use one of 16, 32, 64"),
        ("how", "sorted", ValueError, "how 'sorted' is not in this panel; use one of 'sequential', 'fp32'"),
        ("format", FP32, ValueError, "format FP32 is not in this panel; use one of FP16, BF16"),
        ("format", "BF16", TypeError, "write mpkit.BF16"),
    ]
    for name, value, error, match in bad:
        with pytest.raises(error, match=match):
            setattr(panel, name, value)
        assert (panel.png(), repr(panel)) == before
    with pytest.raises(ValueError, match="additions 5 is not in this panel"):
        StallingSumPanel(additions=5)


def test_what_is_typed_wrongly_is_told_below_the_field(panel: StallingSumPanel) -> None:
    children = list(panel.box.children)
    assert panel.controls["term"] in children[0].children
    assert children[1] is panel.message
    assert children[-3:-1] == [panel.picture, panel.words]


@pytest.mark.parametrize("term", ["1e-9", "100000"])
def test_the_limits_themselves_can_be_drawn(panel: StallingSumPanel, term: str) -> None:
    for fmt in (FP16, BF16, E4M3):
        panel.term, panel.format = term, fmt
        assert panel.message.value == ""


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("term", "true"), [("100", "409,600"), ("60000", "245,760,000")])
def test_a_format_without_inf_cuts_the_total_and_says_so(
    panel: StallingSumPanel, how: How, term: str, true: str
) -> None:
    panel.term, panel.format, panel.how = term, E4M3, how
    assert headline(panel.view) == "E4M3 ends at 448 and has no Inf: the total is cut there"
    assert reason(panel.view).startswith("E4M3 ends at 448 and has no Inf: the total is cut there, whatever the way of")
    assert "half" not in reason(panel.view)
    assert reason(panel.view).split()[-1] in (f"{true}.", "2.458e+08.")


@pytest.mark.parametrize(("fmt", "terms", "power"), [(E4M3, "256", "2⁸"), (E5M2, "64", "2⁶")])
def test_kahan_stalls_too_and_does_not_claim_to_keep_what_is_lost(
    panel: StallingSumPanel, fmt: FloatFormat, terms: str, power: str
) -> None:
    panel.format, panel.how = fmt, "kahan"
    assert panel.view.after == float(terms)
    assert f"so it stalls too: at about {power} = {terms} terms" in reason(panel.view)
    assert "is kept" not in reason(panel.view)
    panel.format, panel.term, panel.additions = BF16, "100", 16384
    assert reason(panel.view) == (
        "What an addition loses is kept, but the terms and the second number are rounded to BF16 too."
    ), "1.5 % below, and still growing"


def test_e4m3_stops_at_16(panel: StallingSumPanel) -> None:
    panel.format, panel.additions = E4M3, 256
    assert headline(panel.view) == "E4M3 stops at 16, after 16 of 256 additions"


@pytest.mark.parametrize(
    ("x", "text"),
    [(4096.0, "4,096"), (409.6, "409.6"), (0.001, "0.001"), (0.0004883, "0.0004883"), (1638.4, "1,638.4"),
     (math.inf, "Inf"), (math.nan, "NaN"), (1e9, "1e+09"), (12.288, "12.29")],
)  # fmt: skip
def test_numbers_are_written_as_people_do(x: float, text: str) -> None:
    assert number(x) == text
