"""Checks and quiz of lesson 08: attention that does not overflow, a sum that keeps its terms, six failures."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mpkit import BF16, Policy
from mpkit.course.exercises.checker import Feedback, checker, passed, require, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.course.lesson_08.failures import CASES, CAUSES

PLACES, SIZE = 32, 64
MEDIUM = 12.0  # q k^T reaches 5,000 there, and scores 600: far too much for exp
LARGE = 90.0  # q k^T reaches 270,000 there, and an eighth of that after dividing
# The right answers are at most 1.9 % off at MEDIUM. At LARGE a query may have two best keys that FP16 cannot tell
# apart: the solution has one query that is 76 % off, and all others below 0.1 %.
OFF, MAY_BE_OFF = 0.1, {MEDIUM: 0, LARGE: 2}


class _Layer(nn.Module):
    """A module around the learner's function, for policies are applied to modules."""

    def __init__(self, attend: Any) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Any:
        return self.attend(query, key, value)


def _normal(draw: torch.Generator, *shape: int) -> Tensor:
    """Normal random numbers, drawn on the CPU, where this check makes its tensors."""
    return torch.randn(*shape, generator=draw, device="cpu").to(torch.get_default_device())


@checker("08.1", wants="function")
def attention_that_survives(answer: Any) -> Feedback:
    """The same attention, with nothing larger than needed on the way."""
    draw = torch.Generator().manual_seed(8)
    query, key, value = _normal(draw, 3, 2, PLACES, SIZE).unbind(0)
    for spread in (0.5, 1.0):
        exact = torch.softmax(spread**2 * query @ key.mT / math.sqrt(SIZE), -1) @ value
        given = answer(spread * query, spread * key, value)
        require(isinstance(given, Tensor), "The function should return one tensor: what each query has found.")
        shape = f"Values of shape {tuple(value.shape)} came, your result has {tuple(given.shape)}."
        require(given.shape == value.shape, f"{shape} Each query finds one value.")
        if not torch.allclose(given, exact, atol=1e-4):
            plain = torch.softmax(spread**2 * query @ key.mT, -1) @ value
            same = torch.allclose(given, plain, atol=1e-4)
            require(not same, "In FP32 the result is another one now: the root of d no longer has any effect.")
            return wrong("In FP32, with small numbers, the result is another one now. It must stay the same attention.")
    for spread, why in ((MEDIUM, "though every score fits into FP16"), (LARGE, "though no divided score overflows")):
        layer = _Layer(answer)
        with torch.no_grad(), Policy.preset("fp16-mixed").apply(layer):
            low = layer(spread * query, spread * key, value)
        exact = torch.softmax((spread * query).double() @ (spread * key).double().mT / math.sqrt(SIZE), -1)
        _require_close(low.double(), exact @ value.double(), spread, why)
    return passed("Nothing larger than the scores themselves is stored.")


def _require_close(low: Tensor, exact: Tensor, spread: float, why: str) -> None:
    """Wrong, unless what FP16 has found for each query is no NaN, no zero, and close to `exact`."""
    lead, every = f"In FP16, with a spread of {spread:.0f}:", 2 * PLACES
    lost = int(low.isnan().any(-1).sum())
    require(lost == 0, f"{lead} {lost} of {every} queries are lost, {why}.")
    empty = int((low == 0).all(-1).sum())
    require(
        empty == 0, f"{lead} {empty} of {every} queries find nothing, their result is 0, {why}. A zero in place of a "
        "NaN hides that a query is lost, and does not bring back what it looked for."
    )  # fmt: skip
    off = int(((low - exact).norm(dim=-1) > OFF * exact.norm(dim=-1)).sum())
    require(
        off <= MAY_BE_OFF[spread], f"{lead} {off} of {every} results are no NaN, but more than {OFF:.0%} off the exact "
        f"ones, {why}. Large scores that are cut become equal, and the query cannot tell its best key any more."
    )  # fmt: skip


@checker("08.2", wants="function")
def a_sum_that_keeps_its_terms(answer: Any) -> Feedback:
    """The mean of many BF16 gradients, to within two roundings."""
    for count in (2, 1000):
        draw = torch.Generator().manual_seed(count)
        terms = [(1 + 0.3 * _normal(draw, 200)).bfloat16() for _ in range(count)]
        exact = torch.stack(terms).double().mean(0)
        given = answer([term.clone() for term in terms])
        require(isinstance(given, Tensor), "The function should return one tensor: the mean.")
        require(
            given.shape == exact.shape, f"The mean of tensors of shape (200,) has that shape, not {tuple(given.shape)}."
        )
        off = float(((given.double() - exact).abs() / exact.abs()).max())
        lead = f"Mean of {count} gradients: off by up to {off:.1%}."
        if count == 2 and off > 0.1:
            return wrong(f"{lead} Two terms are no reason for that: is it their mean?")
        require(off <= BF16.epsilon, f"{lead} Two roundings of BF16 are 0.8 %. Where do the terms get lost?")
        came = str(given.dtype).removeprefix("torch.")
        require(given.dtype == torch.bfloat16, f"The mean is right, but {came} came back, and bfloat16 was asked for.")
    return passed("No term is lost: off by two roundings of BF16 at most.")


@checker("08.3")
def six_failures(answer: Any) -> Feedback:
    """Match six failures with their cause."""
    done = "Each cause has its cure: divide first, unscale first, scale the loss, sum in FP32."
    return matching(answer, CASES, CAUSES, each="case", choice="cause", passes=done)


QUIZ = (
    Item(
        question="A head has d = 64. Queries and keys double in size. How much larger is the stored product?",
        options=("2 times", "4 times", "8 times"),
        right=1,
        feedback=(
            "Both factors of each product have doubled.",
            "Yes. A score grows with the square, so its growth surprises.",
            "That would be so if d had grown as well.",
        ),
    ),
    Item(
        question="Why does fused attention in FP16 survive scores of 100,000?",
        options=("It uses BF16 inside", "It clips the scores", "It keeps the scores in FP32 and never stores them"),
        right=2,
        feedback=(
            "Its inputs stay FP16. The scores are another matter.",
            "Then the result would be another one.",
            "Yes. They live in the kernel's registers, in FP32.",
        ),
    ),
    Item(
        question=(
            "Runs of 40 steps clip before they unscale, at this lesson's learning rate, with Adam and its usual ε of "
            "1e-8. Which loses most, if only the relation of ε to the gradients counts?"
        ),
        options=(
            "The one with 100 thousand parameters",
            "The one with 7 billion",
            "All alike: Adam divides the size out",
        ),
        right=1,
        feedback=(
            "A clipped gradient has length 1. Shared among few parameters, each one's part is well above ε.",
            "Yes. Its length is shared among many: each one's part is far below ε, and Adam divides by ε instead.",
            "It divides by size + ε. How large is the size here?",
        ),
    ),
)
