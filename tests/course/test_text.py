"""The text: complete, split, and batches that are a function of the step alone, with BERT's shares."""

from __future__ import annotations

from pydoc_data.topics import topics

import pytest
import torch

from mpkit.course.nets.text import IGNORED, TextBatches, text


def test_the_text_is_complete_and_split_in_order() -> None:
    loaded = text()
    whole = "".join(loaded.characters[i] for i in torch.cat([loaded.train, loaded.held_out]).tolist())
    assert whole == "".join(topics[name] for name in sorted(topics))
    assert len(loaded.train) == len(whole) * 9 // 10


def test_the_target_is_the_next_character() -> None:
    inputs, targets = TextBatches(torch.arange(100), 50, 7, 100).batch(3)
    assert inputs.shape == targets.shape == (50, 7)
    assert torch.equal(targets, inputs + 1)


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_depends_on_seed_and_step_alone(masked: bool) -> None:
    data = text().batches(masked=masked, seed=1)
    late = data.batch(9)[0]
    torch.manual_seed(7)
    data.batch(2)
    assert torch.equal(text().batches(masked=masked, seed=1).batch(9)[0], late)
    assert not torch.equal(data.batch(10)[0], late)
    assert not torch.equal(text().batches(masked=masked, seed=2).batch(9)[0], late)


def test_masking_has_the_shares_of_bert() -> None:
    """Devlin et al. 2019: 15 % are predicted; of those 80 % are masked, 10 % replaced, 10 % left."""
    inputs, targets = TextBatches(torch.full((500,), 3), 400, 400, 50, masked=True).batch(0)
    chosen = targets != IGNORED
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.005)
    assert bool((inputs[~chosen] == 3).all())
    assert (inputs[chosen] == 50).float().mean().item() == pytest.approx(0.8, abs=0.015)
    assert (inputs[chosen] == 3).float().mean().item() == pytest.approx(0.1 + 0.1 / 50, abs=0.015)


def test_bad_sizes_are_refused() -> None:
    for size, context in ((0, 5), (2, 0), (2, 10)):
        with pytest.raises(ValueError, match=f"batch_size={size}, context={context} with 10 tokens; use 1 or more"):
            TextBatches(torch.arange(10), size, context, 10)
