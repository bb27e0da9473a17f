"""Answers to the exercises of lesson 05: the dynamic rule, a collapsing scale, six logs."""

from __future__ import annotations

from mpkit.course.lesson_05.exercises import CAUSES, LOGS

SIX = {name: cause for name, (cause, _) in LOGS.items()}


def rule(overflow: str = "return max(scale / 2, floor), 0", clean: str = "", grow: str = "return scale * 2, 0") -> str:
    """A learner's update; each part may be another."""
    count = clean or "clean += 1"
    return (
        "def update(scale, clean, found_inf, interval, floor):\n"
        f"    if found_inf: {overflow}\n    {count}\n    if clean == interval: {grow}\n    return scale, clean\n"
    )


def loop(overflow: str = "grad = 0.0; scale /= 2; continue", start: str = "pass", step: str = "") -> str:
    """A learner's train; each part may be another."""
    return (
        "import math\ndef train(weight, gradients, scale):\n    grad = 0.0\n    for g in gradients:\n"
        f"        {start}\n        grad += g * scale\n        if grad > 65504: grad = math.inf\n"
        f"        if math.isinf(grad): {overflow}\n        {step or 'weight -= 0.1 * grad / scale'}\n"
        "        grad = 0.0\n    return weight, scale\n"
    )


def six(**changes: str) -> str:
    """A learner's causes: the right ones, with some changes."""
    return f"causes = { ({**SIX, **changes})!r}\n"


WRONG = [
    ("05.1", rule(overflow="return scale, 0"), "What should an overflow do to the scale"),
    ("05.1", rule(overflow="return max(scale / 2, floor), clean"), "clean in a row"),
    ("05.1", rule(overflow="return scale / 2, 0"), "The floor is 512"),
    ("05.1", rule(grow="return scale * 2, clean"), "From where does the next count start"),
    ("05.1", rule(grow="return scale, clean"), "That was the step to grow at"),
    ("05.1", rule(grow="return scale * 4, 0"), "The scale should be"),
    ("05.1", rule(clean="return scale * 2, clean + 1"), "too early for another scale"),
    ("05.1", rule(clean="return scale, clean"), "Who counts each clean step"),
    ("05.1", rule(overflow="return max(scale / 2, floor)"), "return scale, clean"),
    ("05.1", "update = 2.0", "without parentheses"),
    ("05.2", loop(overflow="scale /= 2; continue"), "halved more often"),
    ("05.2", loop(overflow="grad = 0.0; continue"), "it should shrink"),
    ("05.2", loop(overflow="scale /= 2"), "An Inf went into the weight"),
    ("05.2", loop(step="weight -= 0.1 * grad"), "The scale is right, the weight is not"),
    ("05.2", loop().replace("return weight, scale", "return weight"), "return weight, scale"),
    ("05.2", "train = 1.0", "without parentheses"),
    *(("05.3", six(**{name: cause}), why) for name, (_, said) in LOGS.items() for cause, why in said.items()),
    ("05.3", six(A="fine"), "is not one of the causes"),
    ("05.3", "causes = {'A': 'healthy', 'B': ..., 'C': 'healthy'}", "logs B, D, E, F still wait"),
    ("05.3", "causes = 'healthy'", "The answer is a dict"),
]  # fmt: skip
ALSO_WRONG = [
    ("05.1", rule(overflow="return max(scale // 2, floor), 0"), "from scale 3 and count 0"),
    ("05.1", rule(overflow="return str(float(scale) / 2), 0"), "in quotes is a text"),
    ("05.1", rule(overflow="return floor, 0"), "What should an overflow do to the scale"),
    ("05.1", rule(overflow="return (scale, clean) if scale == floor else (scale / 2, 0)"), "clean in a row"),
    ("05.1", rule().replace("clean == interval", "clean == 3"), "too early for another scale"),
    ("05.1", rule(overflow="return max(scale / 2, 512.0), 0"), "The floor is 1024"),
    ("05.1", rule().replace("clean == interval", "clean > interval"), "That was the step to grow at"),
    ("05.2", loop(overflow="scale /= 2; grad = g; continue"), "The scale is right, the weight is not"),
    ("05.3", six().replace("'not the scale'", "..."), "log B still waits"),
]
RIGHT = [
    ("05.1", rule()),
    ("05.1", rule(overflow="return max(scale * 0.5, floor), 0").replace("clean == interval", "clean >= interval")),
    ("05.1", rule(overflow="return [max(scale / 2, floor), 0]")),
    (
        "05.1",
        rule().replace("clean == interval: return scale * 2, 0", "clean % interval == 0: return scale * 2, clean"),
    ),
    ("05.2", loop()),
    ("05.2", loop(overflow="scale /= 2; continue", start="grad = 0.0")),
    ("05.1", rule(overflow="return torch.as_tensor(max(scale / 2, floor)), 0")),
    ("05.3", six()),
    ("05.3", six(A="Healthy", B="not the  scale")),
]
STUBS = {
    "05.1": ("not yet", "Not yet: your function returns nothing"),
    "05.2": ("wrong", "The scale was halved more often than gradients overflowed"),
    "05.3": ("not yet", "Not yet: logs A, B, C, D, E, F still wait"),
}
SECRETS = {
    "05.1": r"max\(|\* ?2|/ ?2|= ?0|[Rr]eset|[Hh]alve",
    "05.2": r"zero_grad|= ?0|[Rr]eset|[Cc]lear",
    "05.3": r"(?i)the cause is|is healthy",
}
ECHO = rf"Step \d+, .*?you return .*?\)\. |Gradients .*?scale \S+\. |is not one of the causes: {'; '.join(CAUSES)}"
