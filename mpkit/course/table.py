"""The table of lessons: number, title, the question, and a learner's minutes."""

import importlib.util
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One row of the course: what the lesson is called, what it answers, and a learner's minutes for it."""

    number: str
    title: str
    question: str
    minutes: int

    @property
    def slug(self) -> str:
        """The title in a file's name: "Measure the speed-up" is measure_the_speedup."""
        return re.sub(r"[^a-z0-9 ]", "", self.title.lower()).replace(" ", "_")

    @property
    def filename(self) -> str:
        """Name of the notebook: number and slug."""
        return f"{self.number}_{self.slug}.ipynb"

    @property
    def ready(self) -> bool:
        """Whether the lesson is there already: its slice of the package has its exercises."""
        place = f"mpkit.course.lesson_{self.number}"
        return (
            importlib.util.find_spec(place) is not None and importlib.util.find_spec(f"{place}.exercises") is not None
        )


LESSONS = (
    Entry("00", "Start here", "What can my machine do, and how do these lessons work?", 10),
    Entry("01", "See the bits", "Which numbers exist in FP32, TF32, FP16, BF16 and FP8?", 60),
    Entry("02", "Round and lose", "What does a cast lose, and which operations must stay in FP32?", 60),
    Entry("03", "Keep master weights", "Why does training need an FP32 copy of the weights?", 60),
    Entry("04", "Scale the loss", "Where do gradients live, and what does the loss scale do to them?", 60),
    Entry("05", "Adapt the scale", "When should the scale rise or fall?", 60),
    Entry("06", "Train mixed", "What is the whole recipe, by hand and with torch.amp?", 60),
    Entry("07", "Measure the speed-up", "How much faster, how much smaller, and why sometimes slower?", 55),
    Entry("08", "Train a transformer", "What changes for attention and long accumulation?", 65),
    Entry("09", "Go below 16 bits", "How do FP8 and integers fit on top?", 40),
    Entry("10", "Debug the NaN", "Something is NaN. What now?", 45),
    Entry("11", "Scale out", "With many GPUs, who decides to skip a step?", 45),
    Entry("12", "Judge the article", "Was the article right?", 45),
)


def find(number: str) -> Entry:
    """Row of the course table with this two-digit number.

    Raises:
        TypeError: the number is not a string.
        ValueError: there is no such lesson.
    """
    if not isinstance(number, str):
        raise TypeError(f"a lesson's number is a string of two digits such as '04', but {number!r} came.")
    for entry in LESSONS:
        if entry.number == number:
            return entry
    known = ", ".join(f"{entry.number} {entry.slug}" for entry in LESSONS)
    raise ValueError(f"there is no lesson {number!r}; write the two digits of one of these: {known}.")
