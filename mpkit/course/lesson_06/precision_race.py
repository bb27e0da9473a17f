"""The live race of lesson 06: several precisions train side by side while the learner watches."""

from typing import Any

from mpkit.course.lesson_06.live_race import COMPETITORS, REFERENCE, TASKS, WHAT, LiveRace
from mpkit.course.lesson_06.paled_picture import Paled
from mpkit.course.lesson_06.precision_race_picture import RaceFigure
from mpkit.course.lesson_06.precision_race_words import description, headline, line
from mpkit.course.panels import runner as background
from mpkit.course.panels.controls import buttons, field
from mpkit.course.panels.live_panel import LivePanel
from mpkit.course.panels.panel import BadInput, guarded
from mpkit.course.panels.setting import Setting, Several, TypedNumber
from mpkit.course.runs.how import how

CHOSEN = ("FP16, no scaling", "FP16, dynamic", "BF16")
ENDED = "Press Start for a new race: you changed the {}, and the old one was stopped"
ALIKE = "Everybody trained the same networks on the same batches, one step each in turn."
STALE = "Press Start for a new race: this one is from before you changed the {}"


class PrecisionRacePanel(LivePanel[LiveRace]):
    """Choose a task and competitors, press Start, and watch them train; FP32 always takes part.

    `race` is the race that is shown, or None before the first; `device`: where they train. A new panel stops the race
    of an older one.
    """

    task = Setting(
        TASKS,
        buttons("task", 502, 112, "what everybody learns", 112, tooltips=[task.about for task in TASKS.values()]),
        doc="Name of the task of the next race.",
    )
    lr = TypedNumber(
        field("learning rate", 190, 90, "learning rate of the next race"), next(iter(TASKS.values())).lr,
        doc="Learning rate of the next race.",
    )  # fmt: skip
    competitors = Several(
        [name for name in COMPETITORS if name != REFERENCE], CHOSEN, label="against FP32", room=112,
        tooltip=lambda name: f"{name}: {WHAT[name]}", doc="Who takes part in the next race, FP32 left out.",
    )  # fmt: skip
    words_room, announce = 28, "off"
    rows, drawn_by = (("task", "lr"), ("competitors",)), RaceFigure

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.old = device, ""
        background.stop(type(self).__name__)
        super().__init__()

    @guarded
    def moved(self, change: Any) -> None:
        """The race ends, for it is no longer the one that is chosen; another task has another learning rate."""
        name = next(name for name, control in self.controls.items() if control is change["owner"])
        if self._held or name == "lr":
            if self.runner.active and not self._held:
                self.say("This learning rate is for the next race.")
            elif self.race and not self._held:
                self._make_old(STALE.format("learning rate"))
            return
        if name == "task":
            with self.hold():
                self.lr = TASKS[self.task].lr
        if self.runner.active:
            self.runner.stop()
            self._make_old(ENDED.format(name))
        elif self.race:
            self._make_old(STALE.format(name))

    def _make_old(self, why: str) -> None:
        """The picture turns pale and says what to do."""
        self.old = why
        self.buttons.clear()
        self.show()

    def began(self) -> None:
        """What is shown is what is chosen."""
        self.old = ""

    def new_race(self, steps: int | None) -> LiveRace:
        """The task, and FP32 with those who are chosen; the race before ends even if this one cannot be made."""
        self.runner.stop()
        if not self.competitors:
            raise BadInput("Nobody is there to race against FP32; choose at least one competitor.")
        variants = [COMPETITORS[name] for name in (REFERENCE, *self.competitors)]
        return LiveRace(variants, TASKS[self.task], self.lr, steps, self.device)

    def draw(self) -> Any:
        """Curves and a table."""
        frame = self.figure.show(self.race, "" if self.old else self.headline())
        return Paled(frame, self.old) if self.old else frame

    def headline(self) -> str:
        """Who is level with FP32, or where the race stands; of an old race what to do now."""
        return self.old or headline(self.race)

    def said(self) -> str:
        """Where the race stands or, when it is over, what was alike for all; on a GPU how it is computed there."""
        if self.old:
            return f"{self.old}."
        told = how(self.race.runs) if self.race else ""
        words = ALIKE if self.race and self.race.over else self.summary()
        return f"{words.rstrip('.')}. {told}" if told else words

    def unseen(self) -> str:
        """The summary of a race that is over: those who see have it in the title."""
        return self.summary() if self.race and self.race.over and not self.old else ""

    def summary(self) -> str:
        """Who ended level with FP32 and who is stuck; the same on every machine."""
        return line(self.race)

    def alt(self) -> str:
        """The headline and the table."""
        return f"{self.old}. {description(self.race)}" if self.old else description(self.race)
