"""What a race says in words: its title, and one line about everybody."""

import math
from collections.abc import Mapping

from mpkit.course.lesson_06.live_race import REFERENCE, LiveRace, difference, has_yardstick, standings
from mpkit.course.pictures.style import percent
from mpkit.course.runs.experiments import Outcome

INVITATION = "Nobody has started yet: press Start"
NO_YARDSTICK = f"{REFERENCE} itself has learned nothing: try another learning rate"
LONGEST = 97  # letters of a title that fit above the picture
NOISE = "Undecided: the seeds differ more than the precisions"
TOO_FEW = f"Undecided: so few seeds cannot tell who is level with {REFERENCE}"
_ORDER = ("level", "ahead", "behind", "undecided", "stuck")


def headline(race: LiveRace | None) -> str:
    """The headline of a race that is over, or where it stands."""
    if race is None or not race.step:
        return INVITATION
    if race.over and not has_yardstick(race):
        return NO_YARDSTICK
    if race.over:
        return _verdict(race, standings(race))
    where = f"{'Stopped after' if race.stopped else 'Step'} {race.step} of {race.steps}"
    shown = race.shown
    lost = [name for name, o in shown.items() if not math.isfinite(o.records[-1].loss)]
    if lost:
        return f"{where}: the loss of {_list(lost)} is no longer a number"
    seen = {name: o.flushed for name, o in shown.items() if o.flushed is not None}
    if not seen:
        return where
    worst = max(seen, key=lambda name: seen[name])
    if seen[worst] < 0.005:
        return f"{where}: nobody has lost 1 % of the gradients"
    return f"{where}: {called(worst)} has lost {100 * seen[worst]:.0f} % of its gradients"


def detail(race: LiveRace | None) -> str:
    """The recipe, and what "level" means."""
    if race is None:
        return "Everybody trains the same networks on the same batches, one step each in turn."
    near = "5 % of FP32's test error" if race.task.autoencoder else "1 percentage point of FP32's test accuracy"
    recipe = f"{race.task.about}, learning rate {race.lr:g}."
    if race.task.wait and not race.over and (race.lr, race.steps) == (race.task.lr, race.task.steps):
        return f"{recipe} {race.task.wait}."
    return f"{recipe} Level: 90 % interval of {len(race.task.model().seeds)} seeds within {near}."


def line(race: LiveRace | None) -> str:
    """The finding as text that is the same on every machine: relations only."""
    if race is None:
        return INVITATION
    if not race.over:
        return f"{race.task.name}: {'stopped' if race.stopped else 'under way'}, {len(race.outcomes)} competitors"
    if not has_yardstick(race):
        return f"{race.task.name}, {race.steps} steps. {NO_YARDSTICK}."
    found = standings(race)
    groups = "; ".join(
        f"{kind}: {', '.join(map(called, _named(found, kind)))}" for kind in _ORDER if _named(found, kind)
    )
    return f"{race.task.name}, {race.steps} steps, against {REFERENCE}. {groups}."


def _named(found: Mapping[str, str], kind: str) -> list[str]:
    return [name for name, standing in found.items() if standing == kind]


def _verdict(race: LiveRace, found: Mapping[str, str]) -> str:
    """Who is stuck, and of one alone why; then who is behind, ahead or undecided, and who is level."""
    level, stuck, unclear = (_named(found, kind) for kind in ("level", "stuck", "undecided"))
    if len(level) == len(found) > 1:
        return f"All of them are level with {REFERENCE}"
    if len(unclear) == len(found):
        return TOO_FEW if any(difference(race, name).different for name in found) else NOISE
    why = _flushed(race, stuck[0]) if len(stuck) == 1 else ""
    for named, reason in ((2, why), (2, ""), (1, "")):  # the first that fits
        said = [f"{_list(stuck, named)} {_is(stuck)} stuck{reason}"] if stuck else []
        kinds = [(kind, _named(found, kind)) for kind in ("behind", "ahead", "undecided")]
        said += [f"{_list(names, named)} {_is(names)} {kind}" for kind, names in kinds if names]
        said += [f"{_list(level, named)} {_is(level)} level with {REFERENCE}"] if level else []
        if len(title := "; ".join(said)) <= LONGEST:
            break
    return title


def _flushed(race: LiveRace, name: str) -> str:
    share = race.outcomes[name].flushed or 0.0
    return f" ({percent(share).replace('%', ' %')} flushed)" if share > 0.5 else ""


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def called(name: str) -> str:
    """A competitor's name in a sentence: without its comma."""
    if name == "article":
        return "the article's recipe"
    return name.replace(", no scaling", " without scaling").replace(",", "")


def _list(names: list[str], most: int = 2) -> str:
    return " and ".join(map(called, names)) if len(names) <= most else f"{len(names)} competitors"


def cells(race: LiveRace, outcome: Outcome) -> tuple[str, str, str, str]:
    """A row of the table: loss now (unweighted), skipped steps, share flushed so far, mean score."""
    if not outcome.records:
        return "", "", "", ""
    loss = f"{outcome.records[-1].loss / race.task.weight:.3g}"
    flushed = "–" if outcome.flushed is None else f"{100 * outcome.flushed:.0f} %"
    score = (
        ("–" if race.stopped else "…")
        if not outcome.scores
        else f"{outcome.mean:.4f}"
        if race.task.autoencoder
        else f"{outcome.mean:.1%}"
    )
    return loss, str(outcome.skipped), flushed, score.replace("%", " %")


def spread(race: LiveRace, outcome: Outcome) -> str:
    """The standard deviation over the seeds, in the score's unit."""
    return f"± {outcome.spread:.4f}" if race.task.autoencoder else f"± {100 * outcome.spread:.1f} %"


def legend(race: LiveRace) -> tuple[str, ...]:
    """What stands in the table, line by line."""
    score, seeds = "Error" if race.task.autoencoder else "Test", len(race.task.model().seeds)
    columns = f"Loss: at {'the last' if race.over else 'that'} step. Flushed: mean of all steps."
    if not race.over:
        return columns, f"{score}: comes at the end of a race."
    return columns, f"{score}: on images kept for it, mean of {seeds} seeds;", "±: the standard deviation of the seeds."


def description(race: LiveRace | None) -> str:
    """The table as one line of text."""
    rows: Mapping[str, Outcome] = {} if race is None else race.shown
    names = ("loss", "skipped steps", "flushed", "score")
    said = [
        f"{name}: " + ", ".join(f"{what} {words}" for what, words in zip(names, cells(race, o), strict=True))
        for name, o in rows.items()
        if race is not None and o.records
    ]
    return ". ".join([headline(race), detail(race).rstrip("."), *said]) + "."
