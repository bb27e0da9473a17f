"""The doctor as a panel: the report of this machine, and a button to look again after a cure."""

from typing import Any

import ipywidgets as widgets

from mpkit.course.doctor import report as doctor
from mpkit.course.panels.panel import Panel, guarded


class DoctorPanel(Panel):
    """`.report` has the data. Its HTML holds times and versions, so a cell that shows it is not compared."""

    report: doctor.Report

    def __init__(self) -> None:
        self.view = widgets.HTML()
        again = widgets.Button(description="Examine again", tooltip="Measure again, for example after a cure")
        again.on_click(self.examine)
        super().__init__(self.view, again)
        self.examine()

    @guarded
    def examine(self, _button: Any = None) -> None:
        """Measure and show."""
        self.report = doctor.examine()
        self.view.value = self.report.html()

    def summary(self) -> str:
        """Device and number of formats, without times."""
        return f"Doctor: {len(self.report.formats)} formats examined on {self.report.device}"

    def html(self) -> str:
        """The report."""
        return self.report.html()


def doctor_panel() -> DoctorPanel:
    """Examine this machine and show the report."""
    return DoctorPanel()
