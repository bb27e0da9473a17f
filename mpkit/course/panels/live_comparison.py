"""Watch several runs train, one after the other, and keep the final picture."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from mpkit.course.panels.panel import Panel, Picture
from mpkit.course.pictures.comparison import comparison
from mpkit.course.pictures.still import to_png
from mpkit.course.runs.equivalence import equivalence
from mpkit.course.runs.experiments import Outcome

BETWEEN_MOVES = 0.2  # seconds, of the bar
Results = dict[str, Outcome]


class Finished(dict[str, Outcome]):
    """The runs that were over when a training ended or was stopped, by name."""

    def __missing__(self, name: str) -> Outcome:
        """Raises LookupError: there is no such run, or it was stopped before its end."""
        finished = ", ".join(self) or "none"
        raise LookupError(
            f"there is no finished run {name!r}; finished: {finished}. If the training was stopped, run its cell again."
        )


class LiveComparison(Panel):
    """A picture and a progress bar that follow `train_each`.

    Args:
        title: the question, shown while the runs train.
        headline: results → the title of the finished picture.
        reference: name of the run that the others are compared with.
        steps: steps of each run. `runs`: how many runs there are.
        loss_label, score_label: axis labels with units.
        margin: of a test of equivalence with the reference; None: every seed's score is shown instead.
    """

    def __init__(
        self, title: str, headline: Callable[[Results], str], reference: str, steps: int, runs: int,
        loss_label: str, score_label: str, margin: float | None = None,
    ) -> None:  # fmt: skip
        self.title, self.headline, self.reference, self.steps, self.runs = title, headline, reference, steps, runs
        self.labels = {"loss_label": loss_label, "score_label": score_label}
        self.margin, self.results = margin, Results()
        self.progress = widgets.IntProgress(0, 0, steps * runs, layout=widgets.Layout(width="420px"))
        self.state = widgets.HTML()
        self.picture = Picture()
        self.bar = widgets.HBox([self.progress, self.state])
        super().__init__(self.bar, self.picture)

    def follow(self, training: Iterable[Results], seconds_between_pictures: float = 3.0) -> Results:
        """Show the panel, run the training, and return the results.

        The ■ of the toolbar stops it; then the runs that were over by then are returned, and the title says so.
        """
        self._draw(self.title)  # empty axes: there before the first step is taken
        display(self)
        with contextlib.suppress(KeyboardInterrupt):
            self._follow(training, seconds_between_pictures)
        self.results = Finished((name, outcome) for name, outcome in self.results.items() if outcome.scores)
        self.bar.layout.display = "none"
        self._draw(self._last_title())
        self.twins.update()  # the stored output becomes the finished picture
        return self.results

    def _follow(self, training: Iterable[Results], seconds_between_pictures: float) -> None:
        moved, drawn = -math.inf, time.monotonic()
        for done, results in enumerate(training, 1):
            self.results, now = results, time.monotonic()
            if now - moved > min(BETWEEN_MOVES, seconds_between_pictures):
                moved, self.progress.value = now, done
                self.state.value = f"{len(results)} of {self.runs}: {list(results.values())[-1].label}"
            if now - drawn > seconds_between_pictures:
                self._draw(self.title)
                drawn = time.monotonic()

    def _last_title(self) -> str:
        if len(self.results) < self.runs:
            return f"Stopped: {len(self.results)} of {self.runs} runs finished. Run the cell again for all of them."
        return self.headline(self.results)

    def summary(self) -> str:
        """The question; it does not change while the picture does."""
        return self.title

    def png(self) -> bytes | None:
        """The picture shown now, or None before the first one."""
        return bytes(self.picture.value) or None

    def alt(self) -> str:
        """The finding and every run's mean score with its spread."""
        if not all(outcome.scores for outcome in self.results.values()) or len(self.results) < self.runs:
            return self.title
        return f"{self.headline(self.results)}. {self.labels['score_label']}{self._numbers()}."

    def _numbers(self) -> str:
        if self.margin is None:
            return ": " + "; ".join(f"{name}: {o.mean:.3g} ± {o.spread:.1g}" for name, o in self.results.items())
        base = self.results[self.reference].scores
        rows = []
        for name, outcome in self.results.items():
            if name != self.reference and all(map(math.isfinite, (*outcome.scores, *base))):
                test = equivalence(outcome.scores, base, self.margin)
                rows.append(f"{name}: {test.low:+.2g} to {test.high:+.2g}")
        return f", minus {self.reference}'s, 90 % interval, margin {self.margin:g}: {'; '.join(rows)}"

    def _draw(self, title: str) -> None:
        figure = comparison(self.results, self.reference, title, steps=self.steps, margin=self.margin, **self.labels)
        self.picture.value = to_png(figure)
        self.picture.tooltip = title


def watch(training: Iterable[Results], **settings: Any) -> Results:
    """Make a `LiveComparison` with `settings`, follow the training, and return the results."""
    return LiveComparison(**settings).follow(training)
