"""Answers to the exercises of lesson 02: a sum that does not stall, a loss that breaks, two lists."""

from __future__ import annotations

from mpkit.course.lesson_02.places import LISTS, OPERATIONS

SIX = (
    '"A": "FP16", "B": "either: never rounds", "C": "FP32: leaves the range", "D": "FP32: adds many terms", '
    '"E": "FP32: loses a small part", "F": "FP32: leaves the range"'
)


def sums(*lines: str) -> str:
    """A learner's add_up made of these lines."""
    return "import math\ndef add_up(values, add):\n" + "\n".join(f"    {line}" for line in lines) + "\n"


def loss(*lines: str) -> str:
    """A learner's loss made of these lines."""
    return "def loss(logits, label):\n" + "\n".join(f"    {line}" for line in lines) + "\n"


def six(**changes: str) -> str:
    """A learner's places: the right ones, with some changes."""
    return f"places = {{**{{{SIX}}}, **{changes!r}}}\n"


ONE_BY_ONE = ("total = 0.0", "for value in values:", "    total = add(total, value)")
PAIRS = ("while len(values) > 1:", "    pairs = [add(a, b) for a, b in zip(values[::2], values[1::2])]")
STRAIGHT = ("def straight(some):", "    total = 0.0", "    for v in some: total = add(total, v)", "    return total")
KAHAN = (
    "total = lost = 0.0",
    "for value in values:",
    "    corrected = add(value, -lost)",
    "    grown = add(total, corrected)",
    "    lost = add(add(grown, -total), -corrected)",
    "    total = grown",
    "return total",
)
EXP = ("e = logits.exp()", "p = e / e.sum()")
SHIFT = ("e = (logits - logits.max()).exp()", "p = e / e.sum()")

# Exercise, wrong answer, the words that name its misconception.
WRONG = [
    ("02.1", sums("return sum(values)"), "you used + or − yourself"),
    ("02.1", sums(*PAIRS, "    values = pairs", "return values[0]"),
     "some terms were left out, or some additions were not FP16"),
    ("02.1", sums("for value in values: add(value, value)", "return math.fsum(values)"), "no call of `add` has"),
    ("02.1", sums("values = sorted(values)", *ONE_BY_ONE, "return total"), "where a running total stalls"),
    ("02.1", sums("chunks = [0.0] * 8", "for i, v in enumerate(values): chunks[i % 8] = add(chunks[i % 8], v)",
                  "total = 0.0", "for c in chunks: total = add(total, c)", "return total"),
     "rounded up, again and again"),
    ("02.1", sums("values = values + values[::-1]", *PAIRS, "    values = pairs + values[2 * len(pairs):]",
                  "return values[0]"), "in it more than once"),
    ("02.1", sums(*ONE_BY_ONE, "return 0.0"), "Nothing was added to the start"),
    ("02.1", sums(*ONE_BY_ONE, "return math.inf"), "left the range"),
    ("02.1", sums(*ONE_BY_ONE, "return 0.9 * math.fsum(values)"), "Either some terms were left out"),
    ("02.1", sums("return str(sum(values))"), "in quotes is a text"),
    ("02.1", "add_up = 4096.0\n", "without parentheses"),
    ("02.1", sums("if len(values) == 1: return values[0]", "return add(values[0], add_up(values[1:], add))"),
     "RecursionError"),
    ("02.2", loss(*SHIFT, "return -p[label].log()"), "made a small number into 0"),
    ("02.2", loss(*SHIFT, "return -(p[label] + 1e-6).log()"), "the cure changed the formula"),
    ("02.2", loss("e = logits.float().exp()", "return -(e / e.sum())[label].log()"),
     "A wider format only moves the limit"),
    ("02.2", loss("shifted = logits - logits.max()", "return shifted.exp().sum().log() - shifted[label]"),
     "class 0 your loss is 0. The true one is 0.000247, and FP16 has numbers that small"),
    ("02.2", loss("return logits.log_softmax(0)[label]"), "The sign is wrong"),
    ("02.2", loss("return -logits.log_softmax(0).max()"), "What does your code compute instead"),
    ("02.2", loss(*EXP, "return -p[label].log().nan_to_num(0.0)"),
     "With logits 12, 0, 11.5 and class 0 your loss is 0"),
    ("02.2", loss("torch.nn.functional.cross_entropy(logits, label)"), "stopped with TypeError"),
    *(("02.3", six(**{name: place}), why) for name, (_, said) in OPERATIONS.items() for place, why in said.items()),
    ("02.2", loss("return logits.log_softmax(0)"), "should return one number, the loss"),
    ("02.2", "loss = 0.46\n", "without parentheses"),
    ("02.3", six(A="FP64"), "is not one of the places"),
    ("02.3", "places = {'A': 'FP16', 'B': ..., 'C': 'FP16'}", "B, D, E, F still wait"),
    ("02.3", "places = {'A': 'FP16', 'B': ..., 'C': 'FP16', 'D': 'FP16', 'E': 'FP16', 'F': 'FP16'}",
     "operation B still waits"),
    ("02.3", "places = 'FP32'", "The answer is a dict"),
]  # fmt: skip
# The same misconceptions in another form.
ALSO_WRONG = [
    ("02.1", sums(*(line.replace("add(grown, -total)", "grown - total") for line in KAHAN)), "only `add` may add"),
    ("02.1", sums("for value in values: add(value, value)", "return sum(values)"), "only `add` may add"),
    ("02.1", sums("return len(values) * values[0]"), "some additions were not FP16"),
    (
        "02.1",
        sums("values = sorted(values, reverse=True)", *ONE_BY_ONE, "return total"),
        "where a running total stalls",
    ),
    *(
        (
            "02.1",
            sums(
                *STRAIGHT,
                f"parts = range(0, len(values), {size})",
                f"return straight([straight(values[i:i + {size}]) for i in parts])",
            ),
            words,
        )
        for size, words in (
            (100, "For 1,000 times 0.1 your total is 100.6"),
            (32, "added to a large total"),
            (64, "rounded up, again and again"),
        )
    ),
    ("02.1", sums("return torch.tensor(values).half().sum()"), "some additions were not FP16"),
    ("02.1", sums("return True"), "should return a number"),
    ("02.2", loss(*EXP, "return -(p[label] + 1e-6).log()"), "which is the first that is Inf"),
    ("02.2", loss(*SHIFT, "return -p[label].float().log()"), "made a small number into 0"),
    ("02.2", loss("return logits.logsumexp(0) - logits[label]"), "FP16 has numbers that small"),
    (
        "02.2",
        loss("e = logits.double().exp()", "return -(e / e.sum())[label].log()"),
        "A wider format only moves the limit",
    ),
    ("02.2", loss("return -logits.double().softmax(0)[label].log()"), "A wider format only moves the limit"),
    (
        "02.2",
        loss("return logits.float().logsumexp(0) - logits[label]"),
        "With logits -9984, -9992, -9992 and class 0 your loss is 0",
    ),
    ("02.1", sums("return [add(sum(map(float, values)), 0.0) for _ in values][-1]"), "that `add` never returned"),
    (
        "02.2",
        loss("return (-logits.float().log_softmax(0)[label]).clamp(min=1e-4)"),
        "With logits 11, 0, 0 and class 0 your loss is 0.0001. It is finite now, but not the loss",
    ),
    (
        "02.2",
        loss("return round(float(-logits.double().log_softmax(0)[label]), 6)"),
        "With logits 11, 0, 0 and class 0 your loss is 3.3e-05. The true one is 3.34e-05",
    ),
    ("02.2", loss("logits = logits.clamp(-10, 10)", *EXP, "return -p[label].log()"), "the cure changed the formula"),
]

RIGHT = [
    ("02.1", sums(*KAHAN)),
    ("02.1", sums("if len(values) == 1: return values[0]", "middle = len(values) // 2",
                  "return add(add_up(values[:middle], add), add_up(values[middle:], add))")),
    ("02.1", sums(*STRAIGHT, "values = [straight(values[i:i + 10]) for i in range(0, len(values), 10)]", *PAIRS,
                  "    values = pairs + values[2 * len(pairs):]", "return values[0]")),
    ("02.1", sums("while len(values) > 1: values = [add(values[0], values[1])] + values[2:] if len(values) < 3 else "
                  "[add(a, b) for a, b in zip(values[::2], values[1::2])] + values[len(values) // 2 * 2:]",
                  "return torch.tensor(values[0])")),
    ("02.2", loss("return -logits.float().log_softmax(0)[label]")),
    ("02.2", loss("return -logits.log_softmax(0, dtype=torch.float32)[label]")),
    ("02.2", loss("return torch.nn.functional.cross_entropy(logits.float()[None], torch.tensor([label]))")),
    ("02.2", loss("return logits.double().logsumexp(0) - logits[label]")),
    ("02.2", loss("rest = (logits - logits[label]).double()", "rest[label] = -torch.inf",
                  "return torch.nn.functional.softplus(rest.logsumexp(0))")),
    ("02.2", loss("shifted = (logits - logits.max()).float()", "return shifted.exp().sum().log() - shifted[label]")),
    ("02.3", six()),
    ("02.3", six(B="Either: never rounds ", C="FP32 leaves the range", D="fp32: adds many terms.")),
]  # fmt: skip

STUBS = {
    "02.1": ("wrong", "For 4096 ones your total is 2,048, and the true one is 4,096. That is where a running total"),
    "02.2": ("wrong", "your loss is nan. Print every line's result: which is the first that is Inf?"),
    "02.3": ("not yet", "Not yet: A, B, C, D, E, F still wait"),
}
# The heart of each solution, which no message may say.
SECRETS = {
    "02.1": r"(?i)pair|chunk|kahan|halves|in turn|lost",
    "02.2": r"log_softmax|logsumexp|float|subtract|max",
    "02.3": r"(?i)belongs|put it|is on a|never rounds",
}
# What a message may repeat of the learner's own answer, or of the question.
ECHO = (
    r"For .*? (your total is \S+|you called `add` \S+ times)|With logits .*? your loss is \S+"
    f"|is not one of the places: {'; '.join(LISTS)}"
)
