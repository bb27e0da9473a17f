"""Several precisions train side by side, one step each in turn, so that a race can be watched and stopped anywhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import torch

from mpkit import Batches, DynamicScale, Policy, StaticScale, StepRecord
from mpkit.course.nets.digits import Digits, digits
from mpkit.course.nets.models import MLP, Autoencoder, SeedsNet
from mpkit.course.runs.equivalence import Equivalence, equivalence
from mpkit.course.runs.experiments import Outcome, Variant, require_different, start, weighted
from mpkit.course.runs.side_by_side import SideBySide
from mpkit.scaling import preset
from mpkit.training import Run

SEEDS, REFERENCE = range(5), "FP32"
STUCK = 0.1  # of the reference's progress: who has made less of it is called stuck
LEARNED = 0.01  # of its first loss: less is no yardstick for others
_MIXED = Policy.preset("fp16-mixed")
COMPETITORS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(REFERENCE, Policy()),
        Variant("FP16, no scaling", _MIXED),
        Variant("FP16, static 2¹⁰", _MIXED, StaticScale(2.0**10)),
        Variant("FP16, dynamic", _MIXED, DynamicScale(growth_interval=50)),  # 2000 would not be seen in a short race
        Variant("BF16", Policy.preset("bf16-mixed")),
        Variant("article", Policy.preset("article"), preset("article")),
        Variant("FP16 all, no scaling", Policy.preset("fp16-true")),
    )
}

WHAT = {  # of each competitor, in a few words
    REFERENCE: "the yardstick",
    "FP16, no scaling": "the loss is left as it is",
    "FP16, static 2¹⁰": "one scale for all steps",
    "FP16, dynamic": "doubles after 50 clean steps",
    "BF16": "FP32's range, fewer digits; no scale",
    "article": "backward in FP32; its scale can only fall",
    "FP16 all, no scaling": "weights and updates in FP16, too",
}


@dataclass(frozen=True)
class RaceTask:
    """What the competitors learn: the digits, with a small network, five seeds at once.

    Attributes:
        name: for buttons. `about`: the recipe in words.
        autoencoder: True for the sigmoid autoencoder (score: test error), False for the classifier (test accuracy).
        adam: Adam, else plain SGD. `lr`: its learning rate, unless a race sets another.
        weight: factor of the loss, as for an auxiliary loss. Records hold the weighted loss.
        steps: length of a race, unless it sets another.
        wait: what to expect of a race that is as long, and has that learning rate.
    """

    name: str
    about: str
    lr: float
    steps: int
    autoencoder: bool = False
    adam: bool = True
    weight: float = 1.0
    wait: str = ""

    @property
    def margin(self) -> float:
        """How far from the reference counts as level: 0.01 of accuracy, or 5 % of the reference's mean error."""
        return 0.05 if self.autoencoder else 0.01

    def model(self) -> SeedsNet:
        """A fresh model, the same at every call."""
        return Autoencoder(SEEDS) if self.autoencoder else MLP(SEEDS)

    def data(self, device: str = "cpu") -> Batches:
        """The training batches."""
        held = _digits(device)
        return held.reconstruction() if self.autoencoder else held.classification()

    def optimizer(self, model: SeedsNet, lr: float) -> torch.optim.Optimizer:
        """The task's optimizer for `model`."""
        if self.adam:
            return torch.optim.Adam(model.parameters(), lr=lr, fused=True)
        return torch.optim.SGD(model.parameters(), lr=lr, fused=True)

    def score(self, model: SeedsNet) -> tuple[float, ...]:
        """Test error or accuracy of every seed, in FP32."""
        held = _digits(str(next(model.parameters()).device))
        if isinstance(model, Autoencoder):
            return tuple(model.error(held.test_images).tolist())
        assert isinstance(model, MLP)
        return tuple(model.accuracy(held.test_images, held.test_labels).tolist())


TASKS: dict[str, RaceTask] = {
    task.name: task
    for task in (
        RaceTask("tiny loss", "digit classifier, Adam, loss weight 10⁻⁶", 1e-3, 150, weight=1e-6),
        RaceTask("classifier", "digit classifier, SGD, loss as it is", 0.1, 300, adam=False),
        RaceTask(
            "autoencoder",
            "sigmoid autoencoder, Adam, loss averaged over pixels",
            2e-3,
            400,
            autoencoder=True,
            wait="All stay on one plateau at first: they part after half of the steps",
        ),
    )
}


@cache
def _digits(device: str) -> Digits:
    return digits(device)


class LiveRace(SideBySide):
    """One race. `outcomes` holds what every competitor has done so far, by name; scores come at the end.

    Args:
        competitors: two variants or more, with different names.
        task: what they learn.
        lr: learning rate; None is the task's.
        steps: steps of every competitor; None is the task's.
        device: where all train.

    Raises:
        ValueError: fewer than two competitors, the same name twice, or an lr or steps that cannot be used.
    """

    def __init__(
        self, competitors: Sequence[Variant], task: RaceTask, lr: float | None = None, steps: int | None = None,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        names = [variant.name for variant in competitors]
        if len(names) < 2:
            came = f"{names[0]} alone came" if names else "none came"
            raise ValueError(f"A race needs two competitors or more, but {came}; add one.")
        require_different(names, "Competitors")
        self.task, self.lr, length = task, task.lr if lr is None else lr, task.steps if steps is None else steps
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"A learning rate of {self.lr:g} cannot be used; use a number above 0, such as 1e-3.")
        if length < 1:
            raise ValueError(f"A race of {length} steps has no end to look at; use 1 or more.")
        super().__init__({variant.name: self._run(variant, length, device) for variant in competitors})
        self.outcomes = {variant.name: Outcome(variant, self.records[variant.name]) for variant in competitors}

    @property
    def shown(self) -> dict[str, Outcome]:
        """`outcomes` up to the last step that all have taken: a race may be stopped in the middle of a round."""
        return {
            name: Outcome(outcome.variant, outcome.records[: self.step], outcome.scores)
            for name, outcome in self.outcomes.items()
        }

    def _train(self, name: str) -> None:
        super()._train(name)
        run = self.runs[name]
        if run.step == self.steps:
            self.outcomes[name].scores = self.task.score(run.model)  # type: ignore[arg-type]

    def _run(self, variant: Variant, steps: int, device: str) -> Run:
        model, task = self.task.model().to(device), self.task
        loss = weighted(model, task.weight)
        return start(variant, model, task.data(device), task.optimizer(model, self.lr), steps, loss, True)


def standings(race: LiveRace) -> dict[str, str]:
    """Where each competitor ended, the reference left out: "level", "behind", "ahead", "undecided" or "stuck".

    All but the last hang on the 90 % interval of `difference`. Level: it lies within the task's margin. Behind, ahead:
    it lies wholly outside. Undecided: it reaches over the margin. Stuck: the training loss came down by less than a
    tenth of what the reference's did. A loss or a score that is not finite is stuck too.

    Raises:
        ValueError: the race is not over, or the reference is missing or learned nothing.
    """
    if not race.over or REFERENCE not in race.outcomes:
        why = "it is not over" if not race.over else f"{REFERENCE} is not in it"
        raise ValueError(f"This race cannot be judged: {why}.")
    if not has_yardstick(race):
        raise ValueError(f"This race cannot be judged: {REFERENCE} itself has learned nothing.")
    return {name: _standing(race, name) for name in race.outcomes if name != REFERENCE}


def difference(race: LiveRace, name: str) -> Equivalence:
    """How far a competitor's scores are from the reference's, paired by seed, in accuracy or in parts of its error."""
    base = race.outcomes[REFERENCE]
    unit = base.mean if race.task.autoencoder else 1.0
    mine, theirs = ([score / unit for score in o.scores] for o in (race.outcomes[name], base))
    return equivalence(mine, theirs, race.task.margin)


def has_yardstick(race: LiveRace) -> bool:
    """Has the reference's loss come down, by LEARNED at least?"""
    base = race.outcomes[REFERENCE]
    return all(map(math.isfinite, base.scores)) and _progress(base.records) > LEARNED * base.records[0].loss


def _standing(race: LiveRace, name: str) -> str:
    mine, base = race.outcomes[name], race.outcomes[REFERENCE]
    moved = _progress(mine.records) >= STUCK * _progress(base.records)  # not for NaN
    if not moved or not all(map(math.isfinite, mine.scores)):
        return "stuck"
    test = difference(race, name)
    if test.equivalent:
        return "level"
    if test.low < test.margin and test.high > -test.margin:
        return "undecided"
    return "behind" if (test.difference > 0) == race.task.autoencoder else "ahead"


def _progress(records: Sequence[StepRecord]) -> float:
    """How far the loss came down: the mean of the last ten steps against the first."""
    return records[0].loss - fmean(record.loss for record in records[-10:])
