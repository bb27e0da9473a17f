"""Answers to the exercises of lesson 01: the spacing of FP16, what vanishes in it, five jobs."""

from __future__ import annotations

JOBS = '"A": "BF16", "B": "FP16", "C": "FP32", "D": "E4M3", "E": "E5M2", "F": "BF16"'


def gap(expression: str) -> str:
    """A learner's spacing that returns this."""
    return f"import math\ndef spacing(x):\n    return {expression}\n"


def gone(expression: str) -> str:
    """A learner's vanishes that returns this."""
    return f"def vanishes(x):\n    return {expression}\n"


def six(**changes: str) -> str:
    """A learner's jobs: the right ones, with some changes."""
    return f"jobs = {{**{{{JOBS}}}, **{changes!r}}}\n"


FLOOR = "math.floor(math.log2(x))"
TINY = "torch.finfo(torch.float16).tiny"

RIGHT = [
    ("01.1", gap(f"2.0 ** max({FLOOR} - 10, -24)")),
    ("01.1", gap("mpkit.FP16.spacing(x)")),
    ("01.1", gap("math.ldexp(1, max(math.frexp(x)[1] - 1, -14) - 10)")),
    ("01.1", gap("max(2.0 ** -24, 2.0 ** torch.tensor(x).log2().floor() * torch.finfo(torch.float16).eps)")),
    ("01.1", "def spacing(x):\n    c = torch.tensor(x).half().view(torch.int16)\n"
             "    return (c + 1).view(torch.float16).double() - x\n"),
    ("01.2", gone("torch.tensor(x).half().item() == 0")),
    ("01.2", gone("torch.tensor(x).half() == 0")),
    ("01.2", "import numpy\n" + gone("numpy.float16(x) == 0")),
    ("01.2", gone("abs(x) <= mpkit.FP16.flush_at")),
    ("01.2", gone("-2 ** -25 <= x <= 2 ** -25")),
    ("01.3", six()),
    ("01.3", "jobs = {'a': 'bf16', 'B': 'Fp16', 'C': 'fp32', 'D': ' e4m3', 'E': 'e5M2', 'F': 'BF16'}\n"),
    ("01.3", "jobs = {'A': 'BF16', ' b ': 'FP-16', 'C': 'FP 32', 'D': 'E4M3.', 'E': 'E5M2', 'F': 'bf16', 'G': 0}\n"),
    ("01.3", "jobs = {'A': mpkit.BF16, 'B': mpkit.FP16, 'C': mpkit.FP32, "
             "'D': mpkit.E4M3, 'E': mpkit.E5M2, 'F': mpkit.BF16}\n"),
]  # fmt: skip

WRONG = [
    ("01.1", gap("2.0 ** -10"), "distance next to 1. What happens"),
    ("01.1", gap("x * 2.0 ** -10"), "no power of two"),
    ("01.1", gap(f"2.0 ** ({FLOOR} - 10)"), "less than FP16's smallest number"),
    ("01.1", gap(f"max({FLOOR}, -14) - 10"), "looks like an exponent"),
    ("01.1", gap(f"2.0 ** (max({FLOOR}, -14) - 7)"), "BF16's distance"),
    ("01.1", gap("2.0 ** (max(math.ceil(math.log2(x)), -14) - 10)"), "Twice as much"),
    ("01.1", gap("2.0 ** (max(math.ceil(math.log2(x)) - 1, -14) - 10)"), "the distance to the larger neighbour"),
    ("01.1", gap("-2.0 ** -10"), "positive, finite"),
    ("01.1", gap("'2**-10'"), "should return a number"),
    ("01.1", gap("2.0 ** (math.floor(math.log2(x)) - 13)"), "column “spacing here”"),
    ("01.1", "spacing = 2.0 ** -10\n", "without parentheses"),
    ("01.2", gone(f"abs(x) < {TINY}"), "with fewer bits"),
    ("01.2", gone("abs(x) < torch.finfo(torch.float16).eps"), "distance next to 1"),
    ("01.2", gone("abs(x) < 2 ** -24"), "nearer than 0"),
    ("01.2", gone("abs(x) < 2 ** -25"), "Which of the two is “even”"),
    ("01.2", gone("abs(x) < 3e-8"), "nearer than 0"),
    ("01.2", gone("abs(x) < 2.98e-8"), "no number near enough"),
    ("01.2", gone("-2 ** -25 < x <= 2 ** -25"), "Which of the two is “even”"),
    ("01.2", gone("x <= 2 ** -25"), "whatever its sign"),
    ("01.2", gone("False and x"), "no number near enough"),
    ("01.2", gone("True"), "holds it exactly"),
    ("01.2", gone("'yes'"), "True or False"),
    ("01.2", "vanishes = 2 ** -25\n", "without parentheses"),
    ("01.3", six(A="FP16"), "make of 100,000"),
    ("01.3", six(A="FP32"), "16 bits to spend, and FP32 takes 32"),
    ("01.3", six(A="E5M2"), "E5M2 takes 8 bits, and there are 16 to spend"),
    ("01.3", six(B="BF16"), "three bits on a range that B does not need"),
    ("01.3", six(B="E4M3"), "E4M3 takes 8 bits, and there are 16 to spend"),
    ("01.3", six(C="FP16"), "stop counting"),
    ("01.3", six(C="BF16"), "each whole number on the way"),
    ("01.3", six(C="TF32"), "nothing is stored in TF32"),
    ("01.3", six(C="E4M3"), "448"),
    ("01.3", six(D="E5M2"), "a bit on a range that D does not need"),
    ("01.3", six(D="FP16"), "8 bits to spend, and FP16 takes 16"),
    ("01.3", six(E="E4M3"), "too narrow for E"),
    ("01.3", six(F="FP16"), "with how many significant bits?"),
    ("01.3", six(E="float8"), "'float8' is not one of the formats"),
    ("01.3", "jobs = {'A': 'FP16', 'B': ..., 'C': 'FP32'}", "jobs B, D, E, F are still open"),
    ("01.3", "jobs = {'A': 'FP16', 'B': ..., 'C': 'FP32', 'D': 'FP16', 'E': 'FP16', 'F': 'FP16'}", "job B still waits"),
    ("01.3", "jobs = 'FP16'", "The answer is a dict"),
]
ALSO_WRONG = [
    ("01.1", gap("torch.finfo(torch.float16).eps"), "distance next to 1. What happens"),
    ("01.1", gap(f"max(2.0 ** ({FLOOR} - 10), 2.0 ** -25)"), "less than FP16's smallest number"),
    ("01.1", gap("round(math.log2(x)) - 10"), "looks like an exponent"),
    ("01.1", gap("float('inf')"), "positive, finite"),
    ("01.1", gap("True"), "should return a number"),
    ("01.1", gap("torch.tensor([x, x])"), "should return a number"),
    ("01.1", "spacing = torch.tensor([0.25, 0.5])\n", "What came is a Tensor, which looks like the result of a call"),
    ("01.1", gap("2.0 ** (max(round(math.log2(x)), -14) - 10)"), "Twice as much"),
    ("01.2", gone(f"torch.tensor(abs(x) < {TINY})"), "with fewer bits"),
    ("01.2", gone("abs(x) < mpkit.FP16.smallest_subnormal"), "nearer than 0"),
    ("01.2", gone("abs(x) < 1e-5"), "with fewer bits"),
    ("01.2", gone("abs(x) < 1e-20"), "no number near enough"),
    ("01.2", gone("0 < x <= 2 ** -25"), "no number near enough"),
    ("01.3", six(B="TF32"), "nothing is stored in TF32"),
    ("01.3", six(A="FP16", B="BF16"), "make of 100,000"),
    ("01.3", six(A="FP16", E="float8"), "'float8' is not one of the formats"),
    ("01.3", six(B=" "), "job B still waits"),
    (
        "01.3",
        "jobs = {'A': 'BF16', 'BB': 'FP16', 'C': 'FP32', 'D': 'E4M3', 'E': 'E5M2', 'F': 'BF16'}",
        "There is no job 'BB'",
    ),
]
STUBS = {
    "01.1": ("not yet", "Not yet: your function returns nothing"),
    "01.2": ("wrong", "For x = 3e-05 your function says True. Type it into the explorer"),
    "01.3": ("not yet", "Not yet: jobs A, B, C, D, E, F are still open"),
}
SECRETS = {
    "01.1": r"floor|log2|-24|-14|max\(|2\^",
    "01.2": r"<=|half|2\^-25|flush_at|smallest_subnormal",
    "01.3": r"(?i)\b(take|use|choose|should be) (FP|BF|E\d)",
}
ECHO = r"you say \S+|is not one of the formats: .*"
