"""Answers to the exercises of lesson 11: the replica that drifted, a loop that hangs, where to divide."""

from __future__ import annotations

from mpkit.course.lesson_11.exercises import CASES, PLACES

COLUMNS = "for step in range(len(sums[0])):\n        column = [row[step] for row in sums]"
ROUNDED = "for step in range(len(sums[0])):\n        column = torch.tensor(sums)[:, step]"
MOST = "most = max(column, key=column.count)"


def drifted(*body: str, each: str = COLUMNS, before: str = "") -> str:
    """A learner's drifted: the lines in its loop over the steps."""
    inside = "\n        ".join(body)
    return f"{before}\ndef drifted(sums):\n    {each}\n        {inside}\n"


def first(condition: str, *lines: str, **around: str) -> str:
    """A learner's drifted that names the first rank of a step for which something holds."""
    loop = "for rank, value in enumerate(column):"
    return drifted(*lines, loop, f"    if {condition}:", "        return rank, step", **around)


def train(*body: str) -> str:
    """A learner's train: the lines in its loop."""
    inside = "\n        ".join(body)
    return f"import math\ndef train(group, gradients):\n    for gradient in gradients:\n        {inside}\n"


FOUR = '"A": "before the sum", "B": "after the sum", "C": "by 8 before, by 8 after", "D": "nowhere: sum in FP32"'


def four(**changes: str) -> str:
    """A learner's places: the right ones, with some changes."""
    return f"places = {{**{{{FOUR}}}, **{changes!r}}}\n"


BAD, MEAN, STEP = "if not math.isfinite(gradient):", "mean = group.mean(gradient)", "group.step(group.mean(gradient))"
SWAPPED = drifted(MOST, "for r in range(len(sums)):", "    if column[r] != most:", "        return step, r")
RIGHT_ARRAY = "import {0}\n" + SWAPPED.replace("return step, r", "return {0}.{1}([r, step])")
RIGHT = [
    ("11.1", drifted(MOST, "for r in range(len(sums)):", "    if column[r] != most:", "        return [r, step]")),
    (
        "11.1",
        drifted(
            "most = Counter(column).most_common(1)[0][0]",
            "odd = [rank for rank, value in enumerate(column) if value != most]",
            "if odd:",
            "    return odd[0], step",
            before="from collections import Counter",
        ),
    ),
    (
        "11.1",
        drifted(
            "odd = (t[:, step] != t[:, step].mode().values).nonzero()",
            "if len(odd):",
            "    return odd[0, 0], step",
            each="t = torch.tensor(sums, dtype=torch.float64)\n    for step in range(t.shape[1]):",
            before="import torch",
        ),
    ),
    ("11.1", first("column.count(value) * 2 < len(column)")),
    ("11.1", RIGHT_ARRAY.format("numpy", "array")),
    ("11.1", RIGHT_ARRAY.format("torch", "tensor")),
    ("11.2", train("if group.any(not math.isfinite(gradient)):", "    continue", STEP)),
    ("11.2", train(MEAN, "if math.isfinite(mean):", "    group.step(mean)")),
    ("11.2", train("bad = group.any(not math.isfinite(gradient))", MEAN, "if not bad:", "    group.step(mean)")),
    ("11.2", train("if group.mean(0.0 if math.isfinite(gradient) else 1.0) == 0:", f"    {STEP}")),
    ("11.3", four()),
    ("11.3", four(A="Before the SUM", D="nowhere – sum in FP32")),
]
LAST = ("last = [row[-1] for row in sums]", "most = max(last, key=last.count)", "for rank, value in enumerate(last):",
        "    if value != most:", "        return rank, len(last) - 1")  # fmt: skip
FAR = ("far = max(sums, key=lambda row: row[-1])", "if far[-1] == 99.0:", "    return sums.index(far), 3", MOST)
WRONG = [
    ("11.1", first("value != column[0]"), "Log B, step 1 (2.0, 2.5, 2.5): you name rank 1, but it has what most"),
    ("11.1", drifted("return None"), "two ranks differ, and you find no drift"),
    ("11.1", first("abs(value - most) > 1e-6", MOST), "differ in their last bits"),
    ("11.1", drifted(*LAST), "is 3 the first at which it differs"),
    ("11.1", first("value != most", *FAR), "Is it the first one that differs"),
    ("11.1", first("value < most or value > most", MOST), "NaN, which is not even equal to itself"),
    ("11.1", first("column.count(value) == 1"), "no checksum occurs only once"),
    ("11.1", first("value != sorted(column)[len(column) // 2]"), "A list with a NaN in it cannot be sorted"),
    ("11.1", drifted("return 3, 0"), "you name rank 3 at step 0"),
    ("11.1", drifted("return 'rank 2'"), "(rank, step), or None if no rank has drifted"),
    ("11.1", drifted("return 1, 2, 3"), "but 3 values came"),
    ("11.1", drifted("return {2: 2, 1: 1}"), "(rank, step), or None if no rank has drifted, but a dict came"),
    ("11.1", drifted("return 1.5, 2"), "whole numbers, but 1.5 and 2 came"),
    ("11.1", drifted("return float('inf'), 2"), "whole numbers, but inf and 2 came"),
    ("11.1", SWAPPED, "Log B, step 0 (1.5, 1.5, 1.5): you return (1, 0), and all ranks are equal there. Rank first"),
    ("11.1", "drifted = (2, 2)", "without parentheses"),
    ("11.2", train(BAD, "    continue", STEP), "ranks 0 and 2 wait in mean() for rank 1"),
    ("11.2", train(STEP), "steps with Inf or NaN"),
    ("11.2", train(BAD, "    group.mean(0.0)", "    continue", STEP), "The replicas drift"),
    ("11.2", train(BAD, "    gradient = 0.0", STEP), ". A step is made without the part of the bad rank. All"),
    (
        "11.2",
        train("if group.any(not math.isfinite(gradient)):", "    group.step(0.0)", "    continue", STEP),
        "A step with 0 is a step all the same",
    ),
    ("11.2", train("if not group.any(not math.isfinite(gradient)):", f"    {STEP}", "    break"), "1 step is made."),
    ("11.2", train(BAD, "    group.any(True)", "    continue", STEP), "rank 1 in any()"),
    ("11.2", train("if not group.any(gradient):", f"    {STEP}"), "0 steps are made"),
    ("11.2", train(BAD, "    raise ValueError('bad batch')", STEP), "bad batch"),
    ("11.2", "train = 1.0", "without parentheses"),
    *(("11.3", four(**{name: other}), why) for name, (_, said) in CASES.items() for other, why in said.items()),
    ("11.3", four(A="somewhere"), "is not one of the places"),
    ("11.3", "places = {'A': 'after the sum', 'B': ..., 'C': 'after the sum'}", "jobs B, D still wait"),
    ("11.3", "places = 'after the sum'", "The answer is a dict"),
]
ALSO_WRONG = [
    (
        "11.1",
        first("value != column.mode().values", each=ROUNDED, before="import torch"),
        "unless its dtype is float64",
    ),
    ("11.1", first("value != column[-1]"), "Is it the first one that differs"),
    ("11.2", train(BAD, "    break", STEP), "for rank 1, which will not come"),
    ("11.2", train(BAD, "    return", STEP), "for rank 1, which will not come"),
    ("11.2", train(MEAN, "if math.isfinite(gradient):", "    group.step(mean)"), "steps with Inf or NaN"),
    ("11.3", four(A="after the sum", B="before the sum"), "64 times 60,000"),
]
STUBS = {
    "11.1": ("wrong", "Must rank 0 be right"),
    "11.2": ("wrong", "wait in mean() for rank 1, which will not come"),
    "11.3": ("not yet", "jobs A, B, C, D still wait"),
}
SECRETS = {
    "11.1": r"\bcount\(|majority|most_common",
    "11.2": r"group\.any|ask first",
    "11.3": r"(?i)the place is|divide (it )?(before|after) the sum",
}
ECHO = rf"is not one of the places: {'; '.join(PLACES)}|rank \d in (any|mean)\(\)"
