"""Answers to the exercises of lesson 09: who shares a scale, a history of magnitudes, a row of zeros."""

from __future__ import annotations

from mpkit.course.lesson_09.exercises import CASES, SHARING

FOUR = '"A": "one a column", "B": "one scale for the tensor", "C": "one a row", "D": "one for 32 neighbours in a row"'


def four(**changes: str) -> str:
    """A learner's sharing: the right one, with some changes."""
    return f"sharing = {{**{{{FOUR}}}, **{changes!r}}}\n"


def scale(body: str) -> str:
    """A learner's next_scale."""
    return f"import torch\ndef next_scale(seen, length):\n    {body}\n"


def rows(body: str) -> str:
    """A learner's cast_rows, after the line with the scale."""
    return (
        "import torch, mpkit\ndef cast_rows(x):\n    scale = x.abs().amax(1, keepdim=True) / 448\n"
        f"    cast = lambda x: mpkit.cast(x, mpkit.E4M3)\n    {body}\n"
    )


RIGHT = [
    ("09.1", four()),
    ("09.1", four(A="One a column ", C="ONE A ROW")),
    ("09.2", scale("return max(seen[-length:]) / 448")),
    ("09.2", scale("return torch.tensor(seen)[-length:].max() / 448")),
    ("09.2", scale("import mpkit\n    return max(seen[max(len(seen) - length, 0):]) / mpkit.E4M3.max")),
    ("09.2", scale("import math\n    return 2.0 ** math.ceil(math.log2(max(seen[-length:]) / 448))")),
    ("09.3", rows("scale = torch.where(scale == 0, 1.0, scale)\n    return cast(x / scale) * scale")),
    ("09.3", rows("scale[scale == 0] = 1\n    return cast(x / scale) * scale")),
    ("09.3", rows("return torch.where(scale == 0, 0.0, cast(x / scale) * scale)")),
    ("09.3", rows("scale = scale + (scale == 0)\n    return cast(x / scale) * scale")),
    ("09.3", rows("return cast(x / scale.clamp(min=1e-37)) * scale")),
    (
        "09.3",
        "import mpkit\nfrom mpkit.scaled import ScaledFormat, scaled_cast\ndef cast_rows(x):\n"
        "    return scaled_cast(x, ScaledFormat('mine', mpkit.E4M3, (1, None)))\n",
    ),
]
WRONG = [
    *(("09.1", four(**{name: other}), why) for name, (_, said) in CASES.items() for other, why in said.items()),
    ("09.1", four(A="bad luck"), "is not one of the sharings"),
    ("09.1", "sharing = {'A': 'one a row', 'B': ..., 'C': 'one a row'}", "cases B, D still wait"),
    ("09.1", "sharing = 'one a row'", "The answer is a dict"),
    ("09.2", scale("return seen[-1] / 448"), "you look at the last step alone"),
    ("09.2", scale("return max(seen) / 448"), "long past still counts"),
    ("09.2", scale("return 448 / max(seen[-length:])"), "that is its inverse"),
    ("09.2", scale("return max(seen[-length:])"), "is a magnitude, not a scale"),
    ("09.2", scale("return sum(seen[-length:]) / len(seen[-length:]) / 448"), "under a mean every second step"),
    ("09.2", scale("return max(seen[:length]) / 448"), "Which of them decides"),
    (
        "09.2",
        scale("import math\n    return 2.0 ** math.floor(math.log2(max(seen[-length:]) / 448))"),
        "but rounded down",
    ),
    ("09.2", scale("return 'max'"), "one number: the next scale"),
    ("09.2", "next_scale = 1.0", "without parentheses"),
    ("09.3", rows("return cast(x / scale) * scale"), "What is 0 / 0"),
    ("09.3", rows("scale = scale + 1e-12\n    return cast(x / scale) * scale"), "How small is its scale"),
    ("09.3", rows("scale = scale + 1e-30\n    return cast(x / scale) * scale"), "Row 6 holds values of about 1e-33"),
    ("09.3", rows("return (cast(x / scale) * scale).nan_to_num(0.0)"), "Nobody would notice"),
    ("09.3", rows("scale = scale.amax()\n    return cast(x / scale) * scale"), "Row 0 has no zeros"),
    ("09.3", rows("return torch.where(scale == 0, 1.0, cast(x / scale) * scale)"), "something else comes back"),
    ("09.3", rows("keep = scale[:, 0] > 0\n    return (cast(x / scale) * scale)[keep]"), "comes out"),
    ("09.3", rows("return 1.0"), "one tensor: the rounded one"),
    ("09.3", "cast_rows = 1.0", "without parentheses"),
]
ALSO_WRONG = [
    ("09.3", rows("return cast(x / scale.clamp(min=1e-25)) * scale.clamp(min=1e-25)"), "Row 6 holds values of about"),
    ("09.3", rows("scale = torch.where(scale == 0, 1.0, scale)\n    return cast(x / scale)"), "Row 0 has no zeros"),
    ("09.1", "sharing = {'A': 'one a row', 'B': ..., 'C': 'one a row', 'D': 'one a row'}", "case B still waits"),
    ("09.2", scale("return max(seen[-length - 1:]) / 448"), "long past still counts"),
    ("09.3", rows("scale = scale.clamp(min=1e-12)\n    return cast(x / scale) * scale"), "How small is its scale"),
    ("09.3", rows("x = x + 1e-3\n    return cast(x / scale) * scale"), "Row 2 has no zeros"),
]
STUBS = {
    "09.1": ("not yet", "Not yet: cases A, B, C, D still wait"),
    "09.2": ("wrong", "you look at the last step alone"),
    "09.3": ("wrong", "Row 1 holds nothing but zeros, and comes back as NaN"),
}
SECRETS = {
    "09.1": r"(?i)the sharing is|give each (row|column)|one scale is enough",
    "09.2": r"max\(|-length|/ ?448",
    "09.3": r"torch\.where|== 0|scale of 1|clamp",
}
ECHO = rf"is not one of the sharings: {'; '.join(SHARING)}"
