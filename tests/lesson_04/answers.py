"""Answers to the exercises of lesson 04: the usable scales, a step that clips too early, five patients."""

from __future__ import annotations

from mpkit.course.lesson_04.exercises import CURES, PATIENTS

FIVE = (
    '"A": "raise the scale", "B": "lower the scale", "C": "scaling cannot help", "D": "leave it", '
    '"E": "scaling cannot help"'
)


ONE = "sum(n for e, n in layer.items() if e + k <= -26) <= 0.01 * sum(layer.values())"
LOW = f"next(k for k in range(-80, 99) if all({ONE} for layer in layers))"
HIGH = "14 - max(e for layer in layers for e in layer)"
POOLED = "[{e: sum(layer.get(e, 0) for layer in layers) for layer in layers for e in layer}]"


def step(*lines: str) -> str:
    """A learner's sgd_step made of these lines."""
    return "def sgd_step(params, scale, max_norm, lr):\n" + "\n".join(f"    {line}" for line in lines) + "\n"


UNSCALE = "for p in params: p.grad /= scale"
CHECK = "if any(not p.grad.isfinite().all() for p in params): return"
CLIP = "torch.nn.utils.clip_grad_norm_(params, max_norm)"
UPDATE = "for p in params: p.data -= lr * p.grad"


def scales(*, low: str = LOW, high: str = HIGH) -> str:
    """A learner's usable_scales with these two results."""
    return f"def usable_scales(layers):\n    return {low}, {high}\n"


def lowest(flushed: str = "e + k <= -26", share: str = "0.01", layers: str = "layers") -> str:
    """A learner's smallest k, in one expression."""
    gone = f"sum(n for e, n in layer.items() if {flushed}) <= {share} * sum(layer.values())"
    return f"next(k for k in range(-80, 99) if all({gone} for layer in {layers}))"


def five(**changes: str) -> str:
    """A learner's advice: the right one, with some changes."""
    return f"advice = {{**{{{FIVE}}}, **{changes!r}}}\n"


# Exercise, wrong answer, the words that name its misconception.
WRONG = [
    ("04.1", scales(high=HIGH.replace("14", "15")), "What is FP16's largest number?"),
    ("04.1", scales(high="2.0 ** (14 - max(e for layer in layers for e in layer))"), "asked is its exponent"),
    ("04.1", scales(high="14 - min(max(layer) for layer in layers)"), "decides nothing at the top"),
    ("04.1", scales(high="40 - max(e for layer in layers for e in layer)"), "Some values overflow then"),
    ("04.1", scales(high=HIGH.replace("14", "10")), "Twice as much would still be finite"),
    ("04.1", scales(low=lowest(layers=POOLED)), "Look at each layer"),
    ("04.1", scales(low=lowest(share="0")), "How many may a layer lose?"),
    ("04.1", scales(low=lowest("e + k < -14")), "Subnormals are less exact, but not lost"),
    ("04.1", scales(low=lowest("e + k <= -25")), "One column more is safe"),
    ("04.1", scales(low=lowest("e + k <= -27")), "Which number of FP16 is nearest?"),
    ("04.1", scales(low=lowest("e + k <= -40")), "One layer loses more than 1 % then"),
    ("04.1", scales(low=lowest("e + k <= -20")), "A smaller scale would do as well"),
    ("04.1", scales(low="'low'"), "return two whole numbers"),
    ("04.1", scales(low="..."), "still waits"),
    ("04.1", "usable_scales = (2, 20)", "without parentheses"),
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
    *(("04.3", five(**{name: cure}), why) for name, (_, said) in PATIENTS.items() for cure, why in said.items()),
    ("04.3", five(A="more scale"), "is not one of the cures"),
    ("04.3", "advice = {'A': 'leave it', 'B': ..., 'C': 'leave it'}", "patients B, D, E still wait"),
    ("04.3", "advice = {**dict.fromkeys('ACDE', 'leave it'), 'B': ...}", "patient B still waits"),
    ("04.3", "advice = 'leave it'", "The answer is a dict"),
]  # fmt: skip
# The same misconceptions in another form.
ALSO_WRONG = [
    ("04.1", "def usable_scales(layers):\n    return 5\n", "return two whole numbers"),
    ("04.1", scales(low=lowest(layers=POOLED), high="16 - max(e for layer in layers for e in layer)"), "overflow then"),
    ("04.1", scales(low="True"), "return two whole numbers"),
    ("04.2", step(UNSCALE, CHECK.replace("in params", "in params[:1]"), CLIP, UPDATE), "weights are not finite"),
    ("04.2", step(CLIP.replace("max_norm", "max_norm / scale"), UNSCALE, CHECK, UPDATE), "Print the gradients"),
    ("04.2", step("..."), "the weights do not move"),
]

RIGHT = [
    ("04.1", scales(low=lowest())),
    ("04.1", scales(low=lowest("2.0 ** (e + k + 1) <= mpkit.FP16.flush_at"))),
    ("04.1", scales(low=f"float({LOW})", high=f"torch.tensor({HIGH})")),
    ("04.1", scales(high="min(14 - max(layer) for layer in layers)")),
    ("04.1", f"def usable_scales(layers):\n    return [{LOW}, {HIGH}]\n"),
    ("04.2", step(CHECK, UNSCALE, CLIP, UPDATE)),
    ("04.2", step(CHECK, CLIP.replace("max_norm", "max_norm * scale"), UNSCALE, UPDATE)),
    ("04.2", step("torch._foreach_div_([p.grad for p in params], scale)", CHECK, CLIP,
                  "torch._foreach_add_([p.data for p in params], [p.grad for p in params], alpha=-lr)")),
    ("04.2", step(UNSCALE, f"norm = {CLIP}", "if norm.isfinite():", f"    {UPDATE}")),
    ("04.2", step(UNSCALE, CHECK.replace("return", "return False"), CLIP, "torch.optim.SGD(params, lr).step()")),
    ("04.3", five()),
    ("04.3", five(A="Raise the scale", B="LOWER THE SCALE", C=" scaling  cannot help", D="leave it!")),
]  # fmt: skip

STUBS = {
    "04.1": ("not yet", "Not yet: the smallest or the largest k still waits"),
    "04.2": ("wrong", "your step is 1.53e-05 times as long as the FP32 step. What did the norm look like"),
    "04.3": ("not yet", "Not yet: patients A, B, C, D, E still wait"),
}
SECRETS = {
    "04.1": r"-26|-25|65504|max\(|\b14\b",
    "04.2": r"[Uu]nscale|isfinite|before|first|order",
    "04.3": r"(?i)(raise|lower) (it|the)|cannot help|advise",
}
ECHO = (
    r"Layers \{.*\}: your scales go from \S+ to \S+\. |At scale.*?FP32 step\. |your scale is \S+|× \S+|such as \{.*\}"
    f"|is not one of the cures: {'; '.join(CURES)}"  # names all four, so it gives none away
)
