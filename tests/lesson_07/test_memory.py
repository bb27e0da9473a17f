"""The memory of a step: what autocast keeps, against counts by hand and against what autograd and torch really hold."""

from __future__ import annotations

import pytest
import torch

from mpkit.course.lesson_07.memory import ledger, owned, peak_bytes, saved_bytes
from mpkit.course.lesson_07.memory_ledger_picture import headline

WIDTH, LAYERS, BATCH = 64, 8, 36
PARAMETERS = LAYERS * WIDTH**2


def perceptron() -> torch.nn.Sequential:
    layers = (torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))
    return torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.ReLU())))


def test_autocast_keeps_a_16_bit_copy_of_each_weight_whose_product_needs_it_again() -> None:
    net = perceptron()
    x = torch.rand(BATCH, WIDTH, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = saved_bytes(lambda: net(x), [*net.parameters(), x])
    # All weights, and the values between the layers: input and eight outputs of ReLU.
    assert kept == 2 * PARAMETERS + 2 * (LAYERS + 1) * BATCH * WIDTH


@pytest.mark.parametrize(("activations", "more"), [(0.5, 19 / 18), (1, 1), (8, 34 / 48)])
def test_below_one_activation_a_parameter_autocast_keeps_more(activations: float, more: float) -> None:
    each = [sum(ledger(1, activations, way, "Adam").values()) for way in ("autocast", "FP32")]
    assert each[0] / each[1] == pytest.approx(more)


def test_the_headline_says_which_of_them_keeps_more() -> None:
    def said(activations: float) -> str:
        return headline({way: ledger(1, activations, way, "Adam") for way in ("FP32", "autocast")})

    assert said(0.5) == "Autocast keeps 6% more than FP32; its 16-bit copies of the weights are 11% of that"
    assert said(1).startswith("Autocast keeps as much as FP32;")
    assert said(8).startswith("Autocast keeps 29% less than FP32;")
    assert said(200).endswith("copies of the weights are less than 1% of that")


def test_the_peak_counted_by_hand() -> None:
    x = torch.rand(100)

    def step() -> None:
        y = x + 1
        y = y * 2  # the sum is still there, beside the product
        del y
        x.exp()

    assert peak_bytes(step, [x]) == 3 * 400
    assert peak_bytes(lambda: x.add_(1), [x]) == 400
    assert peak_bytes(lambda: x[:50], [x, x.view(10, 10)]) == 400


def peak(rows: int, autocast: bool, keep: bool) -> float:
    """The peak of a step with Adam, in bytes a parameter."""
    net, x = perceptron(), torch.rand(rows, WIDTH)
    adam = torch.optim.Adam(net.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = net(x)
        out.float().pow(2).mean().backward()
        adam.step()
        adam.zero_grad(set_to_none=not keep)

    step()
    return peak_bytes(step, owned(adam)) / PARAMETERS


def test_a_step_that_frees_its_gradients_first_has_no_larger_peak_under_autocast_with_few_rows() -> None:
    assert peak(BATCH, True, keep=False) < 1.02 * peak(BATCH, False, keep=False)
    assert peak(BATCH, True, keep=True) > 1.03 * peak(BATCH, False, keep=True)
    assert peak(56, True, keep=False) > 1.03 * peak(56, False, keep=False), "0.98 values a parameter"
