"""Answers to the exercises of lesson 06: a group of batches, a schedule, the article's listing."""

from __future__ import annotations

from mpkit.course.lesson_06.listing_lines import LINES, VERDICTS

RIGHT_LINES = {line: right for line, (right, _) in LINES.items()}


def group(*lines: str) -> str:
    """A learner's train_group made of these lines."""
    return "def train_group(losses, scaler, optimizer, max_norm):\n" + "\n".join(f"    {line}" for line in lines) + "\n"


UNDIVIDED = "for loss in losses: scaler.scale(loss).backward()"
LAST_ONLY = "for loss in losses: optimizer.zero_grad(); scaler.scale(loss / len(losses)).backward()"
SCALE = "for loss in losses: scaler.scale(loss / len(losses)).backward()"
UNSCALE = "scaler.unscale_(optimizer)"
PARAMS = "optimizer.param_groups[0]['params']"
CLIP = f"torch.nn.utils.clip_grad_norm_({PARAMS}, max_norm)"
STEP, UPDATE = "scaler.step(optimizer)", "scaler.update()"


def advance(*lines: str) -> str:
    """A learner's advance made of these lines."""
    return "def advance(scaler, optimizer, scheduler):\n" + "\n".join(f"    {line}" for line in lines) + "\n"


def judged(**changes: str) -> str:
    """The right verdicts with some changed; keys are the first letters of a line's place: l0, l1 …"""
    places = list(RIGHT_LINES)
    return f"lines = { ({**RIGHT_LINES, **{places[int(key[1:])]: value for key, value in changes.items()}})!r}\n"


BEFORE = "before = scaler.get_scale()"
UNCHANGED = advance(BEFORE, STEP, UPDATE, "if scaler.get_scale() == before: scheduler.step()")

WRONG = [
    ("06.1", group(SCALE, CLIP, UNSCALE, STEP, UPDATE), "clip, unscale_, step, update. The step is 0.000977"),
    ("06.1", group(SCALE, UNSCALE, STEP, UPDATE), "but max_norm is 1"),
    ("06.1", group(UNDIVIDED, UNSCALE, CLIP, STEP, UPDATE), "That is their sum"),
    ("06.1", group(LAST_ONLY, UNSCALE, CLIP, STEP, UPDATE), "Does every loss count once"),
    ("06.1", group(SCALE, UNSCALE, CLIP, STEP), "Who tells the scaler"),
    ("06.1", group(SCALE, UNSCALE, CLIP, "optimizer.step()", UPDATE), "a step that asks nobody is taken on Inf"),
    ("06.1", group(SCALE, UNSCALE, CLIP, UPDATE), "No weight has moved"),
    ("06.1", group("scaler.scale(losses[0]).backward()", UNSCALE, CLIP, STEP, UPDATE), "There are three losses here"),
    ("06.1", group(SCALE.replace("len(losses)", "2"), UNSCALE, CLIP, STEP, UPDATE), "instead of their mean"),
    ("06.1", group(SCALE, UNSCALE, CLIP.replace("norm_", "value_", 1), STEP, UPDATE), "together is 1.41"),
    ("06.1", group(SCALE, UNSCALE, f"for p in {PARAMS}: p.grad /= 1024", CLIP, STEP, UPDATE),
     "Was something divided twice"),
    ("06.1", group(SCALE, UNSCALE, f"for p in {PARAMS}: p.grad.zero_()", STEP, UPDATE),
     "was there a gradient at the step"),
    ("06.1", "train_group = 1", "without parentheses"),
    ("06.2", advance(STEP, "scheduler.step()", UPDATE), "ahead of the weights"),
    ("06.2", advance(STEP, UPDATE), "advanced only 0 times"),
    ("06.2", advance("optimizer.step()", "scheduler.step()", "scaler.unscale_(optimizer)", UPDATE), "The weight moved"),
    ("06.2", UNCHANGED, "a scale changes at a skip, and also when it grows"),
    ("06.2", "advance = 1", "without parentheses"),
    *(("06.3", judged(**{f"l{n}": given}), why) for n, (_, said) in enumerate(LINES.values())
      for given, why in said.items() if (n, given) != (5, "fine")),
    ("06.3", judged(l0="bad"), "is not one of"),
    ("06.3", "lines = {}", "7 of 7 lines still wait"),
    ("06.3", "lines = 'fine'", "The answer is a dict"),
]  # fmt: skip
EACH_CLIPPED = f"for p in {PARAMS}: torch.nn.utils.clip_grad_norm_([p], max_norm)"
ALSO_WRONG = [
    ("06.1", group(SCALE, UNSCALE, EACH_CLIPPED, STEP, UPDATE), "both parameters together is 1.41"),
    ("06.1", group(SCALE, CLIP, STEP, UPDATE), "scale, scale, clip, step, update. The step is 0.000977 instead of 1"),
    ("06.1", group(SCALE, CLIP, UNSCALE, STEP, UPDATE), "max_norm was compared with a scaled number"),
    (
        "06.1",
        group(SCALE.replace("loss / len(losses)", "loss * 0"), UNSCALE, CLIP, STEP, UPDATE),
        "was there a gradient",
    ),
    ("06.2", advance("scheduler.step()", STEP, UPDATE), "ahead of the weights"),
    ("06.3", judged(l5="fine", l6="outdated"), "This verb has never had another name"),
    ("06.3", judged(l6="wrong comment"), "Read what the line itself does"),
    ("06.3", "lines = {'model = ResNet50()': 'undefined'}", "6 of 7 lines still wait"),
    ("06.3", judged(l4="")[:-1], "line # backward (FP32) still waits"),
]
RIGHT = [
    ("06.1", group(SCALE, UNSCALE, CLIP, STEP, UPDATE)),
    ("06.1", group("scaler.scale(sum(losses) / len(losses)).backward()", UNSCALE, CLIP, STEP, UPDATE)),
    ("06.1", group(SCALE, UNSCALE, CLIP, STEP, UPDATE, "optimizer.zero_grad()")),
    ("06.2", advance("result = scaler.step(optimizer)", UPDATE, "if result.stepped: scheduler.step()")),
    ("06.2", advance("result = scaler.step(optimizer)", UPDATE, "if not result.found_inf: scheduler.step()")),
    ("06.2", advance(BEFORE, STEP, UPDATE, "if scaler.get_scale() >= before: scheduler.step()")),
    ("06.2", advance(BEFORE, STEP, UPDATE, "if not scaler.get_scale() < before: scheduler.step()")),
    ("06.2", advance(f"was = {PARAMS}[0].clone()", STEP, UPDATE, f"if was != {PARAMS}[0]: scheduler.step()")),
    ("06.3", judged()),
    ("06.3", judged(l5="fine")),  # zero_grad() may stand at the top of the loop, as in the lesson's repaired listing
    ("06.3", judged(l4="Wrong comment.", l6="FINE").replace("model = ResNet50()", "model=ResNet50()")),
]
STUBS = {
    "06.1": ("not yet", "Not yet: your function never uses the scaler"),
    "06.2": ("wrong", "ahead of the weights"),
    "06.3": ("not yet", "Not yet: 7 of 7 lines still wait"),
}
SECRETS = {"06.1": r"[Uu]nscale_? (before|once)|order", "06.2": r"\.stepped|get_scale|if ", "06.3": r"(?i)should be"}
ECHO = rf"You called: .*?\. |^.*?: (?=[A-Z])|is not one of the verdicts: {'; '.join(VERDICTS)}"
