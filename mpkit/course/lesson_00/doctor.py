"""The doctor as a panel: the report of this machine, and a button to look again after a cure."""

import ipywidgets as widgets

from mpkit.course.doctor import report as doctor
from mpkit.course.panels.controls import button
from mpkit.course.panels.panel import Panel, guarded

AGAIN = "Examine again"


class DoctorPanel(Panel):
    """`.report` has the data. Its HTML holds times and versions, so a cell that shows it is not compared."""

    report: doctor.Report

    def __init__(self) -> None:
        self.view = widgets.HTML()
        self.again = button(AGAIN, self.examine, "Measure again, for example after a cure")
        super().__init__(self.view, self.again)
        self.examine()

    @guarded
    def examine(self) -> None:
        """Measure and show."""
        self.again.disabled, self.again.description = True, "examining …"
        try:
            self.report = doctor.examine()
            self.view.value = self.report.html()
        finally:
            self.again.disabled, self.again.description = False, AGAIN

    def summary(self) -> str:
        """Device and number of formats, without times."""
        return f"Doctor: {len(self.report.formats)} formats examined on {self.report.device}"

    def html(self) -> str:
        """The report."""
        return self.report.html()


def doctor_panel() -> DoctorPanel:
    """Examine this machine and show the report."""
    return DoctorPanel()
