"""Answers to the exercises of lesson 07: a bound, a loop that waits, four cases."""

from __future__ import annotations

from mpkit.course.lesson_07.exercises import CASES, CAUSES

FOUR = '"A": "misaligned", "B": "launch-bound", "C": "memory-bound", "D": "waits for data"'


def bound(result: str) -> str:
    """A learner's bound_of."""
    return f"def bound_of(forward, backward, update, speedup):\n    return {result}\n"


def mean(body: str) -> str:
    """A learner's mean_loss."""
    return f"import torch\ndef mean_loss(losses):\n    {body}\n"


def four(**changes: str) -> str:
    """A learner's cases: the right ones, with some changes."""
    return f"cases = {{**{{{FOUR}}}, **{changes!r}}}\n"


RIGHT = [
    ("07.1", bound("(forward + backward + update) / (forward / speedup + backward + update)")),
    (
        "07.1",
        "import numpy\n"
        + bound("numpy.array((forward + backward + update) / (forward / speedup + backward + update))"),
    ),
    ("07.1", bound("1 / (1 - forward / (s := forward + backward + update) * (1 - 1 / speedup))")),
    ("07.2", mean("return torch.stack(losses).mean().item()")),
    ("07.2", mean("return sum(losses) / len(losses)")),
    ("07.2", mean("total = 0\n    for loss in losses: total = total + loss\n    return float(total) / len(losses)")),
    ("07.3", four()),
    ("07.3", four(B="launch bound", C="Memory-bound")),
]
WRONG = [
    ("07.1", bound("(forward / speedup + backward + update) / (forward + backward + update)"), "after divided by"),
    ("07.1", bound("(forward + backward) / (forward / speedup + backward)"), "The step has a third part"),
    ("07.1", bound("speedup"), "the whole step"),
    ("07.1", bound("(forward + backward + update) / (forward + backward / speedup + update)"), "another part"),
    ("07.1", bound("forward + backward + update"), "How long does it take after"),
    ("07.1", bound("(forward, backward)"), "return one number"),
    ("07.1", "bound_of = 1.5", "without parentheses"),
    ("07.2", mean("return sum(loss.item() for loss in losses) / len(losses)"), "made the host wait 5 times"),
    ("07.2", mean("return (losses[0].item() + sum(losses[1:]).item()) / len(losses)"), "made the host wait 2 times"),
    ("07.2", mean("return torch.stack(losses).sum().item()"), "the mean is 1.2; you return 6"),
    ("07.2", mean("return losses"), "one number: the mean"),
    ("07.2", "mean_loss = 1.2", "without parentheses"),
    *(("07.3", four(**{name: cause}), why) for name, (_, said) in CASES.items() for cause, why in said.items()),
    ("07.3", four(A="slow"), "is not one of the causes"),
    ("07.3", "cases = {'A': 'launch-bound', 'B': ..., 'C': 'launch-bound'}", "cases B, D still wait"),
    ("07.3", "cases = 'launch-bound'", "The answer is a dict"),
]  # fmt: skip
ALSO_WRONG = [
    ("07.1", bound("0.5"), "How long does it take after"),
    ("07.2", mean("return torch.stack(losses)"), "one number: the mean"),
    ("07.2", mean("return losses[0].item() + 0 * losses[1].item() - 1.3"), "made the host wait 2 times"),
    ("07.3", "cases = {'A': 'launch-bound', 'B': ..., 'C': 'launch-bound', 'D': 'launch-bound'}", "case B still waits"),
]
STUBS = {
    "07.1": ("not yet", "Not yet: your function returns nothing"),
    "07.2": ("wrong", "But 5 losses made the host wait 5 times"),
    "07.3": ("not yet", "Not yet: cases A, B, C, D still wait"),
}
SECRETS = {
    "07.1": r"forward / speedup|\+ backward \+ update\)|[Aa]mdahl",
    "07.2": r"stack|\.mean|sum\(",
    "07.3": r"(?i)the cause is|is launch-bound|is memory-bound",
}
ECHO = rf"forward \S+, backward .*?you return \S+ |is not one of the causes: {'; '.join(CAUSES)}"
