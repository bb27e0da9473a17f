"""Answers to the exercises of lesson 04: the largest scale, a step that clips too early, four patients."""

from __future__ import annotations

from mpkit.course.lesson_04.exercises import CURES, PATIENTS

FOUR = '"A": "raise the scale", "B": "lower the scale", "C": "scaling cannot help", "D": "leave it"'


def step(*lines: str) -> str:
    """A learner's sgd_step made of these lines."""
    return "def sgd_step(params, scale, max_norm, lr):\n" + "\n".join(f"    {line}" for line in lines) + "\n"


UNSCALE = "for p in params: p.grad /= scale"
CHECK = "if any(not p.grad.isfinite().all() for p in params): return"
CLIP = "torch.nn.utils.clip_grad_norm_(params, max_norm)"
UPDATE = "for p in params: p.data -= lr * p.grad"


def rule(expression: str) -> str:
    """A learner's largest_scale that returns this."""
    return f"import math\ndef largest_scale(amax):\n    return {expression}\n"


def four(**changes: str) -> str:
    """A learner's advice: the right one, with some changes."""
    return f"advice = {{**{{{FOUR}}}, **{changes!r}}}\n"


LIMIT = "mpkit.FP16.max / amax"
# Exercise, wrong answer, the words that name its misconception.
WRONG = [
    ("04.1", rule(LIMIT), "no power of two"),
    ("04.1", rule(f"2.0 ** math.ceil(math.log2({LIMIT}))"), "too large for FP16"),
    ("04.1", rule(f"math.floor(math.log2({LIMIT}))"), "looks like the exponent"),
    ("04.1", rule("mpkit.FP16.smallest_normal / amax"), "Which limit of the format matters"),
    ("04.1", rule(f"2.0 ** (math.floor(math.log2({LIMIT})) - 1)"), "not the largest"),
    ("04.1", rule("0"), "positive, finite"),
    ("04.1", rule("'2**15'"), "should return a number"),
    ("04.1", "largest_scale = 32768.0", "without parentheses"),
    ("04.2", step(UNSCALE, CHECK, UPDATE), "full length although `max_norm` is 1"),
    ("04.2", step(CHECK, CLIP, UNSCALE, UPDATE), "when it was compared with `max_norm`"),
    ("04.2", step(CHECK, CLIP, UPDATE), "Nothing had to be clipped here"),
    ("04.2", step(UNSCALE, UNSCALE, CHECK, CLIP, UPDATE), "divided out once too often"),
    ("04.2", step(UNSCALE, CHECK, CLIP, UPDATE.replace("-=", "+=")), "points uphill"),
    ("04.2", step(UNSCALE, CHECK, CLIP, UPDATE.replace("-= lr", "= -lr")), "Print the gradients after each line"),
    ("04.2", step(UNSCALE, CLIP, UPDATE), "was Inf, and now the weights are not finite"),
    ("04.2", step(UNSCALE, "for p in params: p.grad.nan_to_num_(0, 0, 0)", CLIP, UPDATE), "still a weight moved"),
    ("04.2", step(UNSCALE, "if any(p.grad.isinf().any() for p in params): return", CLIP, UPDATE), "was NaN, and now"),
    ("04.2", step(UNSCALE, CHECK, CLIP, "for p in params: p.data *= float('nan')"), "Already with ordinary gradients"),
    ("04.2", step(CHECK, CLIP, UNSCALE), "Not yet: the weights do not move"),
    ("04.2", step(UNSCALE, CHECK, CLIP, "for p in params: p -= lr * p.grad"), "stopped with RuntimeError"),
    ("04.2", "sgd_step = 1.0", "without parentheses"),
    *(("04.3", four(**{name: cure}), why) for name, (_, said) in PATIENTS.items() for cure, why in said.items()),
    ("04.3", four(A="more scale"), "is not one of the cures"),
    ("04.3", "advice = {'A': 'leave it', 'B': ..., 'C': 'leave it'}", "patients B, D still wait"),
    ("04.3", "advice = {'A': 'leave it', 'B': ..., 'C': 'leave it', 'D': 'leave it'}", "patient B still waits"),
    ("04.3", "advice = 'leave it'", "The answer is a dict"),
]  # fmt: skip
# The same misconceptions in another form.
ALSO_WRONG = [
    ("04.1", rule("math.exp(math.log(2) * 15)"), "no power of two"),
    ("04.1", rule("True"), "should return a number"),
    ("04.1", rule("torch.ones(2)"), "should return a number"),
    ("04.1", rule("32768.0"), "not the largest"),
    ("04.2", step(UNSCALE, CHECK.replace("in params", "in params[:1]"), CLIP, UPDATE), "weights are not finite"),
    ("04.2", step(CLIP.replace("max_norm", "max_norm / scale"), UNSCALE, CHECK, UPDATE), "Print the gradients"),
    ("04.2", step("..."), "the weights do not move"),
]

RIGHT = [
    ("04.1", rule(f"2 ** math.floor(math.log2({LIMIT})) if amax < 1 else 2.0 ** math.floor(math.log2({LIMIT}))")),
    ("04.1", rule(f"2.0 ** (math.frexp({LIMIT})[1] - 1)")),
    ("04.1", rule(f"math.ldexp(0.5, math.frexp({LIMIT})[1])")),
    ("04.1", rule("2.0 ** (15 - math.ceil(math.log2(amax * 32768 / 65504)))")),
    ("04.1", rule(f"2.0 ** torch.tensor({LIMIT}).log2().floor()")),
    ("04.1", "import fractions\n" + rule(f"fractions.Fraction(2) ** math.floor(math.log2({LIMIT}))")),
    ("04.1", rule("2.0 ** math.floor(math.log2(mpkit.FP16.overflow_at / amax))")),
    ("04.1", "def largest_scale(amax):\n    s = 2.0 ** -20\n    while 2 * s * amax <= 65504: s *= 2\n    return s\n"),
    ("04.2", step(CHECK, UNSCALE, CLIP, UPDATE)),
    ("04.2", step(CHECK, CLIP.replace("max_norm", "max_norm * scale"), UNSCALE, UPDATE)),
    ("04.2", step("torch._foreach_div_([p.grad for p in params], scale)", CHECK, CLIP,
                  "torch._foreach_add_([p.data for p in params], [p.grad for p in params], alpha=-lr)")),
    ("04.2", step(UNSCALE, f"norm = {CLIP}", "if norm.isfinite():", f"    {UPDATE}")),
    ("04.2", step(UNSCALE, CHECK.replace("return", "return False"), CLIP, "torch.optim.SGD(params, lr).step()")),
    ("04.3", four()),
    ("04.3", four(A="Raise the scale", B="LOWER THE SCALE", C=" scaling  cannot help", D="leave it!")),
]  # fmt: skip

STUBS = {
    "04.1": ("not yet", "Not yet: your function returns nothing"),
    "04.2": ("wrong", "your step is 1.53e-05 times as long as the FP32 step. What did the norm look like"),
    "04.3": ("not yet", "Not yet: patients A, B, C, D still wait"),
}
SECRETS = {
    "04.1": r"floor|log2|frexp|[Rr]ound(ed|ing)? down|65504|15",
    "04.2": r"[Uu]nscale|isfinite|before|first|order",
    "04.3": r"(?i)(raise|lower) (it|the)|cannot help|advise",
}
ECHO = (
    r"With amax.*? scale is \S+\. |At scale.*?FP32 step\. |your scale is \S+|× \S+|such as \{.*\}"
    f"|is not one of the cures: {'; '.join(CURES)}"  # names all four, so it gives none away
)
