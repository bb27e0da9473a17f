"""What lesson 09 says of its exercises and recipes, by another way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mpkit import E2M1, E4M3, Policy
from mpkit.course.lesson_09.exercises import CASES, SHARING
from mpkit.course.lesson_09.recipes import Classifier, deployed, held_out, integers_on_fp16, one_scale, with_fp8
from mpkit.scaled import INT8, ScaledFormat, scaled_cast

SIZE = 1024
BLOCKS = dict(zip(SHARING, ((None, None), (1, None), (None, 1), (1, 32)), strict=True))


def matrices() -> dict[str, tuple[Tensor, object]]:
    """The four cases of exercise 09.1, and what they are rounded to."""
    x = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    column, row = x.clone(), x.clone()
    column[:, 5] *= 1000
    row[5] *= 1000
    fall = 1000 ** -(torch.arange(SIZE) / SIZE)
    return {"A": (column, INT8), "B": (column, E4M3), "C": (row, INT8), "D": (fall[:, None] * fall, E2M1)}


@pytest.mark.parametrize("case", CASES)
def test_the_right_sharing_is_the_one_with_the_fewest_scales_that_loses_nothing(case: str) -> None:
    x, values = matrices()[case]
    fits = []
    for sharing, (high, wide) in BLOCKS.items():
        back = scaled_cast(x, ScaledFormat(sharing, values, (high, wide)))  # type: ignore[arg-type]
        if float(((back == 0) & (x != 0)).double().mean()) < 0.1:
            fits.append(((SIZE // (high or SIZE)) * (SIZE // (wide or SIZE)), sharing))
    assert min(fits)[1] == CASES[case][0]


@pytest.mark.parametrize("policy", [integers_on_fp16(8), one_scale()])
def test_a_classifier_learns_under_the_lessons_own_policies(policy: Policy) -> None:
    net, x = Classifier(0), torch.rand(32, 64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(32) % 10
    before = held_out(net, x, labels)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        with policy.apply(net):
            net.loss(net(x), labels).backward()
        optimizer.step()
    assert held_out(net, x, labels) < before - 0.02


def test_deployed_is_what_rounded_layers_answer() -> None:
    net, x = Classifier(3), torch.rand(50, 64, generator=torch.Generator().manual_seed(2))
    labels = net(x).argmax(-1)
    assert deployed(net, x, labels, 8) > 85
    assert deployed(net, x, labels, 2) < deployed(net, x, labels, 8)


def test_a_cpu_multiplies_in_fp8_itself() -> None:
    assert with_fp8("cpu") == torch.device("cpu")
