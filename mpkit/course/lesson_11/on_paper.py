"""Scaling out on paper: what a flag costs, how often some rank overflows, and where the loss scale settles."""

import math
from dataclasses import dataclass

import numpy as np

LATENCY, BANDWIDTH = 5e-6, 50e9  # assumed: seconds a hop, bytes a second and rank
STEPS = 1_000_000


@dataclass(frozen=True)
class Costs:
    """Seconds for one all-reduce of the flag and one of the gradients."""

    flag: float
    gradients: float

    @property
    def share(self) -> float:
        """The flag's seconds divided by the gradients'."""
        return self.flag / self.gradients


def costs(ranks: int, parameters: float, latency: float = LATENCY, bandwidth: float = BANDWIDTH) -> Costs:
    """What both all-reduces cost in the usual model of a message: latency for each hop + bytes / bandwidth.

    Four bytes go up a tree and down again, 2·log2(ranks) hops. Gradients of two bytes each go twice around: every rank
    sends 2·(ranks − 1)/ranks of them, in a tree's hops if those are fewer than a ring's (NCCL chooses so, too).
    """
    hops = 2 * math.ceil(math.log2(ranks))
    data = 2 * parameters * 2 * (ranks - 1) / ranks
    return Costs(latency * hops, latency * min(hops, 2 * (ranks - 1)) + data / bandwidth)


def some_rank(p: float, ranks: int) -> float:
    """How likely a step is at which some rank overflows, if each does with probability `p`, whatever the others do."""
    return -math.expm1(ranks * math.log1p(-p)) if p < 1 else 1.0


def balance(growth_interval: int) -> float:
    """The share of bad steps at which a dynamic scale rises as often as it falls, both by the same factor.

    It rises if `growth_interval` steps in a row are clean. Cycles end with a rise or a fall; both are as likely where
    (1 − P) ** growth_interval = 1/2.
    """
    return -math.expm1(-math.log(2) / growth_interval)


def settled_scale(ranks: int, tail: float, growth_interval: int = 2000) -> float:
    """Where the scale settles, as a multiple of the scale at which one rank overflows at every step.

    A rank's largest gradient is beyond x with probability x ** −tail, x ≥ 1: the larger `tail`, the rarer are large
    ones. At a scale of s it overflows with probability s ** tail.
    """
    alone = -math.expm1(math.log1p(-balance(growth_interval)) / ranks)
    return float(alone ** (1 / tail))


@dataclass(frozen=True)
class Simulated:
    """Over all steps: the share that is skipped, the mean of the scale's log2, and how often the scale rose."""

    skipped: float
    log2_scale: float
    rises: int


def simulate_scale(
    ranks: int, tail: float, growth_interval: int = 2000, steps: int = STEPS, seed: int = 0, bad_data: float = 0.0,
    log2_floor: int = -60,
) -> Simulated:  # fmt: skip
    """The same by lot: `steps` steps of the rule "halve at Inf, double after `growth_interval` clean steps".

    The scale changes only at a fall or a rise; until then one draw says how many clean steps pass. The first tenth of
    the steps, in which the scale falls from 1 to where it settles, is not counted. `bad_data`: how likely a rank's
    batch is bad at any scale.
    """
    lot, log2, step, skips, rises, area = np.random.default_rng(seed), 0, 0, 0, 0, 0.0
    first = steps // 10
    while step < steps:
        p = some_rank(min(1.0, bad_data + 2.0 ** (tail * log2)), ranks)
        clean = int(lot.geometric(p)) - 1 if p > 0 else growth_interval
        falls = clean < growth_interval
        passed = min(clean + 1 if falls else growth_interval, steps - step)
        area += log2 * max(0, min(passed, step + passed - first))
        step += passed
        if step > first:
            skips, rises = skips + falls, rises + (not falls)
        log2 = max(log2 - 1, log2_floor) if falls else log2 + 1
    return Simulated(skips / (steps - first), area / (steps - first), rises)
