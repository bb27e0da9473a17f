"""Scaling rules that train: each moves the scale of a run of its own, one step each in turn, beside one in FP32."""

import math
from collections.abc import Mapping
from statistics import fmean

import numpy as np
from torch import Tensor

from mpkit import NoScaling, Policy, StepRecord
from mpkit.course.lesson_05.rule_race import Lap
from mpkit.course.runs.experiments import Variant, start
from mpkit.course.runs.recipes import RECIPES, Recipe
from mpkit.course.runs.side_by_side import SideBySide
from mpkit.scaling import ScaleExhausted, ScaleRule

STEPS = 420
REFERENCE = "FP32"
LAST = 10  # steps over which a final loss is averaged


class Learner:
    """One run of a recipe: `records` of the steps so far; `gave_up`: the step at which its rule raised ScaleExhausted.

    A record's loss is the weighted one, if the recipe weights its loss; `loss` is not.
    """

    def __init__(
        self, recipe: Recipe, policy: Policy, rule: ScaleRule, steps: int, measure_flushed: bool, device: str = "cpu"
    ) -> None:
        self.recipe, self.rule = recipe, rule
        self.records: list[StepRecord] = []
        self.gave_up: int | None = None
        model = recipe.model(device)
        optimizer = recipe.optimizer(model)
        self._groups, self._rates = optimizer.param_groups, [group["lr"] for group in optimizer.param_groups]

        def loss(output: Tensor, target: Tensor) -> Tensor:
            return model.loss(output, target) * self.weight(self.run.step)

        variant = Variant(recipe.about, policy, rule)
        changes = recipe.weight is not None  # loss and learning rate, at each step
        self.run = start(variant, model, recipe.data(device), optimizer, steps, loss, measure_flushed, not changes)

    def follow_the_weight(self) -> None:
        """Divide the learning rate by the weight of the step to come."""
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"] = rate / self.weight(self.run.step)

    @property
    def loss(self) -> float:
        """Mean training loss of the last ten steps, without the recipe's weight; NaN before the first."""
        last = self.records[-LAST:]
        return fmean(record.loss / self.weight(record.step) for record in last) if last else math.nan

    def lap(self, steps: int) -> Lap:
        """What the rule did in `steps` steps; after it gave up, every step counts as lost."""
        some = self.records[:steps]
        missing = steps - len(some)
        scales = [record.scale for record in some] + [self.run.scaler.get_scale()] * missing
        skipped = np.array([record.skipped for record in some] + [True] * missing, dtype=bool)
        measured = [math.nan if record.flushed is None else record.flushed for record in some]
        flushed = np.array(measured + [0.0] * missing)
        return Lap(self.rule, np.array(scales), skipped, skipped, flushed, self.gave_up, self.loss)

    def weight(self, step: int) -> float:
        """The recipe's factor of the loss at a step; 1 if it has none."""
        return self.recipe.weight(step) if self.recipe.weight else 1.0


class LiveScales(SideBySide):
    """Every rule trains the recipe `name` in FP16, with the policy "fp16-mixed" and seed 0; so does FP32 beside them.

    Args:
        name: one of `mpkit.course.runs.recipes.RECIPES`.
        rules: by name. Rules that take a step although it overflowed are refused: the weights would become Inf.
        steps: length; at most that of the recipe.
        device: where all train.

    Raises:
        ValueError: no such recipe, no rule, a rule that does not skip, or a length that the recipe does not have.
    """

    def __init__(self, name: str, rules: Mapping[str, ScaleRule], steps: int = STEPS, device: str = "cpu") -> None:
        if name not in RECIPES:
            raise ValueError(f"{name!r} cannot be trained; use one of {', '.join(RECIPES)}.")
        recipe = RECIPES[name]
        if not rules:
            raise ValueError("Nobody is there to train; choose at least one rule.")
        if not 1 <= steps <= recipe.steps:
            raise ValueError(f"{name} has {recipe.steps} steps, and {steps} were asked for; use 1 to {recipe.steps}.")
        if takes := [key for key, rule in rules.items() if not rule.skips]:
            raise ValueError(
                f"{takes[0]} takes every step, also one that overflowed, and Inf would reach the weights. "
                "Leave it out to train the others."
            )
        self.name, self.about = name, recipe.about
        policy = Policy.preset("fp16-mixed")
        self.learners = {key: Learner(recipe, policy, rule, steps, True, device) for key, rule in rules.items()}
        self.reference = Learner(recipe, Policy(), NoScaling(), steps, False, device)
        self._all = {REFERENCE: self.reference, **self.learners}
        super().__init__({key: learner.run for key, learner in self._all.items()})
        for key, learner in self._all.items():
            learner.records = self.records[key]

    @property
    def laps(self) -> dict[str, Lap]:
        """Each rule's steps so far."""
        return {key: learner.lap(self.step) for key, learner in self.learners.items()}

    def _train(self, name: str) -> None:
        """A rule that has given up rests from then on."""
        learner = self._all[name]
        if learner.gave_up is None:
            learner.follow_the_weight()
            try:
                super()._train(name)
            except ScaleExhausted:
                learner.gave_up = len(learner.records)
