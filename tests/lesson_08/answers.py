"""Answers to the exercises of lesson 08: attention, a mean of many gradients, six failures."""

from __future__ import annotations

from mpkit.course.lesson_08.failures import CASES, CAUSES

SIX = (
    '"A": "scores overflow", "B": "clipped too early", "C": "gradients flushed", "D": "sum stalls", '
    '"E": "clipped too early", "F": "sum stalls"'
)


def attend(body: str) -> str:
    """A learner's attend."""
    return f"import torch\ndef attend(query, key, value):\n    {body}\n"


def mean(body: str) -> str:
    """A learner's mean_gradient."""
    return f"import torch\ndef mean_gradient(gradients):\n    {body}\n"


def six(**changes: str) -> str:
    """A learner's failures: the right ones, with some changes."""
    return f"failures = {{**{{{SIX}}}, **{changes!r}}}\n"


BY_HAND = "w = (s - s.amax(-1, keepdim=True)).exp()\n    return w / w.sum(-1, keepdim=True) @ value"
AFTER = "query @ key.mT / query.shape[-1]**0.5"
NO_MAX = "w = s.exp()\n    return w / w.sum(-1, keepdim=True) @ value"

RIGHT = [
    ("08.1", attend(f"s = (query / query.shape[-1]**0.5) @ key.mT\n    {BY_HAND}")),
    ("08.1", attend("return ((query / query.shape[-1]**0.5) @ key.mT).softmax(-1) @ value")),
    ("08.1", attend("return (query @ (key / query.shape[-1]**0.5).transpose(-2, -1)).softmax(-1) @ value")),
    ("08.1", attend("c = query.shape[-1]**0.25\n    return ((query / c) @ (key / c).mT).softmax(-1) @ value")),
    ("08.1", attend("return torch.nn.functional.scaled_dot_product_attention(query, key, value)")),
    ("08.1", attend("return ((query.float() / query.shape[-1]**0.5) @ key.float().mT).softmax(-1) @ value")),
    ("08.2", mean("return torch.stack(gradients).float().mean(0).bfloat16()")),
    ("08.2", mean("return sum(g.float() for g in gradients).div(len(gradients)).to(torch.bfloat16)")),
    (
        "08.2",
        mean(
            "t = c = torch.zeros_like(gradients[0])\n    for g in gradients:\n        y = g - c\n"
            "        grown = t + y\n        c, t = (grown - t) - y, grown\n    return t / len(gradients)"
        ),
    ),
    ("08.2", mean("return torch.stack(gradients).mean(0)")),  # torch adds BF16 up in FP32
    ("08.3", six()),
    ("08.3", six(A="Scores overflow ", D="SUM STALLS")),
]
WRONG = [
    ("08.1", attend("return (query @ key.mT / query.shape[-1]**0.5).softmax(-1) @ value"), "though no divided score"),
    ("08.1", attend(f"s = query / query.shape[-1]**0.5 @ key.mT\n    {NO_MAX}"), "though every score fits"),
    ("08.1", attend("return (query @ key.mT).softmax(-1) @ value"), "root of d no longer has any effect"),
    ("08.1", attend("return (query @ key.mT / query.shape[-1]).softmax(-1) @ value"), "the same attention"),
    ("08.1", attend("return (query @ key.mT / query.shape[-1]**0.5).softmax(-1)"), "Each query finds one value"),
    ("08.1", attend(f"return (({AFTER}).softmax(-1) @ value).nan_to_num(0.)"), "62 of 64 queries find nothing"),
    ("08.1", attend(f"s = {AFTER}\n    w = s.exp()\n    return (w / w.sum(-1, keepdim=True) @ value).nan_to_num(0.)"),
     "spread of 12: 64 of 64 queries find nothing"),
    ("08.1", attend(f"return ({AFTER}).clamp(-20, 20).softmax(-1) @ value"),
     "spread of 12: 64 of 64 results are no NaN"),
    ("08.1", attend("s = (query @ key.mT).clamp(-6e4, 6e4) / query.shape[-1]**0.5\n    return s.softmax(-1) @ value"),
     "spread of 90: 62 of 64 results are no NaN"),
    ("08.1", attend("return 1.0"), "what each query has found"),
    ("08.1", "attend = 1.0", "without parentheses"),
    ("08.2", mean("total = gradients[0] * 0\n    for g in gradients: total += g\n    return total / len(gradients)"),
     "Where do the terms get lost"),
    ("08.2", mean("return torch.stack(gradients).float().mean(0)"), "but float32 came back"),
    ("08.2", mean("return torch.stack(gradients).float().sum(0).bfloat16()"), "is it their mean"),
    ("08.2", mean("return torch.stack(gradients).float().mean().bfloat16()"), "has that shape"),
    ("08.2", mean("return 1.0"), "one tensor: the mean"),
    ("08.2", "mean_gradient = 1.0", "without parentheses"),
    *(("08.3", six(**{name: cause}), why) for name, (_, said) in CASES.items() for cause, why in said.items()),
    ("08.3", six(A="bad luck"), "is not one of the causes"),
    ("08.3", "failures = {'A': 'sum stalls', 'B': ..., 'C': 'sum stalls'}", "cases B, D, E, F still wait"),
    ("08.3", "failures = 'sum stalls'", "The answer is a dict"),
]  # fmt: skip
ALSO_WRONG = [
    ("08.1", attend(f"s = query @ key.mT / query.shape[-1]**0.5\n    {BY_HAND}"), "though no divided score"),
    ("08.1", attend(f"return ({AFTER}).softmax(-1).nan_to_num(0.) @ value"), "62 of 64 queries find nothing"),
    ("08.1", attend("return (query @ key.mT / query.shape[-1]**0.5).softmax(-2) @ value"), "the same attention"),
    ("08.2", mean("n = len(gradients)\n    t = gradients[0] / n\n    for g in gradients[1:]: t += g / n\n    return t"),
     "Where do the terms get lost"),
    ("08.3", "failures = {'A': 'sum stalls', 'B': ..., 'C': 'sum stalls', 'D': 'sum stalls'}",
     "cases B, E, F still wait"),
]  # fmt: skip
STUBS = {
    "08.1": ("wrong", "though every score fits into FP16"),
    "08.2": ("wrong", "Two roundings of BF16 are 0.8 %. Where do the terms get lost"),
    "08.3": ("not yet", "Not yet: cases A, B, C, D, E, F still wait"),
}
SECRETS = {
    "08.1": r"query / |amax|softmax|divide (before|first)|/ \w+\.shape",
    "08.2": r"float32(?! came)|\.float\(|torch\.stack|zeros_like",
    "08.3": r"(?i)the cause is|is clipped too early|is a sum that",
}
ECHO = rf"is not one of the causes: {'; '.join(CAUSES)}"
