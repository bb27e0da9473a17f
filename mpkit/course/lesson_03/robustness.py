"""How far lesson 03 reaches: BF16 weights at other learning rates, with other optimizers, and for more steps."""

from collections.abc import Callable, Iterable
from functools import cache, partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from mpkit import BF16, Policy, cast
from mpkit.course.nets.digits import Digits, digits
from mpkit.course.nets.models import MLP, SeedsNet
from mpkit.course.robustness import Sweep
from mpkit.course.runs.experiments import Variant, compare
from mpkit.optim import Kahan, MasterWeights, Rounded

SEEDS = range(5, 15)  # the notebook shows 0 to 4; the settings were tried out with 20 to 24
STEPS = 1000
MakeOptimizer = Callable[[Iterable[Tensor]], Optimizer]
CURES: dict[str, Callable[[Optimizer], Optimizer]] = {
    "stochastic": lambda optimizer: Rounded(optimizer, BF16, "stochastic"),
    "Kahan": lambda optimizer: Kahan(optimizer, BF16),
    "FP32 master": lambda optimizer: MasterWeights(optimizer, BF16),
}
MASTER, COUNT, WAY = "FP32 master", "updates lost, %", "way lost, %"


@cache
def images() -> Digits:
    """The digits, read once."""
    return digits()


def points(net: SeedsNet) -> Tensor:
    """Accuracy on the test images in percent, (seeds,)."""
    assert isinstance(net, MLP)
    return 100 * net.accuracy(images().test_images, images().test_labels)


def flat(net: SeedsNet) -> Tensor:
    """A copy of all weights, (seeds, weights)."""
    return torch.cat([p.detach().flatten(1) for p in net.parameters()], dim=1)


def nearest(make: MakeOptimizer, steps: int) -> dict[str, list[float]]:
    """Train with BF16 weights, rounded to nearest, and count what does not arrive.

    An update is what the optimizer adds in FP32. It is lost if the stored weight is the same after it. The way is the
    sum of the updates' sizes over all weights and steps; the way lost is the lost ones' part of it.
    """
    net, data = MLP(SEEDS), images().classification()
    optimizer = make(net.parameters())
    updates, lost, way, way_lost = torch.zeros(4, len(SEEDS), dtype=torch.float64)
    _store(net)
    for step in range(steps):
        inputs, labels = data.batch(step)
        optimizer.zero_grad()
        torch.autograd.backward(net.loss(net(inputs), labels).sum())
        before = flat(net)
        optimizer.step()
        size = (flat(net) - before).abs()
        _store(net)
        gone = (flat(net) == before) & (size > 0)
        updates += (size > 0).sum(1)
        lost += gone.sum(1)
        way += size.sum(1)
        way_lost += (size * gone).sum(1)
    shares = {COUNT: 100 * lost / updates, WAY: 100 * way_lost / way}
    return {name: score.tolist() for name, score in {"nearest": points(net), **shares}.items()}


@torch.no_grad()
def _store(net: SeedsNet) -> None:
    for p in net.parameters():
        p.copy_(cast(p, BF16))


def keepers(make: MakeOptimizer, steps: int, cures: Iterable[str] = ()) -> dict[str, list[float]]:
    """Accuracies of FP32, of BF16 weights rounded to nearest, and of these cures; and what nearest loses."""
    variants = [Variant("FP32", Policy()), *(Variant(name, Policy(), wrap=CURES[name]) for name in cures)]
    data = images().classification()
    runs = compare(variants, lambda: MLP(SEEDS), data, lambda net: make(net.parameters()), steps, points,
                   measure_flushed=False)  # fmt: skip
    return {**{name: list(run.scores) for name, run in runs.items()}, **nearest(make, steps)}


def _adam(lr: float) -> MakeOptimizer:
    return partial(torch.optim.Adam, lr=lr)


def _sgd(lr: float, momentum: float = 0.0) -> MakeOptimizer:
    return partial(torch.optim.SGD, lr=lr, momentum=momentum)


ask = partial(Sweep, reference="FP32", margin=1.0, unit="points of accuracy", better="high")
SWEEPS = (
    ask("03.adam", "Adam, 1,000 steps, BF16 weights.", "learning rate", 1e-4, (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
        lambda lr: keepers(_adam(lr), STEPS, CURES),
        expected={"nearest": "worse", **dict.fromkeys(CURES, "equivalent")}),
    ask("03.steps", "Adam, learning rate 0.0001, BF16 weights.", "steps", 1000, (300, 1000, 3000),
        lambda steps: keepers(_adam(1e-4), int(steps), (MASTER,)),
        expected={"nearest": "worse", MASTER: "equivalent"}),
    ask("03.sgd", "SGD, 1,000 steps, BF16 weights.", "learning rate", 0.1, (0.003, 0.01, 0.03, 0.1, 0.3),
        lambda lr: keepers(_sgd(lr), STEPS), expected={"nearest": "equivalent"}),
    ask("03.momentum", "SGD with momentum 0.9, 1,000 steps, BF16 weights.", "learning rate", 0.03,
        (0.003, 0.01, 0.03, 0.1), lambda lr: keepers(_sgd(lr, 0.9), STEPS), expected={"nearest": "equivalent"}),
)  # fmt: skip
