"""How far lesson 04 reaches: other learning rates, steps, loss scales and weights of a loss."""

from collections.abc import Callable
from functools import cache, partial

from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from mpkit import E4M3, FP16, DynamicScale, Policy, StaticScale
from mpkit.course.lesson_04.deep import Deep
from mpkit.course.nets.digits import Digits, digits
from mpkit.course.nets.models import MLP, Autoencoder, SeedsNet
from mpkit.course.pictures.style import power
from mpkit.course.robustness import Sweep
from mpkit.course.robustness.sweep import Outcome as Verdict
from mpkit.course.runs.experiments import Outcome, Variant, compare
from mpkit.training.step import LossFunction

SEEDS = range(5, 10)  # the notebook shows 0 to 4; the settings were tried out with 20 to 24
FP32, MIXED = Policy.preset("fp32"), Policy.preset("fp16-mixed")
LOW_GRADIENTS = Policy(forward=FP16, backward=E4M3)  # bad on purpose
Scores = dict[str, list[float]]
MakeOptimizer = Callable[[SeedsNet], Optimizer]


@cache
def images() -> Digits:
    """The digits, read once."""
    return digits()


def scaled(log2_scale: int) -> Variant:
    """FP16 with a fixed loss scale."""
    return Variant(power(log2_scale), MIXED, StaticScale(2.0**log2_scale))


def _scores(runs: dict[str, Outcome]) -> Scores:
    return {name: list(run.scores) for name, run in runs.items()}


def autoencoder(variants: list[Variant], lr: float, steps: int) -> dict[str, Outcome]:
    """Train the lesson's autoencoder. The score is the test error."""
    data = images().reconstruction()
    return compare(variants, lambda: Autoencoder(SEEDS), data, partial(_adam, lr=lr), steps,
                   lambda net: net.error(images().test_images), measure_flushed=False)  # fmt: skip


def _adam(net: SeedsNet, lr: float, eps: float = 1e-8) -> Optimizer:
    return Adam(net.parameters(), lr=lr, eps=eps, fused=True)


def _sgd(net: SeedsNet, lr: float) -> Optimizer:
    return SGD(net.parameters(), lr=lr, fused=True)


def _points(net: SeedsNet) -> Tensor:
    assert isinstance(net, MLP)
    return 100 * net.accuracy(images().test_images, images().test_labels)


def classifier(
    variants: list[Variant], make: Callable[[], SeedsNet], optimizer: MakeOptimizer, steps: int, weight: float = 1.0
) -> Scores:
    """Train a classifier with its loss times `weight`; the score is the accuracy in percent."""
    loss: LossFunction = MLP(SEEDS).loss
    data = images().classification()
    return _scores(compare(variants, make, data, optimizer, steps, _points, measure_flushed=False,
                           loss_fn=lambda outputs, labels: weight * loss(outputs, labels)))  # fmt: skip


def _percent(runs: dict[str, Outcome]) -> Scores:
    """Each seed's error in percent of FP32's with the same seed, so that FP32 has 100."""
    base = runs["FP32"].scores
    return {name: [100 * a / b for a, b in zip(run.scores, base, strict=True)] for name, run in runs.items()}


@cache
def _fp32() -> dict[str, Outcome]:
    return autoencoder([Variant("FP32", FP32)], 2e-3, 400)


def one_scale(log2_scale: float) -> Scores:
    """FP32, and FP16 with one fixed scale; besides, the share of the steps that were skipped, 0 to 1."""
    runs = autoencoder([Variant("FP16", MIXED, StaticScale(2.0**log2_scale))], 2e-3, 400)
    return {**_percent(_fp32() | runs), "steps skipped, share": [runs["FP16"].skipped / 400] * len(SEEDS)}


def ordinary(lr: float) -> Scores:
    """A classifier whose gradients do not underflow; and one arm whose gradients are made to."""
    variants = [Variant("FP32", FP32), Variant("no scaling", MIXED), Variant("dynamic", MIXED, DynamicScale()),
                Variant("E4M3 gradients", LOW_GRADIENTS)]  # fmt: skip
    return classifier(variants, lambda: MLP(SEEDS), partial(_sgd, lr=lr), 210)


def small_loss(weight: float) -> Scores:
    """Adam with a loss times `weight`, in FP32: with its usual eps, and with eps times the weight; and in FP16."""
    train = partial(classifier, make=lambda: MLP(SEEDS), steps=630)
    one, usual, small = partial(_adam, lr=1e-3), partial(_adam, lr=1e-3), partial(_adam, lr=1e-3, eps=1e-8 * weight)
    fp32 = [Variant("FP32", FP32)]
    low = train([*fp32, Variant("FP16", MIXED), scaled(10)], optimizer=usual, weight=weight)
    return {
        "FP32, weight 1": train(fp32, optimizer=one)["FP32"],
        **low,
        "FP32, eps × weight": train(fp32, optimizer=small, weight=weight)["FP32"],
    }


def deep(lr: float) -> Scores:
    """Eleven layers with three gains, in FP32 and in FP16 with a dynamic scale."""
    variants = [Variant("FP32", FP32), Variant("FP16", MIXED, DynamicScale())]
    return {
        f"gain {gain:g}, {name}": scores
        for gain in (2, 0.25, 10)
        for name, scores in classifier(variants, partial(Deep, gain, SEEDS), partial(_sgd, lr=lr), 150).items()
    }


def _steps(steps: float) -> Scores:
    return _percent(autoencoder([Variant("FP32", FP32), scaled(0), scaled(16)], 2e-3, int(steps)))


def _rates(lr: float) -> Scores:
    dynamic = Variant("dynamic", MIXED, DynamicScale(growth_interval=100))
    return _percent(autoencoder([Variant("FP32", FP32), *map(scaled, (0, 6, 16, 23, 24)), dynamic], lr, 400))


GOOD: dict[str, Verdict] = dict.fromkeys((power(6), power(16), power(23), "dynamic"), "equivalent")
error = partial(Sweep, reference="FP32", margin=2.0, unit="percent of FP32's test error", better="low")
points = partial(Sweep, unit="points of accuracy", better="high")
SWEEPS = (
    error("04.rate", "Autoencoder, 400 steps of Adam.", "learning rate", 2e-3, (6e-4, 2e-3, 6e-3), _rates,
          expected={power(0): "worse", **GOOD, power(24): "worse"}),
    error("04.steps", "Autoencoder, Adam with learning rate 0.002.", "steps", 400, (130, 400, 1500), _steps,
          expected={power(0): "worse", power(16): "equivalent"}),
    error("04.window", "Autoencoder, 400 steps, a fixed loss scale.", "log2 of the loss scale", 6,
          (0, 2, 3, 4, 5, 6, 16, 22, 23, 24, 26), one_scale, expected={"FP16": "equivalent"}),
    points("04.ordinary", "Classifier, 210 steps of SGD.", "learning rate", 0.1, (0.03, 0.1, 0.3), ordinary, "FP32",
           1.0, expected={"no scaling": "equivalent", "dynamic": "equivalent", "E4M3 gradients": "worse"}),
    points("04.tiny", "Classifier, 630 steps of Adam, a loss with a small weight.", "weight", 1e-6, (3e-7, 1e-6, 3e-6),
           small_loss, "FP32, weight 1", 1.0,
           expected={"FP32": "worse", "FP32, eps × weight": "equivalent", "FP16": "worse", power(10): "worse"}),
    points("04.deep", "Eleven layers, 150 steps of SGD.", "learning rate", 0.1, (0.03, 0.1, 0.3), deep, "gain 2, FP32",
           5.0, expected={"gain 2, FP16": "equivalent", "gain 0.25, FP32": "worse", "gain 0.25, FP16": "worse",
                          "gain 10, FP32": "worse", "gain 10, FP16": "worse"}),
)  # fmt: skip
