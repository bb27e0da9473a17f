"""Models that train several seeds at once: shapes, initial weights, and losses against torch's own."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mpkit.course.nets.models import MLP, Autoencoder, SeedsLinear, SeedsNet


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_shapes_with_and_without_a_seed_axis() -> None:
    layer = SeedsLinear(3, 4, seeds=(0, 1))
    x = torch.randn(5, 3)
    assert layer(x).shape == (2, 5, 4)
    assert torch.equal(layer(x), layer(x.expand(2, 5, 3)))
    assert MLP(seeds=range(3))(torch.randn(7, 64)).shape == (3, 7, 10)
    assert Autoencoder(seeds=range(3))(torch.randn(7, 64)).shape == (3, 7, 64)


def test_each_seed_computes_an_ordinary_linear_layer() -> None:
    layer = SeedsLinear(6, 4, seeds=(0, 5, 9))
    x = torch.randn(3, 8, 6)
    out = layer(x)
    for seed in range(3):
        assert torch.allclose(out[seed], F.linear(x[seed], layer.weight[seed].T, layer.bias[seed, 0]), atol=1e-6)


@pytest.mark.parametrize(("fan_in", "fan_out"), [(64, 128), (16, 10), (1000, 2)])
def test_initial_weights_fill_their_bounds(fan_in: int, fan_out: int) -> None:
    """nn.Linear draws from ± 1/√fan_in; Glorot and Bengio (2010), equation 16: ± √(6 / (fan_in + fan_out))."""
    for init, bound in (("torch", fan_in**-0.5), ("xavier", (6 / (fan_in + fan_out)) ** 0.5)):
        layer = SeedsLinear(fan_in, fan_out, seeds=range(5), init=init)
        assert layer.weight.abs().max().item() <= bound
        assert layer.weight.abs().max().item() > 0.97 * bound
        assert abs(layer.weight.mean().item()) < 0.05 * bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert torch.equal(layer.bias, torch.zeros(5, 1, fan_out))
    bias = SeedsLinear(fan_in, fan_out, seeds=range(5)).bias
    assert 0.5 * fan_in**-0.5 < bias.abs().max().item() <= fan_in**-0.5


def test_parameter_counts_by_hand() -> None:
    assert parameters(SeedsLinear(3, 4, seeds=(0,))) == 16
    assert parameters(MLP()) == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    sizes = (64, 64, 32, 16, 32, 64, 64)
    assert parameters(Autoencoder()) == sum(a * b + b for a, b in pairwise(sizes))
    assert parameters(MLP(seeds=range(5))) == 5 * parameters(MLP())


def test_a_seed_s_weights_do_not_depend_on_its_neighbours() -> None:
    alone, among, shuffled = MLP(seeds=[3]), MLP(seeds=range(5)), MLP(seeds=[4, 3])
    torch.manual_seed(99)
    for a, b, c, again in zip(*(m.parameters() for m in (alone, among, shuffled, MLP(seeds=[3]))), strict=True):
        assert torch.equal(a[0], b[3])
        assert torch.equal(a[0], c[1])
        assert torch.equal(a, again)


def test_seeds_and_layers_have_weights_of_their_own() -> None:
    model = Autoencoder(seeds=range(5), sizes=(16, 16, 16))
    starts = [layer.weight[seed].flatten() for layer in model.linear_layers() for seed in range(5)]
    for i, a in enumerate(starts):
        for b in starts[:i]:
            assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1].item()) < 0.3


def test_layers_and_activations_come_in_order() -> None:
    kinds = [type(layer).__name__ for layer in MLP()]
    assert kinds == ["SeedsLinear", "ReLU", "SeedsLinear", "ReLU", "SeedsLinear"], "no activation after the logits"
    assert [type(layer).__name__ for layer in Autoencoder()] == ["SeedsLinear", "Sigmoid"] * 6
    assert [layer.weight.shape[1:] for layer in MLP().linear_layers()] == [(64, 128), (128, 64), (64, 10)]
    assert [type(m).__name__ for m in MLP(sizes=(4, 3, 2), activation=nn.Tanh)][1] == "Tanh"
    assert MLP(seeds=(7, 8)).seeds == [7, 8]


def test_the_classifier_s_loss_is_cross_entropy_of_each_seed() -> None:
    model = MLP(seeds=range(4))
    images, labels = torch.rand(9, 64), torch.randint(0, 10, (9,))
    logits = model(images)
    loss = model.loss(logits, labels)
    assert loss.shape == (4,)
    for seed in range(4):
        assert loss[seed].item() == pytest.approx(F.cross_entropy(logits[seed], labels).item(), rel=1e-6)


def test_the_autoencoder_s_loss_is_the_mean_squared_error_of_each_seed() -> None:
    model = Autoencoder(seeds=range(4))
    images = torch.rand(9, 64)
    out = model(images)
    loss = model.loss(out, images)
    assert loss.shape == (4,)
    for seed in range(4):
        assert loss[seed].item() == pytest.approx(F.mse_loss(out[seed], images).item(), rel=1e-6)
    assert torch.equal(model.error(images), loss.detach())
    assert not model.error(images).requires_grad


def test_accuracy_counts_right_answers() -> None:
    model = MLP(seeds=(0, 1), sizes=(10, 10))
    with torch.no_grad():
        model[0].bias.zero_()
        model[0].weight[0] = torch.eye(10)
        model[0].weight[1] = -torch.eye(10)
    images, labels = torch.eye(10)[[0, 3, 5, 7]], torch.tensor([0, 3, 5, 8])
    assert model.accuracy(images, labels).tolist() == [0.75, 0.0]
    assert not model.accuracy(images, labels).requires_grad


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match='init=\'kaiming\' is unknown; use "torch" or "xavier"'):
        SeedsLinear(2, 2, seeds=(0,), init="kaiming")
    with pytest.raises(ValueError, match=r"no seeds came; give at least one, such as seeds=range\(5\)"):
        MLP(seeds=[])
    bare = SeedsNet((2, 2), (0,), nn.ReLU, "torch", last=False)
    with pytest.raises(NotImplementedError, match="SeedsNet defines no loss"):
        bare.loss(torch.zeros(1), torch.zeros(1))
