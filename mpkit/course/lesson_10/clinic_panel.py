"""The clinic: a patient, tests that cost points, a diagnosis, a cure, and the curve that heals or does not."""

from functools import partial
from typing import Any

import ipywidgets as widgets

from mpkit.course import markup
from mpkit.course.lesson_10.answers import GROUPS, cure_judged, cures, judged, told
from mpkit.course.lesson_10.chart import BUDGET, Chart
from mpkit.course.lesson_10.clinic_picture import ClinicFigure
from mpkit.course.lesson_10.clinic_words import about, numbers, title
from mpkit.course.lesson_10.examination import TESTS, Examination
from mpkit.course.lesson_10.waiting_room import NUMBERS, curves, patient
from mpkit.course.panels.controls import button, menu
from mpkit.course.panels.panel import guarded
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import Setting, offered
from mpkit.diagnosis import KINDS


class ClinicPanel(PicturePanel):
    """Patients of the clinic, to be tested, diagnosed and cured. Every test and every curve is a real run.

    Args:
        device: where the patients run.
        start: `patient`, a number from 1 to 29. ValueError: there is none.
    """

    patient = Setting(
        NUMBERS, menu("patient", "100%", 60, "who comes in"), doc="The patient's number.",
        text=lambda which: f"{which} · {patient(which).complaint}",
    )  # fmt: skip
    rows, drawn_by = (("patient",),), ClinicFigure

    def __init__(self, device: str = "cpu", **start: Any) -> None:
        self._device = device  # where the patients run
        self.charts: dict[int, Chart] = {}
        self._examined: dict[int, Examination] = {}
        self.tests = {
            name: button(f"{one.name} · {one.cost}", partial(self.test, name), f"{one.asks}; {_points(one.cost)}")
            for name, one in TESTS.items()
        }
        self.again = button("begin again", self.forget, "a fresh chart for this patient")
        self.ask = button("show me", self.show_me, "what mpkit.diagnose says of it; no points then")
        self.kinds = {kind: button(told(kind), partial(self.name, kind), KINDS[kind]) for kind in KINDS}
        self.cures = [button(f"cure {letter}", partial(self.cure, place)) for place, letter in enumerate("ABC")]
        self.code = widgets.HTML()
        naming = [_row(f"{group}:", *(self.kinds[kind] for kind in kinds)) for group, kinds in GROUPS.items()]
        self.naming, self.curing = widgets.VBox(naming), widgets.VBox([self.code, _row("which one?", *self.cures)])
        self.below_rows = [_row("tests:", *self.tests.values(), self.ask, self.again), self.naming, self.curing]
        super().__init__(**start)

    # ---- what a learner does ----

    @guarded
    def test(self, name: str) -> None:
        """Make a test of TESTS, for points. ValueError: there is none of that name."""
        offered("test", name, TESTS)
        chart = self.chart
        if name not in chart.tests:
            self.examination.said(name)
            chart.tests.append(name)
        self.show()

    @guarded
    def name(self, kind: str) -> None:
        """Name a diagnosis, one of KINDS. ValueError: it is none."""
        offered("kind", kind, KINDS)
        chart = self.chart
        right, chart.said = judged(self.patient, kind)
        if right:
            chart.kind = kind
        elif kind not in chart.wrong and chart.kind is None:
            chart.wrong.append(kind)
        self.show()

    @guarded
    def cure(self, place: int) -> None:
        """Pick a cure, 0 to 2, when the diagnosis is right. ValueError: it is none of those, or too early."""
        offered("cure", place, (0, 1, 2))
        chart = self.chart
        if chart.kind is None:
            raise ValueError("name the diagnosis first, then pick a cure.")
        right, chart.said = cure_judged(self.patient, place)
        if right:
            chart.cured = True
        elif place not in chart.wrong_cures and not chart.cured:
            chart.wrong_cures.append(place)
        self.show()

    @guarded
    def show_me(self) -> None:
        """Let `mpkit.diagnose` say it: then this patient gives no points, unless it had been cured before."""
        self.examination.diagnosis  # noqa: B018
        if not self.chart.cured:
            self.chart.told = True
        self.show()

    @guarded
    def forget(self) -> None:
        """Begin again with this patient."""
        self.charts.pop(self.patient, None)
        self.show()

    # ---- what is shown ----

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
        """Run the patient's script, unless it was run before."""
        self.sick = curves(self.patient, True, self._device)

    def draw(self) -> Any:
        """The curves; after the cure both runs."""
        cured = curves(self.patient, False, self._device) if self.chart.cured else None
        return self.figure.show(self.sick, cured, self.headline(), about(self.patient), self.score())

    def show(self) -> None:
        """The picture, what stands below it, and which buttons can be pressed."""
        chart = self.chart
        for name, one in self.tests.items():
            one.icon = "check" if name in chart.tests else ""
        self.naming.layout.display = None if chart.kind is None else "none"
        self.curing.layout.display = "none" if chart.kind is None or chart.cured else None
        offers = zip("ABC", cures(self.patient), strict=True)
        self.code.value = "".join(
            f"<div style='display:flex;align-items:baseline'>{letter}: {_pre(code)}</div>"
            for letter, (_, code) in offers
        )
        super().show()
        found = "".join(f"<div><b>{test}:</b> {markup.escape(said)}</div>" for test, said in self.found())
        told = _pre(self.examination.diagnosis) if chart.told else ""
        self.words.value += f'<div style="color:{markup.TEXT};line-height:1.4">{found}{told}</div>'

    def found(self) -> list[tuple[str, str]]:
        """What the tests of this patient said, each with its name."""
        return [(TESTS[name].name, self.examination.said(name)) for name in self.chart.tests]

    def headline(self) -> str:
        """What the curves show."""
        chart = self.chart
        return title(self.patient, curves(self.patient, False, self._device) if chart.cured else self.sick, chart.cured)

    def said(self) -> str:
        """The answer to the last guess, or what to do next."""
        chart = self.chart
        if chart.said:
            after = "" if chart.cured or chart.kind is None else " Now pick the cure."
            return chart.said + after
        if chart.told:
            return "This is what mpkit.diagnose says. There are no points, but you may still name it and pick the cure."
        if chart.tests:
            return "Test on, or name the diagnosis: where does it come from?"
        return f"{self.headline()}. Which test comes first? Each costs points."

    def summary(self) -> str:
        """The finding, every curve, what was tested, and the points, in words."""
        parts = [f"{self.headline()}. {about(self.patient)} {numbers(self.sick)}."]
        parts += [f"{test}: {said}" for test, said in self.found()]
        return " ".join((*parts, f"{self.score()}."))

    def score(self) -> str:
        """The points of this patient and of all."""
        cured = [chart for chart in self.charts.values() if chart.cured]
        total = sum(chart.earned for chart in cured)
        chart = self.chart
        here = f"{'diagnosed, ' * (chart.kind is not None)}{chart.left} of {BUDGET} points left"
        here = f"{_points(chart.left)} for this one" if chart.cured else here
        return f"{here} · {len(cured)} of {len(NUMBERS)} cured, {_points(total)}"


def _points(count: int) -> str:
    return f"{count} point{'s' * (count != 1)}"


def _pre(text: str) -> str:
    return f'<pre style="margin:0 0 2px 8px;white-space:pre-wrap">{markup.escape(text)}</pre>'


def _row(label: str, *made: widgets.Widget) -> widgets.HBox:
    """A label and buttons; a narrow page breaks the row."""
    return widgets.HBox([widgets.Label(label, layout=widgets.Layout(width="84px")), *made],
                        layout=widgets.Layout(flex_flow="row wrap"))  # fmt: skip
