"""The panel of lesson 05: scaling rules raced on the gradients of a run, or training, against the window of scales."""

from collections.abc import Mapping, Sequence
from typing import Any

from mpkit.course.lesson_05.live_rules import STEPS, LiveScales
from mpkit.course.lesson_05.rule_choice import (
    ABOUT,
    BACKOFFS,
    INITS,
    INTERVALS,
    MOST,
    RULES,
    RUNS,
    SHOWN,
    chosen_rule,
    history_of,
)
from mpkit.course.lesson_05.rule_race import Lap, race
from mpkit.course.lesson_05.scaler_race_picture import ScalerRaceFigure
from mpkit.course.lesson_05.scaler_race_words import CLOSED_LOOP, MADE_UP_LOOP, OPEN_LOOP, headline, live_headline, row
from mpkit.course.panels.controls import buttons, slider
from mpkit.course.panels.live_panel import LivePanel
from mpkit.course.panels.panel import BadInput, guarded
from mpkit.course.panels.setting import OwnSetting, Setting, Several
from mpkit.course.pictures.style import power
from mpkit.course.runs.how import how
from mpkit.scaling import ScaleRule

DEFAULT = ("torch", "megatron", "LogMax", "article")
MADE_UP = "No network made these gradients, so there is nothing to train. Choose one of the other four first."


OWN_WORDS = "its own: each rule keeps what its library chose"


def _clean_steps(count: int) -> str:
    return f"\u2002{count:,} step{'s' * (count != 1)}"  # a space, or the longest would touch the handle


class _Rules(Several):
    def _held(self, panel: Any, value: Any) -> Any:
        names = super()._held(panel, value)
        if not 1 <= len(names) <= MOST:
            raise ValueError(f"one to {MOST} rules can be raced, but {len(names)} came: {', '.join(names)}.")
        return names


class ScalerRacePanel(LivePanel[LiveScales]):
    """Up to five rules on the gradients of one run; the sliders replace what the libraries chose; the button trains.

    `laps` holds the numbers; `race` is what trains, on `device`, None while a recording is shown.

    Raises:
        ValueError: a run or a rule that the panel does not offer, or more than five rules.
    """

    gradients = Setting(
        RUNS, buttons("gradients of", "100%", 96, button=128), doc="Name of the run whose gradients are shown."
    )
    rules = _Rules(
        RULES,
        DEFAULT,
        label="rules",
        room=96,
        tooltip=ABOUT.__getitem__,
        first=SHOWN,
        doc="Names of the rules in the race, one to five.",
    )
    log2_init = OwnSetting(
        INITS, slider("initial scale", 330, 96, OWN_WORDS), text=power,
        doc="Exponent of every rule's initial scale, or None: each its own.",
    )  # fmt: skip
    interval = OwnSetting(
        INTERVALS, slider("grow after", 354, 96, OWN_WORDS), text=_clean_steps,
        doc="Clean steps before growth, or None: each its own.",
    )  # fmt: skip
    backoff = OwnSetting(
        BACKOFFS, slider("backoff", 330, 96, OWN_WORDS), text="× {}".format,
        doc="Factor at an overflow, or None: each its own.",
    )  # fmt: skip
    start_button, what = "Train live", "training"
    rows = ("gradients",), ("rules",), ("log2_init", "interval", "backoff")
    drawn_by = ScalerRaceFigure
    words_room, message_room = 52, 40  # one line or two of words, one of a message

    def __init__(self, gradients: str = "bad start", rules: Sequence[str] = DEFAULT, device: str = "cpu") -> None:
        self.device = device
        self._recorded: dict[str, Lap] = {}
        self._memo: dict[tuple[ScaleRule, str], Lap] = {}
        super().__init__(gradients=gradients, rules=rules)

    @property
    def laps(self) -> Mapping[str, Lap]:
        """What each rule did, by name."""
        return self.race.laps if self.race else self._recorded

    @guarded
    def moved(self, change: Any) -> None:
        """A race that trains ends; a sixth rule is taken back."""
        if change["owner"] is self.controls["rules"] and len(change["new"]) > MOST:
            with self.hold():
                change["owner"].value = change["old"]
            raise BadInput(f"{MOST} rules are raced already. Press one of them to take it out, then choose another.")
        super().moved(change)

    def look(self) -> None:
        """Race on the recorded gradients; a race that trains ends."""
        name = RUNS[self.gradients]
        laps = {rule: self._lap(self._rule(rule), name) for rule in self.rules}
        self.end_race()
        self._recorded, self._shown = laps, self.gradients

    def new_race(self, steps: int | None) -> LiveScales:
        """The rules that are chosen, on the recipe of the recorded run."""
        name = RUNS[self.gradients]
        if name == "synthetic":
            raise BadInput(MADE_UP)
        rules = {rule: self._rule(rule) for rule in self.rules}
        return LiveScales(name, rules, STEPS if steps is None else steps, self.device)

    def began(self) -> None:
        """The race is the one of the run that is chosen."""
        self._shown = self.gradients

    def draw(self) -> Any:
        """Every rule's scale in the window; a race that trains has one of its own length."""
        history = history_of(RUNS[self._shown])
        if self.race is None:
            return self.figure.show(history, self.laps, self.headline())
        about = f"Live: {self.race.about}; seed 0"
        return self.figure.show(history, self.laps, self.headline(), about, self.race.steps)

    def headline(self) -> str:
        """Who loses steps, who flushes, or where the training is."""
        return live_headline(self.race) if self.race else headline(self.laps)

    def said(self) -> str:
        """Where the gradients come from."""
        if self.race:
            return f"{CLOSED_LOOP} {how(self.race.runs)}".rstrip()
        return MADE_UP_LOOP if RUNS[self._shown] == "synthetic" else OPEN_LOOP

    def unseen(self) -> str:
        """The headline: the picture has it already."""
        return f"{self.headline()}."

    def summary(self) -> str:
        """The picture in words."""
        live = ", live" if self.race else ""
        return "\n".join([f"{self._shown}{live}: {self.headline()}.", *(row(*item) for item in self.laps.items())])

    def alt(self) -> str:
        """The picture's content for those who cannot see it."""
        rows = "; ".join(row(name, lap) for name, lap in self.laps.items())
        return f"{self.headline()}. Loss scale of each rule over the training steps of {self._shown}. {rows}."

    def _rule(self, name: str) -> ScaleRule:
        return chosen_rule(name, self.log2_init, self.interval, self.backoff)

    def _lap(self, rule: ScaleRule, name: str) -> Lap:
        """A race that was run before is not run again: popart's takes 40 ms."""
        if (rule, name) not in self._memo:
            self._memo[rule, name] = race(rule, history_of(name))
        return self._memo[rule, name]
