"""The clinic: a patient, tests that cost points, a diagnosis, a cure, and the curve that heals or does not."""

from functools import partial
from typing import Any

import ipywidgets as widgets

from mpkit.course.lesson_10.answers import considered, cure_judged, judged
from mpkit.course.lesson_10.chart import WRONG_CURE, WRONG_KIND, Chart
from mpkit.course.lesson_10.clinic_page import ClinicPage, points
from mpkit.course.lesson_10.clinic_picture import SIZE
from mpkit.course.lesson_10.examination import Examination
from mpkit.course.lesson_10.tests import TESTS
from mpkit.course.panels.controls import button, label_of
from mpkit.course.panels.panel import BadInput, guarded
from mpkit.course.panels.setting import offered
from mpkit.diagnosis import KINDS


class ClinicPanel(ClinicPage):
    """Patients of the clinic, to be tested, diagnosed and cured. Every test and every curve is a real run.

    Args:
        device: where the patients run.
        start: `patient`, a number from 1 to 29. ValueError: there is none.
    """

    def __init__(self, device: str = "cpu", **start: Any) -> None:
        self._device = device
        self.charts, self._examined, self._here = dict[int, Chart](), dict[int, Examination](), 0
        self.tests = {
            name: button(f"{one.name} · {one.cost}", partial(self.test, name), f"{one.asks}; {points(one.cost)}")
            for name, one in TESTS.items()
        }
        self.again = button("begin again", self.forget, "a fresh chart for this patient")
        self.ask = button("show me", self.show_me, "what mpkit.diagnose says of it; no points then")
        self.name_it = button("name it", self.name, f"costs {points(WRONG_KIND)} if a test that you made denies it")
        self.cures = [button(f"cure {letter}", partial(self.cure, place), f"{points(WRONG_CURE)} if nothing heals")
                      for place, letter in enumerate("ABC")]  # fmt: skip
        self.codes = [widgets.HTML() for _ in self.cures]
        offers = [_line(*row) for row in zip(self.cures, self.codes, strict=True)]
        self.naming, self.curing = _line(), widgets.VBox(offers)
        self.below_rows = [_line(label_of("tests", 62), *self.tests.values()), self.naming, self.curing]
        super().__init__(**start)
        self._arrange()

    def _arrange(self) -> None:
        """The answers stand beside the picture; on a narrow page below it."""
        who, what, tests, *_, message, picture, words, names = self.box.children
        for chosen in (who, what):
            chosen.layout.flex, chosen.layout.min_width = "1 1 300px", "0"  # else as wide as its longest option
        self.naming.children = (what, self.name_it)
        picture.layout.width, picture.layout.max_width, picture.layout.flex = "auto", f"{SIZE[0]}px", "1 1 420px"
        words.layout.flex, words.layout.min_width = "1 1 340px", "0"
        picture.layout.min_width = "0"  # else as wide as its dots
        words.layout.max_height, words.layout.overflow = f"{SIZE[1]}px", "auto"
        beside = widgets.HBox([picture, words], layout=widgets.Layout(flex_flow="row wrap", align_items="flex-start"))
        self.box.children = (_line(who, self.ask, self.again), tests, self.naming, self.curing, message, beside, names)

    @guarded
    def test(self, name: str) -> None:
        """Make a test of TESTS, for points. ValueError: there is none of that name."""
        offered("test", name, TESTS)
        chart = self.chart
        if name not in chart.tests:
            self.wait(f"Running {TESTS[name].asks} …")
            self.examination.said(name)
            chart.tests.append(name)
            chart.said = "" if chart.kind is None else chart.said
        chart.reads_diagnosis = False
        self.show()

    @guarded
    def name(self, kind: str = "") -> None:
        """Name a diagnosis, one of KINDS; "": the one that the menu shows. ValueError: it is none."""
        kind = kind or self.diagnosis
        if not kind:
            raise BadInput("Choose a diagnosis from the list first.")
        offered("kind", kind, KINDS)
        chart = self.chart
        verdict, chart.said = judged(self.examination, kind, chart.tests)
        if verdict == "right":
            chart.kind, chart.cured = kind, chart.cured or self.healthy
        elif verdict == "wrong" and kind not in chart.wrong and chart.kind is None:
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
            self.wait("The cured script runs …")
            chart.cured = True
        elif place not in chart.wrong_cures and not chart.cured:
            chart.wrong_cures.append(place)
        self.show()

    @guarded
    def show_me(self) -> None:
        """Let `mpkit.diagnose` say it: then this patient gives no points, unless it had been cured before."""
        self.wait("mpkit.diagnose runs the step, eight times at most …")
        self.examination.diagnosis  # noqa: B018
        chart = self.chart
        chart.told, chart.reads_diagnosis = chart.told or not chart.cured, True
        chart.said = chart.said if chart.cured else ""  # else the last guess hides what there is to say now
        self.show()

    @guarded
    def forget(self) -> None:
        """Begin again with this patient."""
        self.charts.pop(self.patient, None)
        self.consider("")
        self.show()

    def choose(self, **settings: Any) -> None:
        """Set several settings and draw once. The patient comes in first: with a new one the menu forgets its kind."""
        if "patient" in settings:
            super().choose(patient=settings.pop("patient"))
        if settings:
            super().choose(**settings)
            self._weigh()

    def moved(self, change: Any) -> None:
        """Another patient, or another diagnosis to think about."""
        if change.owner is self.controls["diagnosis"]:
            self._weigh()
        else:
            super().moved(change)

    @guarded
    def _weigh(self) -> None:
        """Say what would have to be seen if it were the kind that the menu shows."""
        if not self._held and self.chart.kind is None:
            self.chart.said = considered(self.diagnosis) if self.diagnosis else ""
            self.tell()


def _line(*made: widgets.Widget) -> widgets.HBox:
    """A row that a narrow page breaks."""
    return widgets.HBox(made, layout=widgets.Layout(flex_flow="row wrap", align_items="center"))
