"""What a race says in words: its title, and one line about everybody."""

import math
from collections.abc import Mapping

from mpkit.course.lesson_06.live_race import REFERENCE, LiveRace, has_yardstick, standings

INVITATION = "Nobody has started yet: press Start"
NO_YARDSTICK = f"{REFERENCE} itself has learned nothing: try another learning rate"
_ORDER = ("level", "ahead", "behind", "stuck")


def headline(race: LiveRace | None) -> str:
    """The headline of a race that is over, or where it stands."""
    if race is None or not any(o.records for o in race.outcomes.values()):
        return INVITATION
    if race.over and not has_yardstick(race):
        return NO_YARDSTICK
    if race.over:
        return _verdict(standings(race))
    where = f"{'Stopped after' if race.stopped else 'Step'} {race.step} of {race.steps}"
    lost = [name for name, o in race.outcomes.items() if o.records and not math.isfinite(o.records[-1].loss)]
    if lost:
        return f"{where}: the loss of {', '.join(lost)} is no longer a number"
    seen = {name: o.flushed for name, o in race.outcomes.items() if o.flushed is not None}
    if not seen:
        return where
    worst = max(seen, key=lambda name: seen[name])
    if seen[worst] < 0.005:
        return f"{where}: nobody has lost 1 % of the gradients"
    return f"{where}: {worst} has lost {100 * seen[worst]:.0f} % of its gradients"


def detail(race: LiveRace | None) -> str:
    """The recipe, and what "level" means."""
    if race is None:
        return "Everybody trains the same networks on the same batches, one step each in turn."
    measure = "5 % of its mean test error" if race.task.autoencoder else "1 percentage point of its mean test accuracy"
    recipe = f"{race.task.about}, learning rate {race.lr:g}."
    return f"{recipe} Level: within {measure}, {len(race.task.model().seeds)} seeds."


def line(race: LiveRace | None) -> str:
    """The finding as text that is the same on every machine: relations only."""
    if race is None:
        return INVITATION
    if not race.over:
        return f"{race.task.name}: {'stopped' if race.stopped else 'under way'}, {len(race.outcomes)} competitors"
    if not has_yardstick(race):
        return f"{race.task.name}, {race.steps} steps. {NO_YARDSTICK}."
    found = standings(race)
    groups = "; ".join(f"{kind}: {', '.join(_named(found, kind))}" for kind in _ORDER if _named(found, kind))
    return f"{race.task.name}, {race.steps} steps, against {REFERENCE}. {groups}."


def _named(found: Mapping[str, str], kind: str) -> list[str]:
    return [name for name, standing in found.items() if standing == kind]


def _verdict(found: Mapping[str, str]) -> str:
    level = _named(found, "level")
    if len(level) == len(found):
        return f"Level with {REFERENCE}: all of them" if len(level) > 1 else f"{level[0]} is level with {REFERENCE}"
    rest = [
        f"{words}: {_list(_named(found, kind))}"
        for kind, words in (("stuck", "stuck"), ("behind", "behind"), ("ahead", "ahead"))
        if _named(found, kind)
    ]
    return f"{len(level)} of {len(found)} level with {REFERENCE}; {'; '.join(rest)}"


def _list(names: list[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{len(names)} competitors"
