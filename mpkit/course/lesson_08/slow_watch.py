"""Watch a training as in the other lessons, with fewer pictures: this one takes a minute, and each costs it 0.3 s."""

from collections.abc import Iterable
from typing import Any

from mpkit.course.panels.live_comparison import LiveComparison, Results

BETWEEN_PICTURES = 10.0  # seconds; the bar moves all the time


def watch(training: Iterable[Results], **settings: Any) -> Results:
    """Make a `LiveComparison` with `settings`, follow the training, and return the results."""
    return LiveComparison(**settings).follow(training, BETWEEN_PICTURES)
