"""What the scaler race says in words: the finding, and one line a rule."""

import math
from collections.abc import Mapping

from mpkit.course.lesson_05.live_rules import LiveScales
from mpkit.course.lesson_05.rule_race import Lap
from mpkit.course.pictures.style import percent, power

FEW_STEPS, FEW_LOST = 0.01, 0.05  # of all steps; of the gradients: below both, a rule counts as doing well
LONGEST = 97  # letters of a title that fit above the picture; the last few make all of them a little smaller
BARELY = 2  # steps beyond the limit: such a rule misses it, and is not called bad for that
STUCK, NEAR = 0.1, 0.05  # of FP32's progress: who made less is stuck; of FP32's loss: who is closer ends as FP32 does
OPEN_LOOP = " The gradients come from an FP32 run that took every step: they do not react to what a rule does."
CLOSED_LOOP = (
    " Live: each rule trains a model of its own in FP16, and a lost step leaves its weights as they were. The window is"
    " the FP32 run's. Move any control to return to the recorded gradients."
)


def headline(laps: Mapping[str, Lap]) -> str:
    """The title: who does well, who just misses it, who skips most, who flushes most."""
    if not laps:
        return "Choose a rule to race"
    steps = len(next(iter(laps.values())).scales)
    well = [name for name, lap in laps.items() if _does_well(lap)]
    barely = {name: over for name, lap in laps.items() if (over := _missed_by(lap))}
    parts = _faults({name: lap for name, lap in laps.items() if name not in barely}, steps)
    missed = [f"{_called(name)} misses by {'one step' if over == 1 else _steps(over)}" for name, over in barely.items()]
    missed = missed if len(missed) < 2 else [f"{len(missed)} miss by a step or two"]
    if not parts and not missed:
        return "Every rule here loses few steps and flushes little"
    title = "; ".join([_well(well), *missed, *parts] if well else [*missed, *parts, "nobody does well"])
    shorten = {" of the gradients": "", " steps with Inf": " with Inf", " steps;": ";"}
    shorten |= {_well(well): f"{len(well)} rules do well"} if len(well) > 1 else {}
    shorten |= {"the article's formula": "the formula", " misses by one step": " just misses"}
    for words, shorter in shorten.items():
        title = title if len(title) <= LONGEST else title.replace(words, shorter)
    return _begun(title)


def _faults(laps: Mapping[str, Lap], steps: int) -> list[str]:
    """Who loses most steps and who flushes most, in one sentence if both are the same; who takes Inf."""
    skips = max(laps, key=lambda name: laps[name].lost_steps, default="")
    taken = {name: lap for name, lap in laps.items() if lap.lost_steps < steps}
    flushes = max(taken, key=lambda name: taken[name].mean_flushed, default="")
    parts = {}
    if skips and laps[skips].lost_steps > FEW_STEPS * steps:
        lost = laps[skips].lost_steps
        parts[skips] = f"{_called(skips)} loses {'every step' if lost == steps else _steps(lost)}"
    if flushes and laps[flushes].mean_flushed > FEW_LOST:
        both = f"{parts[flushes]} and" if flushes in parts else _called(flushes)
        parts[flushes] = f"{both} flushes {percent(laps[flushes].mean_flushed)} of the gradients"
    spoiled = [f"{_called(name)} takes {_steps(lap.spoiled_steps)} with Inf" for name, lap in laps.items()
               if lap.spoiled_steps]  # fmt: skip
    return [*parts.values(), *spoiled]


def _begun(title: str) -> str:
    """With a capital, unless a rule's name comes first: those stay as on their buttons."""
    return title[:1].upper() + title[1:] if title.startswith("the ") else title


def _missed_by(lap: Lap) -> int:
    """How many lost steps too many keep a rule from doing well; 0: it does well, or misses by more, or otherwise."""
    over = lap.lost_steps - int(FEW_STEPS * len(lap.scales))
    return over if 0 < over <= BARELY and lap.mean_flushed <= FEW_LOST and not lap.spoiled_steps else 0


def _does_well(lap: Lap) -> bool:
    few = lap.lost_steps <= FEW_STEPS * len(lap.scales) and lap.mean_flushed <= FEW_LOST
    return few and not lap.spoiled_steps


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def _well(names: list[str]) -> str:
    if len(names) == 1:
        return f"{_called(names[0])} does well"
    names = list(map(_called, names))
    return f"{' and '.join(names) if len(names) == 2 else f'{len(names)} rules'} do well"


def _called(name: str) -> str:
    """A rule's name in a sentence."""
    return {"article": "the article's formula", "article, scaled norm": "the formula with scaled norm"}.get(name, name)


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
    apart = [name for name, one in race.learners.items() if name not in stuck and abs(one.loss / reference - 1) > NEAR]
    parts = [f"{_names(stuck)} learn{'s' * (len(stuck) == 1)} nothing"] if stuck else []
    parts += [f"{_called(name)} ends at loss {race.learners[name].loss:.2g}" for name in apart[:2]]
    good = len(race.learners) - len(stuck) - len(apart)
    if not parts:
        return f"{'All end' if good > 1 else 'It ends'} within 5% of FP32's loss, {reference:.2g}"
    rest = f"{good} of {len(race.learners)} within 5% of FP32's {reference:.2g}"
    title = "; ".join([*parts, rest])
    if len(title) > LONGEST and apart:
        title = "; ".join([*parts[: bool(stuck)], f"{len(apart)} end{'s' * (len(apart) == 1)} further off", rest])
    return _begun(title)


def _lost_so_far(race: LiveScales) -> str:
    lost = {name: lap.lost_steps for name, lap in race.laps.items()}
    most = max(lost, key=lambda name: lost[name])
    return f"{_called(most)} has lost {_steps(lost[most])}" if lost[most] else "nobody has lost a step"


def _names(names: list[str]) -> str:
    return " and ".join(map(_called, names)) if len(names) < 3 else f"{len(names)} rules"
