"""A bar that shows how far a training is, for cells that only want its results."""

import time
from collections.abc import Iterable

import ipywidgets as widgets
from IPython.display import display

from mpkit.course.panels.panel import Panel
from mpkit.course.runs.experiments import Outcome


class Progress(Panel):
    """A progress bar over `runs` runs of `steps` steps each, with the name of the run in progress."""

    def __init__(self, runs: int, steps: int) -> None:
        self.runs, self.steps = runs, steps
        self.bar = widgets.IntProgress(0, 0, runs * steps, layout=widgets.Layout(width="420px"))
        self.state = widgets.HTML()
        super().__init__(widgets.HBox([self.bar, self.state]))

    def summary(self) -> str:
        """How much there is to do; it does not change on the way."""
        return f"{self.runs} {'run' if self.runs == 1 else 'runs'} of {self.steps} steps"

    def follow(self, training: Iterable[dict[str, Outcome]]) -> dict[str, Outcome]:
        """Show the bar, run the training, and return the results."""
        display(self)
        results: dict[str, Outcome] = {}
        shown = 0.0
        for done, results in enumerate(training, 1):
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                self.bar.value = done
                self.state.value = f"{len(results)} of {self.runs}: {list(results.values())[-1].label}"
        self.bar.value, self.state.value = self.runs * self.steps, "done"
        return results


def with_progress(training: Iterable[dict[str, Outcome]], runs: int, steps: int) -> dict[str, Outcome]:
    """Make a `Progress`, follow the training, and return the results."""
    return Progress(runs, steps).follow(training)
