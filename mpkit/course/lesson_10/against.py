"""What speaks against a diagnosis: for each, tests, and the sentence that their result makes true."""

from collections.abc import Callable, Iterator

from mpkit.course.lesson_10.facts import Facts
from mpkit.course.lesson_10.in_words import listed, number
from mpkit.course.pictures.style import percent

CURVES = "curves"  # needs no test
Ask = Callable[[Facts], str]
FINITE_BEFORE = "what is bad was bad before the first operation ran"
AGREES = "nothing is Inf or NaN, and FP32 gives the same loss, gradients and next loss, but for rounding"


def _in_fp32(why: str) -> Ask:
    def ask(f: Facts) -> str:
        if not f.bad_in_fp32 or f.eight_bit:
            return ""
        return f"in FP32, {why}, it is not finite either ({listed(f.bad_in_fp32)})"

    return ask


def _if(holds: Callable[[Facts], object], said: str) -> Ask:
    return lambda f: said if holds(f) else ""


def _before(what: str = "") -> Ask:
    def ask(f: Facts) -> str:
        found = [name for name in f.bad_at_start if name.startswith(what)]
        return f"{found[0]} was not finite before the step began" if found else ""

    return ask


def _stands_still(f: Facts) -> str:
    if f.bad or f.examined.stuck or f.passes > 1 or f.eight_bit:
        return ""
    return ("no sum, moment or average that it keeps in 16 bits stands still" if f.low else
            "its weights, moments and averages are in FP32")  # fmt: skip


def _no_cast_between(f: Facts) -> str:
    moments = [said for said in f.examined.stuck if said.startswith("Of moment")]
    return f"no cast stands between steps and moments, yet of{moments[0][2:].rstrip('.')}" if moments else ""


def _moves_in_fp32(f: Facts) -> str:
    return f"the same calls move in FP32 what stands still: of{f.examined.stuck[-1][2:-1]}" if f.examined.stuck else ""


def _differs(f: Facts) -> str:
    if f.bad:
        return f"here is Inf or NaN: {f.not_finite()}" + ("" if f.bad_in_fp32 else "; in FP32 all is finite")
    if f.gap > 0.1:
        return f"its gradients differ from those of FP32 by {percent(f.gap)}"
    return "of" + f.examined.stuck[-1][2:].rstrip(".") if f.examined.stuck else ""


def _gradients_wrong(f: Facts) -> str:
    left, got = f.norms
    if got and left / got > 2:
        return f"backward leaves gradients of norm {number(left)}, and the optimizer gets {number(got)}"
    if before := _before("gradient")(f):
        return before
    if f.zeros == 1:
        return "all gradients are 0"
    return "" if f.held or not f.examined.exam.base.grads else "the optimizer holds nothing that gets a gradient"


def _odd_in_trace(f: Facts) -> str:
    if f.first and f.first != "input":
        return "the trace names an operation that makes Inf or NaN, and they are not discarded"
    return next(iter(f.notes.values()), f.disorder)


def _scale_forgotten(f: Facts) -> str:
    state = f.examined.case.state
    lacks = state is not None and f.has_scale and "scaler" not in state
    return "the checkpoint has no scaler, so a restart begins with another scale" if lacks else ""


def _misfit(f: Facts) -> str:
    return "no order of calls gives the model's dtype the largest numbers of the file" if f.misfit else ""


# Of each kind: (test, what its result says against the kind, or "").
AGAINST: dict[str, tuple[tuple[str, Ask], ...]] = {
    "overflow": (
        ("fp32", _in_fp32("which goes up to 3e38")), ("fp32", _if(lambda f: f.agrees, AGREES)),
        ("fp32", _if(lambda f: f.only_bf16, "its 16 bits are BF16, which goes up to 3e38 as FP32 does")),
        ("trace", _if(lambda f: not f.first and not f.only_kept,
                      "the trace finds no Inf that reaches the loss or a gradient")),
        ("trace", _if(lambda f: f.of_ordinary, "the first bad value is a NaN, and only ordinary numbers went in")),
        ("trace", _if(lambda f: f.first == "input", FINITE_BEFORE)), ("tally", _before("gradient")),
    ),
    "underflow": (
        ("fp32", _in_fp32("which goes down to 1e-38")), ("fp32", _if(lambda f: f.agrees, AGREES)),
        ("fp32", _if(lambda f: f.only_bf16, "its 16 bits are BF16, which goes down to 1e-38 as FP32 does")),
        ("trace", _if(lambda f: f.too_large, "the first value that goes wrong is too large, not too small")),
        ("trace", _if(lambda f: "saturated" in f.notes, "what goes wrong in the cast is too large, not too small")),
        ("trace", _if(lambda f: f.first == "input", FINITE_BEFORE)), ("tally", _before("gradient")),
    ),
    "saturated": (
        ("fp32", lambda f: f"it comes in place of Inf, and here is Inf or NaN: {f.not_finite()}" if f.bad else ""),
        ("trace", _if(lambda f: "saturated" not in f.notes, "the trace sees no value cut to fit an 8-bit format")),
    ),
    "lost update": (
        ("fp32", lambda f: f"what stalls stays finite, and here is Inf or NaN: {f.not_finite()}" if f.bad else ""),
        ("fp32", _stands_still),
        ("trace", _if(lambda f: "saturated" in f.notes,
                      "what a cast loses here, it loses for being too large, and not for a rounding")),
    ),
    "lost integer": (
        ("fp32", _in_fp32("which counts to 16 million")), ("fp32", _if(lambda f: f.agrees, AGREES)),
        ("trace", _if(lambda f: "integers" not in f.notes, "the trace sees no integers that fall together in a cast")),
    ),
    "lost eps": (
        ("fp32", _in_fp32("where no such eps is 0")),
        ("fp32", _if(lambda f: f.agrees, "in FP32, where no such eps is 0, this loss and the next are the same")),
        ("trace", _if(lambda f: "eps" not in f.notes, "the trace sees no eps that is 0 where it is added")),
    ),
    "order": (
        ("trace", _if(lambda f: not f.disorder and f.calls and not f.elsewhere and not f.eight_bit,
                      "the calls in the trace are all there, in a right order")),
        ("fp32", _moves_in_fp32), ("data", _misfit),
    ),
    "loss scale": (
        ("scale", _if(lambda f: not f.has_scale and f.zeros < 0.5, "there is no loss scale in this step")),
        ("scale", _if(lambda f: f.has_scale and f.bad_without_scale, "without a loss scale it is the same")),
        ("scale", _if(lambda f: f.has_scale and not f.bad, "gradients are finite at its scale and at a smaller one")),
        ("trace", _if(lambda f: f.made_forward, "the first bad value is made forward, where no loss scale is")),
    ),
    "stale cast": (
        (CURVES, _if(lambda f: f.skips_on, "steps are skipped, one after another, so no weight moves")),
        (CURVES, _if(lambda f: f.learns, "the loss moves, so the forward pass does see new weights")),
        ("again", _if(lambda f: f.moves, "one more step gives another loss: the forward pass sees new weights")),
        ("again", lambda f: f"the loss is {f.bad_at_once} before any weight has moved" if f.bad_at_once else ""),
        ("tally", _if(lambda f: f.zeros == 1, "all gradients are 0, so no weight has moved")),
        ("fp32", _if(lambda f: not f.moves_in_fp32 and not f.bad_in_fp32 and not f.eight_bit,
                     "in FP32, where nothing is cast, one more step gives the same loss as well")),
        ("fp32", _no_cast_between),
    ),
    "not trained": (
        (CURVES, _if(lambda f: f.learns, "the loss moves, so something is trained")),
        ("again", _if(lambda f: f.moves, "one more step gives another loss, so something is trained")),
        ("fp32", _if(lambda f: f.moves_in_fp32, "in FP32 the same optimizer moves the loss")),
        ("tally", _if(lambda f: f.held, "the gradients that were counted belong to tensors of the optimizer")),
        ("tally", _if(lambda f: not f.passes, "the step has no backward pass, so nothing is to be trained here")),
    ),
    "checkpoint": (("data", _if(lambda f: f.examined.case.state is None, "no checkpoint is loaded here")),),
    "poisoned state": (
        ("fp32", _if(lambda f: not f.bad, "nothing is Inf or NaN after the step")),
        ("fp32", lambda f: "" if f.kept or not f.bad else f"nothing that stays is Inf or NaN, only {f.not_finite()}"),
    ),
    "invalid": (
        ("fp32", _if(lambda f: not f.bad_in_fp32, "in FP32 all is finite")),
        ("tally", _before("gradient")), ("trace", _if(lambda f: f.first == "input", FINITE_BEFORE)),
        ("data", lambda f: _before()(f) if f.examined.case.state is not None else ""),
    ),
    "data": (
        ("fp32", _if(lambda f: f.bad and not f.bad_in_fp32, "the same batch is finite in FP32")),
        ("fp32", _if(lambda f: f.learns_in_fp32 and not f.eight_bit, "FP32 learns from the same batch")),
        ("data", lambda f: f"the batch is finite, with numbers up to {number(f.largest)}" if f.ordinary else ""),
    ),
    "not repeatable": (("again", _if(lambda f: f.repeats, "the same step gives the same numbers twice")),),
    "healthy": (
        (CURVES, lambda f: f.stays_bad), (CURVES, _if(lambda f: f.skips_on, "steps are skipped one after another")),
        (CURVES, _if(lambda f: f.rate_moves_at_skips, "the learning rate goes on where steps are skipped")),
        (CURVES, lambda f: f.flat), ("fp32", _differs), ("tally", _gradients_wrong), ("trace", _odd_in_trace),
        ("data", _scale_forgotten),
    ),
}  # fmt: skip


def against(kind: str, facts: Facts, made: list[str]) -> Iterator[str]:
    """What the tests that were made say against a kind, one sentence each."""
    if kind != "not repeatable" and "again" in made and not facts.repeats:
        yield "the same step gave two results with nothing changed between them, and that comes first"
        return
    for test, ask in AGAINST[kind]:
        if (test == CURVES or test in made) and (said := ask(facts)):
            yield said
