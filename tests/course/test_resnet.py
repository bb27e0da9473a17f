"""ResNet-50: the papers' parameter count, shapes counted in another way, and training in mixed precision when small."""

from __future__ import annotations

import torch
from torch import Tensor

from mpkit import DynamicScale, LossScaler, Policy, fit
from mpkit.bench.gpu import resnet50_shapes
from mpkit.course.nets.resnet import ResNet, resnet50


def test_the_parameters_are_those_of_the_paper() -> None:
    model = resnet50()
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    assert sorted(shapes) == sorted(resnet50_shapes())


def test_the_resolution_is_halved_five_times() -> None:
    model = ResNet(10, stages=((4, 1), (8, 1), (8, 2), (8, 1)), stem=8).eval()
    seen: list[tuple[int, ...]] = []
    for block in model.blocks:
        block.register_forward_hook(lambda *a: seen.append(tuple(a[2].shape)))
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 10)
    assert seen == [(2, 16, 16, 16), (2, 32, 8, 8), (2, 32, 4, 4), (2, 32, 4, 4), (2, 32, 2, 2)]


def test_a_small_one_learns_in_mixed_precision() -> None:
    torch.manual_seed(0)
    model = ResNet(4, stages=((4, 1), (8, 1)), stem=8)
    centres = torch.rand(4, 3, 16, 16)

    class Blobs:
        def batch(self, step: int) -> tuple[Tensor, Tensor]:
            draw = torch.Generator().manual_seed(step)
            labels = torch.randint(0, 4, (16,), generator=draw)
            return centres[labels] + 0.1 * torch.randn(16, 3, 16, 16, generator=draw), labels

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    records = list(
        fit(model, Blobs(), optimizer=optimizer, steps=30, policy=Policy.preset("fp16-mixed"),
            scaler=LossScaler(DynamicScale()))
    )  # fmt: skip
    assert records[-1].loss < records[0].loss / 3
