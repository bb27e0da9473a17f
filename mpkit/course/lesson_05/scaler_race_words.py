"""What the scaler race says in words: the finding, and one line a rule."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from mpkit.course.lesson_05.live_rules import LiveScales
from mpkit.course.lesson_05.rule_race import Lap
from mpkit.course.pictures.style import percent, power

FEW_LOST = 0.05  # of the gradients: where more are flushed, the scale is too small
LONGEST = 97  # letters of a title that fit above the picture; the last few make all of them a little smaller
TAIL = 10  # where a rule ends: where it was in most of the last tenth of the steps
CROSSED, TIMES = 0.25, 4  # above for such a share of it, else not, and over so often: it ends at the edge
PLACES = {"in": "in", "edge": "at the upper edge of", "below": "below", "above": "above"}
STUCK, NEAR = 0.1, 0.05  # of FP32's progress: who made less is stuck; of FP32's loss: who is closer ends at it
OPEN_LOOP = "The gradients come from an FP32 run that took every step: they do not react to what a rule does."
MADE_UP_LOOP = "The gradients are made up, no network has them: they do not react to what a rule does."
CLOSED_LOOP = (
    "Live: each rule trains a model of its own in FP16; a lost step leaves its weights as they were. The window is the"
    " FP32 run's. Any control returns to the recording."
)


def headline(laps: Mapping[str, Lap]) -> str:
    """The title: who ends in the window and who beside it, as the picture's right edge shows; and who pays most."""
    if not laps:
        return "Choose a rule to race"
    price = _price(laps)
    ends: dict[str, list[str]] = {place: [] for place in PLACES}
    for name, lap in laps.items():
        ends[end_of(lap)].append(name)
    titles = [f"{_places(ends, who)}; {'; '.join(price)}" for who in (_listed, _counted)]
    titles.append(f"{_places(ends, _counted)}; {price[-1]}")
    return next((title for title in titles if len(title) <= LONGEST), titles[-1])


def end_of(lap: Lap) -> str:
    """Where the rule was in most of the last tenth of the steps: a key of PLACES."""
    last = slice(-max(len(lap.scales) // TAIL, 1), None)
    too_large = lap.overflowed[last]
    if CROSSED <= too_large.mean() <= 1 - CROSSED and np.diff(too_large).sum() >= TIMES:
        return "edge"
    if too_large.mean() > 0.5:
        return "above"
    return "below" if (~too_large & (lap.flushed[last] > FEW_LOST)).mean() > 0.5 else "in"


def _places(ends: Mapping[str, list[str]], said: Callable[[list[str]], str]) -> str:
    found = {place: names for place, names in ends.items() if names}
    (first, names), *others = found.items()
    who = said(names) if others or len(names) == 1 else "Both" if len(names) == 2 else f"All {len(names)}"
    parts = [f"{who} end{'s' * (len(names) == 1)} {PLACES[first]} the window"]
    return ", ".join([*parts, *(f"{said(names)} {PLACES[place]} it" for place, names in others)])


def _price(laps: Mapping[str, Lap]) -> list[str]:
    """Who loses most steps; who takes steps with Inf."""
    steps = len(next(iter(laps.values())).scales)
    most = max(lap.lost_steps for lap in laps.values())
    payers = [name for name, lap in laps.items() if lap.lost_steps == most]
    spoiled = [f"{name} takes {_steps(lap.spoiled_steps)} with Inf" for name, lap in laps.items() if lap.spoiled_steps]
    if not most:
        return spoiled or ["no step is lost"]
    if len(laps) == 1:
        return ["every step is lost" if most == steps else f"{_steps(most)} lost", *spoiled]
    who = f"{_listed(payers) if len(payers) < 3 else _counted(payers)} lose{'s' * (len(payers) == 1)}"
    each = " each" if len(payers) > 1 else ""
    return [f"{who} every step" if most == steps else f"{who} most, {_steps(most)}{each}", *spoiled]


def _listed(names: list[str]) -> str:
    names = [name.replace(", scaled", " with scaled norm") for name in names]
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _counted(names: list[str]) -> str:
    return _listed(names) if len(names) == 1 else f"{len(names)} rules"


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def log2_text(scale: float) -> str:
    """A scale as a power of two: 2¹⁶, or ≈2⁷ for what lies nearest to it; 0 and ∞ as they are."""
    if scale == 0 or math.isinf(scale):
        return "0" if scale == 0 else "∞"
    exponent = math.log2(scale)
    return ("" if exponent.is_integer() else "≈") + power(round(exponent))


def numbers(lap: Lap) -> tuple[str, ...]:
    """A rule's cells in the table: steps lost, share flushed, last scale, and the loss if it trained."""
    steps = len(lap.scales)
    if not steps:
        return ("–",) * 4
    lost, flushed = ("all", "–") if lap.lost_steps == steps else (str(lap.lost_steps), _share(lap))
    return lost, flushed, log2_text(lap.scales[-1]), "–" if lap.loss is None else _loss(lap.loss)


def _share(lap: Lap) -> str:
    return "–" if math.isnan(lap.mean_flushed) else percent(lap.mean_flushed)


def _loss(loss: float) -> str:
    return f"{loss:.3g}" if not 1000 <= loss < 1e5 else f"{loss:.0f}"


def row(name: str, lap: Lap) -> str:
    """One rule in a line: steps lost, share flushed, the last scale."""
    gave_up = "" if lap.gave_up is None else f", gives up at step {lap.gave_up}"
    if not len(lap.scales):
        return f"{name}: no step yet"
    unknown = lap.lost_steps == len(lap.scales) or math.isnan(lap.mean_flushed)
    flushed = "–" if unknown else f"{100 * lap.mean_flushed:.0f}%"
    return f"{name}: {_steps(lap.lost_steps)} lost, {flushed} flushed, ends at {log2_text(lap.scales[-1])}{gave_up}"


def live_headline(race: LiveScales) -> str:
    """The title while rules train: how far they are; at the end who lost steps, and whose loss is not FP32's."""
    if not race.over:
        return f"{'Stopped after' if race.stopped else 'Step'} {race.step} of {race.steps}: {_lost_so_far(race)}"
    reference, start = race.reference.loss, race.reference.records[0].loss / race.reference.weight(0)
    if not start > reference:  # too few steps, or a loss that is not finite
        return f"FP32 itself has learned nothing in {race.steps} step{'s' * (race.steps > 1)}"
    stuck = [name for name, one in race.learners.items() if not start - one.loss >= STUCK * (start - reference)]
    apart = {name: one.loss for name, one in race.learners.items()
             if name not in stuck and abs(one.loss / reference - 1) > NEAR}  # fmt: skip
    good = [name for name in race.learners if name not in stuck and name not in apart]
    ways = ((_listed, True), (_listed, False), (_counted, False))
    titles = [_ends(good, apart, stuck, _ends_at(reference), *way) for way in ways]
    return next((title for title in titles if len(title) <= LONGEST), titles[-1])


def _ends(
    good: list[str], apart: Mapping[str, float], stuck: list[str], reference: str,
    said: Callable[[list[str]], str], each: bool,
) -> str:  # fmt: skip
    """Who ends at FP32's loss, at which loss others end (`each`, or from where to where), who learned nothing."""
    everybody = not (apart or stuck) and len(good) > 1
    who = ("Both" if len(good) == 2 else f"All {len(good)}") if everybody else said(good) if good else "No rule"
    parts = [f"{who} end{'s' * (len(good) < 2)} at FP32's loss, {reference}"]
    if apart and (each or len(apart) == 1):
        parts.append(", ".join(f"{_listed([name])} {_ends_at(loss)}" for name, loss in apart.items()))
    elif apart:
        parts.append(f"{len(apart)} others at {_ends_at(min(apart.values()))} to {_ends_at(max(apart.values()))}")
    parts += [f"{said(stuck)} learn{'s' * (len(stuck) == 1)} nothing"] if stuck else []
    return "; ".join(parts)


def _ends_at(loss: float) -> str:
    return f"{loss:.2g}" if not 100 <= loss < 1e5 else f"{loss:.0f}"


def _lost_so_far(race: LiveScales) -> str:
    lost = {name: lap.lost_steps for name, lap in race.laps.items()}
    most = max(lost.values())
    if not most:
        return "no step is lost"
    who = [name for name, steps in lost.items() if steps == most]
    many, every = len(who) > 1, most == race.step
    lose = f"{_listed(who) if len(who) < 3 else _counted(who)} {'have' if many else 'has'} lost"
    return f"{lose} every step" if every else f"{lose} {_steps(most)}{' each' * many}"
