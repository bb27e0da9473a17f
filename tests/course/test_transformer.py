"""The transformer: what it may see, where its loss starts, and that emulation reaches all of its products."""

from __future__ import annotations

import math

import pytest
import torch
from oracles.reference_models import SCALE, distance
from torch import Tensor

from mpkit import Policy, fit
from mpkit.course.nets.transformer import IGNORED, Transformer


def tokens(batch: int = 4, context: int = 16) -> Tensor:
    return torch.randint(0, 30, (batch, context), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_place_sees_only_what_came_before(causal: bool) -> None:
    model, first = Transformer(30, causal=causal), tokens()
    second = first.clone()
    second[:, 9] = (first[:, 9] + 1) % 30
    with torch.no_grad():
        changed = (model(first) != model(second)).any(dim=2).any(dim=0)
    assert bool(changed[9:].all())
    assert bool(changed[:9].any()) is not causal


def test_the_first_loss_is_that_of_guessing() -> None:
    for seed in range(5):
        model = Transformer(30, seed=seed)
        assert model.loss(model(tokens()), tokens()).item() == pytest.approx(math.log(30), rel=0.03)
    assert not torch.equal(Transformer(30, seed=0).head.weight, Transformer(30, seed=1).head.weight)
    assert torch.equal(Transformer(30, seed=1).head.weight, Transformer(30, seed=1).head.weight)


def test_ignored_places_count_for_nothing() -> None:
    model, targets = Transformer(30), tokens()
    logits = model(tokens())
    some = targets.clone()
    some[:, ::2] = IGNORED
    by_hand = -logits.log_softmax(-1).gather(2, targets[..., None])[:, 1::2].mean()
    assert float(model.loss(logits, some)) == pytest.approx(float(by_hand))


def test_it_learns_to_copy_the_token_before() -> None:
    class Copies:
        def batch(self, step: int) -> tuple[Tensor, Tensor]:
            draw = torch.randint(0, 8, (16, 12), generator=torch.Generator().manual_seed(step))
            return draw, draw.roll(1, 1).index_fill(1, torch.tensor([0]), IGNORED)

    model = Transformer(8, width=32, layers=1, heads=2, context=12)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    records = list(fit(model, Copies(), optimizer=optimizer, steps=150, policy=Policy.preset("fp16-mixed")))
    assert records[-1].loss < 0.1


def test_emulated_gradients_are_nearer_to_autocast_than_fp32_is() -> None:
    def gradients(context: object) -> Tensor:
        model = Transformer(30, seed=2)
        with context:  # type: ignore[attr-defined]
            loss = model.loss(model(tokens()).float(), tokens())
        (SCALE * loss).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / SCALE

    native = gradients(torch.autocast("cpu", dtype=torch.bfloat16))
    emulated = gradients(Policy.preset("bf16-mixed").apply(Transformer(30)))
    assert distance(emulated, native) < distance(gradients(Policy().apply(Transformer(30))), native)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="width 30 is no multiple of heads 4; use, for example, 28"):
        Transformer(30, width=30)
    with pytest.raises(ValueError, match="a sequence of 65 tokens came, but the model knows 64 places; cut it"):
        Transformer(30)(tokens(1, 65))
