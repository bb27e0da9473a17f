"""Answers to the exercises of lesson 07: a bound, a loop that waits, six cases, a batch that fits."""

from __future__ import annotations

from mpkit.course.lesson_07.cases import CASES, CAUSES

SIX = (
    '"A": "misaligned", "B": "launch-bound", "C": "memory-bound", "D": "waits for data", "E": "memory-bound", '
    '"F": "stays in FP32"'
)


def bound(result: str) -> str:
    """A learner's bound_of."""
    return f"def bound_of(forward, backward, update, speedup):\n    return {result}\n"


def loop(every: str, end: str = "", start: str = "total = 0") -> str:
    """A learner's train: what it does after each step, and at the end."""
    return f"""import torch
def train(step, batches):
    log, losses = [], []
    {start}
    for number, batch in enumerate(batches, 1):
        {every}
    {end}
    return log
"""


THEN = "losses.append(step(batch))\n        if number % 100 == 0: log.append"
LINE = "if number % 100 == 0: log.append(float(total) / 100); total = 0"


def fits(result: str) -> str:
    """A learner's batch_that_fits."""
    return f"def batch_that_fits(memory, parameters, activations):\n    return {result}\n"


def six(**changes: str) -> str:
    """A learner's cases: the right ones, with some changes."""
    return f"cases = {{**{{{SIX}}}, **{changes!r}}}\n"


RIGHT = [
    ("07.1", bound("(forward + backward + update) / (forward / speedup + backward + update)")),
    (
        "07.1",
        "import numpy\n"
        + bound("numpy.array((forward + backward + update) / (forward / speedup + backward + update))"),
    ),
    ("07.1", bound("1 / (1 - forward / (s := forward + backward + update) * (1 - 1 / speedup))")),
    ("07.2", loop(f"total = total + step(batch)\n        {LINE}")),
    (
        "07.2",
        loop(THEN + "(float(torch.stack(losses[-100:]).mean()))"),
    ),
    ("07.2", loop("losses.append(step(batch))", "log = torch.stack(losses).view(3, 100).mean(1).tolist()")),
    ("07.2", loop(f"total = total + step(batch).to(torch.float64)\n        {LINE}")),
    (
        "07.2",
        loop(
            "total = total + step(batch)\n        if number % 100 == 0: log.append(total.cpu().item() / 100); total = 0"
        ),
    ),
    ("07.2", loop(THEN + "(float(torch.stack(losses[-100:]).mean().cpu()))")),
    (
        "07.2",
        loop("losses.append(step(batch))", "log = torch.stack(losses).view(3, 100).mean(1).cpu().numpy().tolist()"),
    ),
    ("07.2", loop("losses.append(step(batch))", "log = torch.stack(losses).view(3, 100).mean(1).to('cpu').tolist()")),
    ("07.3", six()),
    ("07.3", six(B="launch bound", C="Memory-bound")),
    ("07.4", fits("max(0, (memory - 18 * parameters) // (2 * activations))")),
    ("07.4", fits("max(0, int((memory - (4 + 2 + 4 + 8) * parameters) / (2 * activations)))")),
]
WRONG = [
    ("07.1", bound("(forward / speedup + backward + update) / (forward + backward + update)"), "after divided by"),
    ("07.1", bound("(forward + backward) / (forward / speedup + backward)"), "The step has a third part"),
    ("07.1", bound("speedup"), "the whole step"),
    ("07.1", bound("(forward + backward + update) / (forward + backward / speedup + update)"), "another part"),
    ("07.1", bound("forward + backward + update"), "How long does it take after"),
    ("07.1", bound("(forward, backward)"), "return one number"),
    ("07.1", "bound_of = 1.5", "without parentheses"),
    ("07.2", loop(f"total += step(batch).item()\n        {LINE}"), "made the host wait 300 times"),
    ("07.2", loop(f"total = total + step(batch)\n        if total < 0: break\n        {LINE}"),
     "made the host wait 303 times"),
    ("07.2", loop(f"if number % 100 == 0: total = 100 * step(batch)\n        {LINE}"), "calls step 3 times"),
    ("07.2", loop(THEN + "(losses[-1].item())"), "Line 1 of the log"),
    ("07.2", loop("losses.append(step(batch))", "log = torch.stack(losses).mean().item()"), "a log of 3 means"),
    ("07.2", loop(THEN + "(torch.stack(losses[-100:]))"),
     "Each line of the log"),
    ("07.2", "train = 1.2", "without parentheses"),
    *(("07.3", six(**{name: cause}), why) for name, (_, said) in CASES.items() for cause, why in said.items()),
    ("07.3", six(A="slow"), "is not one of the causes"),
    ("07.3", "cases = {'A': 'launch-bound', 'B': ..., 'C': 'launch-bound'}", "cases B, D, E, F still wait"),
    ("07.3", "cases = 'launch-bound'", "The answer is a dict"),
    ("07.4", fits("max(0, (memory - 16 * parameters) // (2 * activations))"), "What does autocast make of each weight"),
    ("07.4", fits("max(0, (memory - 18 * parameters) // (4 * activations))"), "In which format does autocast keep"),
    ("07.4", fits("(memory - 18 * parameters) // (2 * activations)"), "What if the model alone does not fit"),
    ("07.4", fits("max(0, (memory - 18 * parameters) / (2 * activations))"), "A part of an example"),
    ("07.4", fits("max(0, (memory - 18 * parameters) // (2 * activations) + 1)"), "The last of them does not fit"),
    ("07.4", fits("memory // (2 * activations)"), "First subtract"),
    ("07.4", fits("(memory, parameters)"), "return one number"),
]  # fmt: skip
ALSO_WRONG = [
    ("07.2", loop(f"total += step(batch).to('cpu')\n        {LINE}"), "made the host wait 300 times"),
    ("07.2", loop(f"total += step(batch).to(device=torch.device('cpu'))\n        {LINE}"), "made the host wait 300"),
    ("07.2", loop(f"loss = step(batch); str(loss); total = total + loss\n        {LINE}"), "made the host wait 303"),
    ("07.2", loop(f"loss = step(batch); f'{{loss:.3f}}'; total = total + loss\n        {LINE}"), "host wait 303"),
    (
        "07.2",
        loop(f"loss = step(batch); loss.isnan().nonzero(); total = total + loss\n        {LINE}"),
        "host wait 303",
    ),
    ("07.2", loop(f"loss = step(batch).view(1); total = total + loss[loss == loss].sum()\n        {LINE}"), "wait 303"),
    ("07.2", loop(f"loss = step(batch).cpu(); total = total + loss\n        {LINE}"), "made the host wait 300 times"),
    ("07.1", bound("0.5"), "How long does it take after"),
    ("07.2", loop(f"total += float(step(batch))\n        {LINE}"), "made the host wait 300 times"),
    (
        "07.2",
        loop(
            "losses.append(step(batch))", "log = [torch.tensor(losses[k:k + 100]).mean().item() for k in (0, 100, 200)]"
        ),
        "made the host wait",
    ),
    ("07.2", loop("log.append(step(batch))"), "a log of 3 means"),
    ("07.3", six(E="stays in FP32"), "What is its intensity"),
    ("07.4", fits("max(0, (memory - 12 * parameters) // (2 * activations))"), "First subtract"),
]
STUBS = {
    "07.1": ("not yet", "Not yet: your function returns nothing"),
    "07.2": ("wrong", "But 300 steps made the host wait 300 times"),
    "07.3": ("not yet", "Not yet: cases A, B, C, D, E, F still wait"),
    "07.4": ("not yet", "Not yet: your function returns nothing"),
}
SECRETS = {
    "07.1": r"forward / speedup|\+ backward \+ update\)|[Aa]mdahl",
    "07.2": r"stack|\.mean|sum\(",
    "07.3": r"(?i)the cause is|is launch-bound|is memory-bound",
    "07.4": r"\b18\b|// \(2|16-bit copy",
}
ECHO = rf"forward \S+, backward .*?you return \S+ |is not one of the causes: {'; '.join(CAUSES)}|^.* you return \S+"
