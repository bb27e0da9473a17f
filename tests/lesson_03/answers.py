"""Answers to the exercises of lesson 03: stochastic rounding, a broken master-weight step, four runs, the way lost."""

from __future__ import annotations

from mpkit.course.lesson_03.exercises import CHOICES, RUNS

FOUR = '"A": "needs a master copy", "B": "has one already", "C": "does without", "D": "needs a master copy"'


def rounding(*lines: str) -> str:
    """A learner's round_at_random made of these lines."""
    body = "\n".join(f"    {line}" for line in lines)
    return f"import math\ndef round_at_random(x, spacing, draw):\n{body}\n"


def step(*lines: str) -> str:
    """A learner's master_step with these lines in its loop."""
    body = "\n".join(f"        {line}" for line in lines)
    return f"def master_step(params, masters, lr):\n    for p, master in zip(params, masters):\n{body}\n"


def four(**changes: str) -> str:
    """A learner's choice: the right one, with some changes."""
    return f"needs = {{**{{{FOUR}}}, **{changes!r}}}\n"


def way(share: str, *lines: str) -> str:
    """A learner's way_lost: the mask `lost`, these lines, and this result."""
    body = "\n".join(f"    {line}" for line in (MASK, *lines, f"return {share}"))
    return f"def way_lost(weights, updates):\n{body}\n"


MASK = "after = (weights + updates).bfloat16().float(); lost = after == weights"
PART = "updates[lost].abs().sum() / updates.abs().sum()"
LOW = "low = math.floor(x / spacing) * spacing"
COPY = "p.data.copy_(master)"
UPDATE = "master -= lr * p.grad.float()"
# Exercise, wrong answer, the words that name its misconception.
WRONG = [
    ("03.1", rounding("return round(x / spacing) * spacing"), "So does rounding to nearest"),
    ("03.1", rounding("return math.floor(x / spacing) * spacing"), "That rounds always the same way"),
    ("03.1", rounding(LOW, "return low + spacing if draw < 0.5 else low"), "Is x equally far from both?"),
    ("03.1", rounding(LOW, "return low + spacing if draw > (x - low) / spacing else low"), "further away comes more"),
    ("03.1", rounding("return math.floor(x + draw)"), "between other values"),
    ("03.1", rounding("return x + draw * spacing"), "no multiple of the spacing"),
    ("03.1", rounding("return (math.floor(x / spacing) + math.floor(3 * draw)) * spacing"), "between other values"),
    ("03.1", rounding(LOW, "return low + spacing if draw < (x - low) else low"), "the mean over many tries is"),
    (
        "03.1",
        rounding(LOW, "return low + spacing if draw < (x - low) / spacing or low == x and draw < 0.1 else low"),
        "x is on the grid already",
    ),
    ("03.1", rounding("return str(x)"), "in quotes is a text"),
    ("03.1", "round_at_random = 0.25", "without parentheses"),
    (
        "03.1",
        "import random\n" + rounding("return math.floor(x / spacing + random.random()) * spacing"),
        "two different results. Use `draw`",
    ),
    ("03.2", step("master.copy_(p.float() - lr * p.grad.float())", COPY), "one step away from where it was"),
    ("03.2", step("p.data -= lr * p.grad", "master.copy_(p)"), "On which format's grid did it land?"),
    ("03.2", step("master -= lr * p.grad", COPY), "What is its dtype?"),
    ("03.2", step(UPDATE), "Who uses the master?"),
    ("03.2", step(UPDATE, "p.data.copy_(master + 0.125)"), "not the master's rounded value"),
    ("03.2", step(UPDATE, "p.data = master.clone()"), "has to stay float16"),
    ("03.2", step("p.data -= lr * p.grad"), "master of nothing"),
    ("03.2", step(UPDATE.replace("-=", "+="), COPY), "moved uphill"),
    ("03.2", step("master -= p.grad.float()", COPY), "eight exact steps lead to"),
    ("03.2", step(COPY), "nothing moves at all"),
    ("03.2", step("p -= lr * p.grad"), "stopped with RuntimeError"),
    ("03.2", "master_step = 1.0", "without parentheses"),
    *(("03.3", four(**{name: choice}), why) for name, (_, said) in RUNS.items() for choice, why in said.items()),
    ("03.3", four(A="yes"), "is not one of the choices"),
    ("03.3", "needs = {'A': 'does without', 'B': ..., 'C': 'does without'}", "runs B, D still wait"),
    ("03.3", "needs = {'A': 'does without', 'B': ..., 'C': 'does without', 'D': 'does without'}", "run B still waits"),
    ("03.3", "needs = 'does without'", "The answer is a dict"),
    ("03.4", way("lost.float().mean()"), "That is how many updates are lost. How long are they?"),
    ("03.4", way(f"1 - {PART}"), "the part of the way that arrives"),
    ("03.4", way("updates[lost].sum() / updates.sum()"), "in opposite directions are still a way"),
    ("03.4", way("1 - (after - weights).abs().sum() / updates.abs().sum()"), "is not lost, even if it is rounded"),
    ("03.4", way(PART, "lost = weights + updates == weights"), "Which format's grid"),
    ("03.4", way("updates[lost].abs().sum()"), "That is a length"),
    ("03.4", way(PART, "lost = updates.abs() < 0.01"), "Which weights are the same"),
    ("03.4", way("updates[lost]"), "return one number from 0 to 1"),
    ("03.4", "way_lost = 0.5", "without parentheses"),
]
# The same misconceptions in another form.
ALSO_WRONG = [
    ("03.1", rounding("return int(x / spacing + draw) * spacing"), "With x = -0.3"),
    ("03.1", rounding("return float(torch.tensor(x / spacing).round()) * spacing"), "So does rounding to nearest"),
    ("03.1", rounding("return round(x / spacing + draw - 0.5 + 1) * spacing"), "between other values"),
    ("03.1", rounding("return True"), "return one finite number"),
    ("03.1", rounding("return math.nan"), "return one finite number"),
    ("03.2", step("master.copy_((master - lr * p.grad).half())", COPY), "On which format's grid did it land?"),
    ("03.2", step("master.copy_(master.half() - lr * p.grad)", COPY), "On which format's grid did it land?"),
    ("03.2", step("master -= (lr * p.grad).float()", COPY), "What is its dtype?"),
    ("03.2", step("..."), "nothing moves at all"),
    ("03.2", step("master -= lr * p.grad.float().abs()", COPY), "gradient -3, 8 steps: the master moved uphill"),
    ("03.2", step("master -= 2.0**-10 * p.grad.float()", COPY), "moved by a learning rate of 0.000977, and `lr` is"),
    (
        "03.2",
        "def master_step(params, masters, lr):\n    masters[0] -= lr * params[0].grad.float()\n"
        "    params[0].data.copy_(masters[0])\n",
        "this second weight of the list does not move",
    ),
    ("03.4", way("lost.sum() / len(updates)"), "That is how many updates are lost"),
    ("03.4", way("updates[lost].sum().abs() / updates.sum().abs()"), "in opposite directions"),
    ("03.4", way("updates[lost].sum() / updates.abs().sum()"), "in opposite directions"),
    ("03.4", way("(updates * lost).abs().max()"), "your share is"),
]

RIGHT = [
    ("03.1", rounding("return math.floor(x / spacing + draw) * spacing")),
    ("03.1", rounding("return math.ceil(x / spacing - draw) * spacing")),
    ("03.1", rounding(LOW, "return low + spacing if draw > 1 - (x - low) / spacing else low")),
    ("03.1", rounding("part = x % spacing", "return x - part + (spacing if draw <= part / spacing else 0)")),
    ("03.1", rounding("return torch.floor(torch.tensor(x / spacing + draw, dtype=torch.float64)) * spacing")),
    ("03.2", step("master.sub_(p.grad, alpha=lr)", COPY)),
    ("03.2", step("master.copy_(master - lr * p.grad.float())", "p.data = master.half()")),
    ("03.2", step("master.add_(p.grad.to(torch.float32).mul(-lr))", "p.data[:] = master")),
    (
        "03.2",
        "def master_step(params, masters, lr):\n    for i in range(len(params)):\n"
        "        masters[i] = masters[i] - lr * params[i].grad.float()\n        params[i].data.copy_(masters[i])\n",
    ),
    ("03.3", four()),
    ("03.3", four(A="  Needs a master copy", C="Does Without ")),
    ("03.4", way("float((updates.abs() * lost).sum() / updates.abs().sum())")),
    ("03.4", way("1 - updates[after != weights].abs().sum() / updates.norm(1)")),
    ("03.4", way("sum(abs(u) for u, gone in zip(updates, lost) if gone) / sum(map(abs, updates))")),
    ("03.4", way(PART, "lost = mpkit.cast(weights + updates, mpkit.BF16) == weights")),
]

STUBS = {
    "03.1": ("not yet", "Not yet: your function returns nothing"),
    "03.2": ("wrong", "the master is one step away from where it was, not eight. Where did each step begin?"),
    "03.3": ("not yet", "Not yet: runs A, B, C, D still wait"),
    "03.4": ("not yet", "Not yet: your function returns nothing"),
}
SECRETS = {
    "03.1": r"floor|[Pp]robab|distance|draw <|x - low",
    "03.2": r"\.float\(|master -=|from the master|in FP32|float32\(",
    "03.3": r"(?i)needs a|has one|does without",
    "03.4": r"abs|bfloat16|mask|BF16",
}
ECHO = (
    rf"With x = \S+ and spacing = \S+: |is not one of the choices: {'; '.join(CHOICES)}"  # names all three
    r"|such as \{.*\}|Weight \S+, gradient \S+, 8 steps:|Weights \[.*\], updates \[.*\]: your share is \S+"
)
