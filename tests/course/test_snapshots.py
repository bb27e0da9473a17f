"""Recorded gradients against plain autograd, and what other formats and scales would have made of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import BF16, E4M3, E5M2, FP16, FP32, FloatFormat, Policy, fit, tally
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP, Autoencoder, SeedsNet
from mpkit.course.runs.snapshots import GradientSnapshots, LayerGradients, cosine, layer_gradients, record_gradients
from mpkit.training.batches import Batches


def optimizer(model: SeedsNet) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=2e-3)


@pytest.fixture(scope="module")
def recording() -> GradientSnapshots:
    torch.set_num_threads(1)
    model = Autoencoder(seeds=[0])
    return record_gradients(model, digits().reconstruction(64), optimizer(model), at=(0, 5, 20))


def plain_copy(model: SeedsNet) -> nn.Sequential:
    """The same weights in torch's own layers."""
    layers: list[nn.Module] = []
    for source in model.linear_layers():
        layer = nn.Linear(*source.weight.shape[1:])
        with torch.no_grad():
            layer.weight.copy_(source.weight[0].T)
            layer.bias.copy_(source.bias[0, 0])
        layers += [layer, nn.Sigmoid()]
    return nn.Sequential(*layers)


def test_gradients_equal_autograd_s_of_a_plain_network(recording: GradientSnapshots) -> None:
    for step in recording.steps:
        snapshot = recording.at(step)
        plain, outputs = plain_copy(snapshot.model), []
        x: Tensor = snapshot.inputs
        for layer in plain:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                x.retain_grad()
                outputs.append(x)
        F.mse_loss(x, snapshot.targets).backward()
        linears = [layer for layer in plain if isinstance(layer, nn.Linear)]
        assert len(snapshot.layers) == len(linears) == 6
        for found, output, layer in zip(snapshot.layers, outputs, linears, strict=True):
            assert output.grad is not None
            assert layer.weight.grad is not None
            assert found.signal.shape == (output.numel(),)
            assert torch.allclose(found.signal, output.grad.flatten(), rtol=1e-4, atol=1e-12)
            assert layer.bias.grad is not None
            expected = torch.cat([layer.weight.grad.T.flatten(), layer.bias.grad])
            assert torch.allclose(found.weight, expected, rtol=1e-4, atol=1e-10)
            assert torch.equal(found.all, torch.cat([found.signal, found.weight]))


def test_snapshots_are_those_of_an_ordinary_run(recording: GradientSnapshots) -> None:
    model, data = Autoencoder(seeds=[0]), digits().reconstruction(64)
    states = {}
    run = fit(model, data, optimizer=optimizer(model), steps=20)
    for step in range(21):
        states[step] = [p.detach().clone() for p in model.parameters()]
        next(run, None)
    assert recording.steps == [0, 5, 20]
    assert recording.names == ("layer 1 (input)", "layer 2", "layer 3", "layer 4", "layer 5", "layer 6 (output)")
    for step in recording.steps:
        snapshot = recording.at(step)
        assert all(torch.equal(p, q) for p, q in zip(snapshot.model.parameters(), states[step], strict=True))
        assert torch.equal(snapshot.inputs, data.batch(step)[0])


def test_a_step_that_was_not_recorded_is_refused(recording: GradientSnapshots) -> None:
    with pytest.raises(ValueError, match="step 7 was not recorded; use one of 0, 5, 20"):
        recording.at(7)
    with pytest.raises(ValueError, match="step 7 was not recorded"):
        recording.what_if(7, FP16, 0)
    with pytest.raises(TypeError, match=r"'fp16' \(str\) came; write mpkit\.FP16"):
        recording.what_if(0, "fp16", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("log2_scale", [0, 7, 16, 34])
@pytest.mark.parametrize("fmt", [FP16, BF16, E4M3, E5M2], ids=str)
def test_counts_are_a_tally_of_the_scaled_gradients(
    recording: GradientSnapshots, fmt: FloatFormat, log2_scale: int
) -> None:
    view = recording.what_if(5, fmt, log2_scale)
    scaled = [layer.all * 2.0**log2_scale for layer in recording.at(5).layers]
    assert view.layers == tuple(tally(x, fmt) for x in scaled)
    assert view.total == tally(torch.cat(scaled), fmt)
    assert (view.step, view.format, view.log2_scale) == (5, fmt, log2_scale)
    by_hand = torch.cat(scaled)
    small = (by_hand.abs() <= fmt.flush_at) & (by_hand != 0)
    assert view.total.flushed_count == int(small.sum())


@pytest.mark.parametrize("fmt", [FP16, E4M3, E5M2], ids=str)
def test_flushed_never_grows_with_the_scale_and_overflow_never_shrinks(
    recording: GradientSnapshots, fmt: FloatFormat
) -> None:
    """A scale of 2^k only shifts a histogram."""
    views = [recording.what_if(20, fmt, k).total for k in range(0, 37, 3)]
    flushed = [v.flushed_count for v in views]
    overflowed = [v.overflowed_count for v in views]
    assert flushed == sorted(flushed, reverse=True)
    assert overflowed == sorted(overflowed)
    assert flushed[0] > 0 == flushed[-1]
    assert overflowed[0] == 0 < overflowed[-1]


def test_cosines_are_those_of_a_backward_pass_in_the_format(recording: GradientSnapshots) -> None:
    snapshot = recording.at(20)
    view = recording.what_if(20, FP16, 4)
    lower = layer_gradients(snapshot.model, snapshot.inputs, snapshot.targets, Policy(FP32, FP16, FP16), 2.0**4)
    for value, exact, found in zip(view.cosines, snapshot.layers, lower, strict=True):
        expected = F.cosine_similarity(exact.weight.double(), found.weight.double(), dim=0)
        assert value == pytest.approx(expected.item(), abs=1e-12)
    whole = F.cosine_similarity(
        *(torch.cat([g.weight for g in side]).double() for side in (snapshot.layers, lower)), dim=0
    )
    assert view.cosine == pytest.approx(whole.item(), abs=1e-12)


def test_cosines_recover_with_the_scale_and_vanish_at_both_ends(recording: GradientSnapshots) -> None:
    low, good, high = (recording.what_if(20, FP16, k) for k in (0, 14, 36))
    assert low.cosines[0] is not None
    assert low.cosines[0] < 0.9
    assert recording.what_if(20, E4M3, 0).cosines[0] is None, "every weight gradient of the first layer became zero"
    assert all(value is not None and value > 0.999 for value in good.cosines)
    assert high.cosines[-1] is None
    assert high.cosine is None
    fp32 = recording.what_if(20, FP32, 0)
    assert all(value == pytest.approx(1.0) for value in fp32.cosines)


def test_a_cosine_needs_two_directions() -> None:
    a = torch.tensor([3.0, 4.0])
    assert cosine(a, 7 * a) == pytest.approx(1.0)
    assert cosine(a, -a) == pytest.approx(-1.0)
    assert cosine(a, torch.tensor([4.0, -3.0])) == 0.0
    assert cosine(a, torch.tensor([1e-30, 0.0])) == pytest.approx(0.6), "in float64, so nothing underflows on the way"
    for nothing in ([0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0], [float("-inf"), 0.0]):
        assert cosine(a, torch.tensor(nothing)) is None
    assert cosine(torch.zeros(2), a) is None
    x = torch.randn(1000)
    value = cosine(x, x * (1 + 1e-7))
    assert value is not None
    assert value <= 1.0


def test_gradients_come_back_unscaled() -> None:
    model = MLP(seeds=[0])
    inputs, labels = digits().classification().batch(0)
    once = layer_gradients(model, inputs, labels, Policy())
    scaled = layer_gradients(model, inputs, labels, Policy(), 2.0**12)
    for a, b in zip(once, scaled, strict=True):
        assert torch.equal(a.signal, b.signal)
        assert torch.equal(a.weight, b.weight)
    assert all(p.grad is None for p in model.parameters())


def test_hooks_are_removed_even_after_an_error() -> None:
    model = MLP(seeds=[0])
    with pytest.raises(RuntimeError):
        layer_gradients(model, torch.zeros(4, 63), torch.zeros(4, dtype=torch.int64), Policy())
    assert not any(layer._forward_hooks for layer in model.linear_layers())


def test_what_cannot_be_recorded_is_refused() -> None:
    data = Batches(torch.rand(8, 64), torch.rand(8, 64), 4)
    for seeds, at in (([0, 1], (0,)), ([0], ())):
        model = Autoencoder(seeds=seeds)
        match = f"one seed and at least one step are asked for; {len(seeds)} seeds and {len(at)} came"
        with pytest.raises(ValueError, match=match):
            record_gradients(model, data, optimizer(model), at=at)


def test_a_single_layer_is_input_first() -> None:
    model = Autoencoder(seeds=[0], sizes=(4, 4, 4))
    data = Batches(torch.rand(8, 4), torch.rand(8, 4), 4)
    found = record_gradients(model, data, optimizer(model), at=[1])
    assert found.names == ("layer 1 (input)", "layer 2 (output)")
    assert found.steps == [1]
    assert isinstance(found.at(1).layers[0], LayerGradients)
