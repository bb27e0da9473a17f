"""Verdicts on the article's claims: they hold only if all of their evidence does."""

from __future__ import annotations

import pytest

from mpkit.course.exercises import verdict
from mpkit.course.exercises.verdict import ARTICLE
from mpkit.course.markup import ACCENT


def test_a_verdict_holds_only_if_all_of_its_evidence_does() -> None:
    held = verdict("C05", "it helps", {"a < b": True, "five seeds agree": True}, article="holds")
    assert held.holds
    assert repr(held) == "C05: it helps\n  ✓ a < b\n  ✓ five seeds agree"
    open_ = verdict("C05", "it helps", {"a < b": True, "five seeds agree": False}, article="holds")
    assert not open_.holds
    assert repr(open_) == "C05: this run does not decide it\n  ✓ a < b\n  ✗ five seeds agree"
    assert "it helps" not in open_._repr_html_()


def test_a_control_that_passes_leaves_the_claim_open() -> None:
    held = verdict("C08", "equal", {"FP16: within a point": True}, {"E4M3": True}, article="holds")
    assert held.holds
    assert repr(held).endswith("✓ FP16: within a point\n  Here the same tests must say no:\n    E4M3? No.")
    assert "✓ E4M3" not in held._repr_html_()
    blind = verdict("C08", "equal", {"FP16: within a point": True}, {"E4M3": False}, article="holds")
    assert not blind.holds
    assert repr(blind).startswith("C08: this run does not decide it")
    assert repr(blind).endswith("must say no:\n    E4M3? ✗ Yes: so this test shows nothing.")


def test_a_verdict_without_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a verdict on C05 needs evidence: pass what was measured"):
        verdict("C05", "it helps", {}, article="holds")


def test_a_verdict_is_escaped_html() -> None:
    shown = verdict("C<5>", "x < y & z", {"<script>alert(1)</script>": True}, article="holds")._repr_html_()
    assert "<script>" not in shown
    assert "C&lt;5&gt;: x &lt; y &amp; z" in shown
    assert "✓ &lt;script&gt;" in shown


def test_evidence_may_come_as_torch_or_numpy_bools() -> None:
    import numpy as np
    import torch

    assert verdict("C05", "it helps", {"a": np.True_, "b": torch.tensor(True)}, article="holds").holds  # type: ignore[dict-item]
    assert not verdict("C05", "it helps", {"a": np.False_}, article="holds").holds  # type: ignore[dict-item]


@pytest.mark.parametrize("found", ["no", 0.3, float("nan"), 1, None])
def test_evidence_is_true_or_false(found: object) -> None:
    for rows in ({"evidence": {"a": found}}, {"evidence": {"a": True}, "controls": {"a": found}}):
        with pytest.raises(TypeError, match=r"a verdict on C05 needs True or False, but .* came for: a"):
            verdict("C05", "it helps", **rows, article="holds")  # type: ignore[arg-type]


def test_the_card_has_the_colour_of_what_is_said_of_the_article() -> None:
    """Not that of the ticks: that the article is wrong may be shown as well as that it is right."""
    shown = {how: verdict("C14", "so", {"a": True}, article=how)._repr_html_() for how in ARTICLE}
    assert all(ACCENT[accent] in shown[how] for how, accent in ARTICLE.items())
    assert all(f"(the article&#x27;s claim {how})" in html or f"(the article's claim {how})" in html
               for how, html in shown.items())  # fmt: skip
    for how in ARTICLE:
        open_ = verdict("C14", "so", {"a": False}, article=how)._repr_html_()
        assert ACCENT["plain"] in open_
        assert "(open)" in open_


def test_a_claim_comes_off_in_one_of_three_ways() -> None:
    with pytest.raises(ValueError, match=r"a verdict on C05 needs article= one of 'holds', .*, not 'true'\."):
        verdict("C05", "it helps", {"a": True}, article="true")
