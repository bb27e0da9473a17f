"""What the clinic shows of a patient: curves, answers, points. It changes nothing but what is seen."""

from collections.abc import Iterable
from typing import Any

import ipywidgets as widgets

from mpkit.course import markup
from mpkit.course.lesson_10.answers import GROUPS, cures, told
from mpkit.course.lesson_10.chart import BUDGET, Chart
from mpkit.course.lesson_10.clinic_picture import ClinicFigure
from mpkit.course.lesson_10.clinic_words import about, numbers, title
from mpkit.course.lesson_10.examination import Examination
from mpkit.course.lesson_10.tests import TESTS
from mpkit.course.lesson_10.waiting_room import NUMBERS, Curves, curves, patient
from mpkit.course.panels.controls import menu
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting
from mpkit.diagnosis import KINDS

KIND_ORDER = ("", *(kind for kinds in GROUPS.values() for kind in kinds))
CLOSE = "line-height:1.35"
FOUND = f"color:{markup.TEXT};{CLOSE}"
CODE = f"margin:0 0 2px 4px;white-space:pre-wrap;word-break:normal;font-size:12px;{FOUND}"


class ClinicPage(PicturePanel):
    """The patient who is there, and the chart. What a learner can do, `ClinicPanel` has."""

    patient = Setting(
        NUMBERS, menu("patient", "auto", 62, "who comes in"), doc="The patient's number.",
        text=lambda which: f"{which} · {patient(which).complaint}",
    )  # fmt: skip
    diagnosis = Setting(
        KIND_ORDER, menu("diagnosis", "auto", 62, "what may it be? Then press “name it”"),
        doc='The kind that is considered, or ""; `name` names it.',
        text=lambda kind: f"{told(kind)}: {KINDS[kind]}" if kind else "what is it?",
    )  # fmt: skip
    rows, drawn_by = (("patient",), ("diagnosis",)), ClinicFigure

    charts: dict[int, Chart]
    tests: dict[str, widgets.Button]
    naming: widgets.HBox
    curing: widgets.VBox
    codes: list[widgets.HTML]
    _device: str  # where the patients run
    _examined: dict[int, Examination]
    _here: int  # whose curves are shown; 0: nobody's yet

    @property
    def chart(self) -> Chart:
        """That of the patient who is there."""
        return self.charts.setdefault(self.patient, Chart())

    @property
    def examination(self) -> Examination:
        """The tests of the patient who is there."""
        if self.patient not in self._examined:
            self._examined[self.patient] = Examination(self.patient, self._device)
        return self._examined[self.patient]

    def look(self) -> None:
        """Run the patient's script, unless it was run before; until it has, who comes in is shown."""
        if self._here and self._here != self.patient:
            self.picture.value = self.figure.waiting(f"Patient {self.patient} comes in …", about(self.patient)).png()
            self.wait("The script runs as its owner ran it …")
            self.consider("")
        self.sick, self._here = curves(self.patient, True, self._device), self.patient

    def wait(self, words: str) -> None:
        """Say what is being done."""
        self.words.value = markup.status(words, style=CLOSE)

    def consider(self, kind: str) -> None:
        """Let the menu show a kind."""
        with self.hold():
            self.diagnosis = kind

    def draw(self) -> Any:
        """The curves; after the cure both runs."""
        return self.figure.show(self.sick, self.healed, self.headline(), about(self.patient))

    @property
    def healthy(self) -> bool:
        """Needs this patient no cure?"""
        return patient(self.patient).kind == "healthy"

    @property
    def healed(self) -> Curves | None:
        """The curves of the cured script, once its cure is found."""
        return curves(self.patient, False, self._device) if self.chart.cured and not self.healthy else None

    def show(self) -> None:
        """The picture, what stands beside it, and which controls are there."""
        chart = self.chart
        for name, one in self.tests.items():
            one.icon = "check" if name in chart.tests else ""
        self.naming.layout.display = None if chart.kind is None else "none"
        self.curing.layout.display = "none" if chart.kind is None or chart.cured else None
        for place, (_, code) in enumerate(cures(self.patient)):
            self.codes[place].value = pre(code)
        super().show()
        self.tell()

    def tell(self) -> None:
        """The words: what was said last, the points, and what the tests said."""
        score = f'<div style="{FOUND};font-weight:bold;margin-bottom:4px">{markup.escape(self.score())}</div>'
        self.words.value = markup.status(self.said(), style=CLOSE) + score + self._answers()

    def _answers(self) -> str:
        """What the tests said; if diagnose was asked last, what it says, and the tests folded below it."""
        found = _rows(self.found())
        if self.chart.reads_diagnosis:
            folded = f"<details><summary>What your tests said</summary>{found}</details>" if found else ""
            found = _rows(self.examination.diagnosis.items()) + folded
        return f'<div style="{FOUND}">{found}</div>'

    def found(self) -> list[tuple[str, str]]:
        """What the tests of this patient said, each with its name."""
        return [(TESTS[name].name, self.examination.said(name)) for name in self.chart.tests]

    def headline(self) -> str:
        """What the curves show."""
        state = ("healthy" if self.healthy else "cured") if self.chart.cured else ""
        return title(self.patient, self.healed or self.sick, state)

    def said(self) -> str:
        """The answer to the last guess, or what to do next."""
        chart = self.chart
        if chart.said:
            after = "Try another." if chart.said.startswith("The curve does not heal") else "Now pick the cure."
            return chart.said + ("" if chart.cured or chart.kind is None else f" {after}")
        if chart.reads_diagnosis:
            todo = f"{'name it and ' * (chart.kind is None)}pick the cure"
            return f"This is what mpkit.diagnose says. There are no points, but you may still {todo}."
        if chart.kind is not None:
            return "Now pick the cure."
        if chart.tests:
            return "Test on, or choose a diagnosis and name it."
        return f"{self.headline()}. Which test comes first? Each costs points."

    def summary(self) -> str:
        """The finding, every curve, what was tested, and the points, in words."""
        parts = [f"{self.headline()}. {about(self.patient)} {numbers(self.sick)}."]
        parts += [f"{test}: {said}" for test, said in self.found()]
        return " ".join((*parts, f"{self.score()}."))

    def score(self) -> str:
        """The points of this patient and of all."""
        solved = [chart for chart in self.charts.values() if chart.cured]
        total = sum(chart.earned for chart in solved)
        chart = self.chart
        here = f"{'diagnosed, ' * (chart.kind is not None)}{chart.left} of {BUDGET} points left"
        here = f"{points(chart.left)} for this one" if chart.cured else here
        return f"{here} · {len(solved)} of {len(NUMBERS)} solved, {points(total)}"


def _rows(said: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<div><b>{name}:</b> {_code_apart(words)}</div>" for name, words in said)


def _code_apart(words: str) -> str:
    """A sentence, and below it the code that comes with it, if any does."""
    first, _, code = words.partition("\n")
    return markup.escape(first) + (pre(code) if code else "")


def points(count: int) -> str:
    """How many, in words."""
    return f"{count} point{'s' * (count != 1)}"


def pre(text: str) -> str:
    """Text as it is, in HTML."""
    return f'<pre style="{CODE}">{markup.escape(text)}</pre>'
