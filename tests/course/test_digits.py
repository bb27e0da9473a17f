"""The digits and the batches: fixed, disjoint, complete, and a function of the step alone."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from mpkit.course.nets.digits import Digits, digits
from mpkit.training.batches import Batches


@pytest.fixture(scope="module")
def loaded() -> Digits:
    return digits()


def test_sizes_dtypes_and_pixel_range(loaded: Digits) -> None:
    assert loaded.train_images.shape == (1347, 64)
    assert loaded.test_images.shape == (450, 64)
    assert (loaded.train_labels.shape, loaded.test_labels.shape) == ((1347,), (450,))
    for images in (loaded.train_images, loaded.test_images):
        assert images.dtype == torch.float32
        assert (images.min().item(), images.max().item()) == (0.0, 1.0)
        assert torch.equal(images * 16, (images * 16).round()), "sixteen grey levels, exactly"
    assert loaded.train_labels.dtype == torch.int64
    assert set(loaded.train_labels.tolist()) == set(loaded.test_labels.tolist()) == set(range(10))


def test_the_split_is_fixed_disjoint_and_complete(loaded: Digits) -> None:
    """Against scikit-learn's own arrays; the split is torch.randperm's with seed 0."""
    bunch = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    images, labels = torch.tensor(bunch.data / 16).float()[order], torch.tensor(bunch.target)[order]
    assert torch.equal(torch.cat([loaded.train_images, loaded.test_images]), images)
    assert torch.equal(torch.cat([loaded.train_labels, loaded.test_labels]), labels)
    torch.manual_seed(99)
    assert torch.equal(digits().train_images, loaded.train_images), "the global seed does not matter"


def test_classification_and_reconstruction(loaded: Digits) -> None:
    images, labels = loaded.classification().batch(0)
    assert (images.shape, labels.shape) == ((64, 64), (64,))
    inputs, targets = loaded.reconstruction().batch(3)
    assert inputs.shape == (256, 64)
    assert torch.equal(inputs, targets)
    assert loaded.classification(batch_size=7, seed=2).batch(0)[0].shape == (7, 64)
    assert not torch.equal(loaded.classification(seed=1).batch(0)[0], images)
    assert not torch.equal(loaded.reconstruction(64, 1).batch(0)[0], loaded.reconstruction(64).batch(0)[0])


def test_missing_scikit_learn_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("No module named 'sklearn'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ModuleNotFoundError, match=r"the digits come with scikit-learn, .* run: pip install scikit-learn"
    ):
        digits()


def numbered(samples: int = 23, batch_size: int = 5, seed: int = 0) -> Batches:
    """Inputs and targets that say which sample they are."""
    return Batches(torch.arange(samples).float()[:, None], torch.arange(samples), batch_size, seed)


def epoch(data: Batches, number: int) -> Tensor:
    per_epoch = len(data.inputs) // data.batch_size
    return torch.cat([data.batch(number * per_epoch + k)[1] for k in range(per_epoch)])


def test_an_epoch_has_no_sample_twice_and_the_rest_is_left_out() -> None:
    for number in range(4):
        seen = epoch(numbered(), number)
        assert len(seen) == 20
        assert len(set(seen.tolist())) == 20
    assert sorted(epoch(numbered(20), 1).tolist()) == list(range(20)), "all of them, if the size divides"
    seen_over_time = torch.cat([epoch(numbered(), number) for number in range(6)])
    assert set(seen_over_time.tolist()) == set(range(23)), "another rest is left out each time"


def test_inputs_and_targets_stay_together() -> None:
    inputs, targets = numbered().batch(17)
    assert inputs.shape == (5, 1)
    assert torch.equal(inputs[:, 0], targets.float())


def test_a_batch_depends_on_its_step_alone() -> None:
    first, again = numbered(), numbered()
    torch.manual_seed(5)
    forwards = [first.batch(step)[1] for step in range(12)]
    state = torch.get_rng_state()
    backwards = [again.batch(step)[1] for step in reversed(range(12))]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not touched"


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    assert not torch.equal(epoch(numbered(), 0), epoch(numbered(), 1))
    assert not torch.equal(epoch(numbered(), 0), epoch(numbered(seed=1), 0))
    assert torch.equal(epoch(numbered(), 1), epoch(numbered(seed=1), 0)), "epoch e of seed s is drawn with s + e"
    assert epoch(numbered(), 0).tolist() != sorted(epoch(numbered(), 0).tolist())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="3 inputs came with 2 targets; give one target each"):
        Batches(torch.zeros(3, 1), torch.zeros(2), 1)
    for size in (0, -1, 4):
        with pytest.raises(ValueError, match=f"batch_size={size} with 3 samples; use a number between 1 and that"):
            Batches(torch.zeros(3, 1), torch.zeros(3), size)
    assert Batches(torch.zeros(3, 1), torch.zeros(3), 3).batch(4)[0].shape == (3, 1)
