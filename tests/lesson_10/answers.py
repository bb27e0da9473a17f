"""Answers to the exercises of lesson 10: what is to blame, the line of a silent bug, the calls of an iteration."""

from __future__ import annotations

from mpkit.course.lesson_10.exercises import BACK, CALLS, CAUSES, FAULT
from mpkit.course.lesson_10.slow_script import LINES


def blame(body: str) -> str:
    """A learner's blame."""
    return f"def blame(run):\n    {body}\n"


def at(part: str) -> str:
    """The number of the first line with that in it, as a learner gives it."""
    return f"line = {next(k for k, line in enumerate(LINES, 1) if part in line)}"


def calls(*names: str) -> str:
    """A learner's order."""
    return f"calls = {list(names)}"


def moved(name: str, place: int) -> str:
    """The right order with one call elsewhere."""
    rest = [one for one in CALLS if one != name]
    return calls(*rest[:place], name, *rest[place:])


RIGHT = [
    ("10.1", blame('return "not precision" if not run(fp32=True) else "loss scale" if run(scale=1) else "precision"')),
    ("10.1", blame('return "Loss scale" if run(scale=2.0) else "precision" if run(fp32=True) else "not precision"')),
    (
        "10.1",
        blame(
            "scale = 65536\n    while scale > 1 and not run(scale=scale):\n        scale /= 2\n"
            '    if run(scale=scale):\n        return "loss scale"\n'
            '    return "precision" if run(scale=1, fp32=True) else "not precision"'
        ),
    ),
    (
        "10.1",
        blame('return {(0, 0): "not precision", (0, 1): "precision"}.get((run(0.5), run(1, True)), "loss scale")'),
    ),
    ("10.2", f"line = {FAULT}"),
    ("10.2", f"line = {BACK}.0"),
    ("10.3", calls(*CALLS)),
    ("10.3", moved("zero_grad", 7)),
    ("10.3", moved("zero_grad", 1)),
    ("10.3", f"calls = tuple(name + '()' for name in {CALLS})"),
    ("10.3", f"calls = [' ' + name.title() for name in {CALLS}]"),
    (
        "10.3",
        calls(
            "optimizer.zero_grad()",
            "forward",
            "scaler.scale(loss).backward()",
            "scaler.unscale_(optimizer)",
            "clip",
            "scaler.step(optimizer)",
            "scaler.update()",
            "scheduler.step()",
        ),
    ),
]
WRONG = [
    (
        "10.1",
        blame('return "precision" if run(fp32=True) else "not precision"'),
        "FP32 cures it, and so does a smaller",
    ),
    ("10.1", blame('return "loss scale"'), "you answer without a run"),
    ("10.1", blame('run()\n    return "loss scale"'), "it is not finite at any scale"),
    (
        "10.1",
        blame('return "loss scale" if run(scale=256) else "not precision"'),
        "so it is no fault of data or formula",
    ),
    ("10.1", blame('return "loss scale" if run(scale=1) else "precision"'), "Can the format be the reason"),
    (
        "10.1",
        blame('return "loss scale" if run(scale=256) else "precision" if run(fp32=True) else "not precision"'),
        "Step D: you say 'precision'",
    ),
    ("10.1", blame('return "overflow"'), "is not one of the causes"),
    ("10.1", blame("return 3"), "one of three texts"),
    ("10.1", blame("while True:\n        run()"), "Does your loop end"),
    ("10.1", "blame = 'precision'", "without parentheses"),
    ("10.2", at("zero_grad"), "without a condition"),
    ("10.2", at("torch.autocast"), "one autocast block a forward pass"),
    ("10.2", at("clip_grad"), "it comes after unscaling"),
    ("10.2", at("lr=1e-4"), "FP32 holds that. Who does not"),
    ("10.2", at("schedule.step"), "moves only when the optimizer did"),
    ("10.2", at("evaluate(model"), "you are near"),
    ("10.2", at("model.eval()"), "evaluation mode"),
    ("10.2", "line = 1", "Compare the weights before and after"),
    ("10.2", "line = 4", "is empty"),
    ("10.2", "line = 400", "The script has lines 1 to"),
    ("10.2", "line = 'evaluate'", "The answer is a number"),
    ("10.3", moved("backward", 0), "there is no loss yet"),
    (
        "10.3",
        calls("zero_grad", "forward", "unscale_", "backward", "clip", "step", "update", "schedule"),
        "no gradients yet",
    ),
    (
        "10.3",
        calls("zero_grad", "forward", "backward", "clip", "unscale_", "step", "update", "schedule"),
        "a limit on the",
    ),
    ("10.3", moved("clip", 5), "comes too late"),
    (
        "10.3",
        calls("zero_grad", "forward", "backward", "unscale_", "clip", "update", "step", "schedule"),
        "the scaler counts",
    ),
    (
        "10.3",
        calls("zero_grad", "forward", "backward", "unscale_", "clip", "step", "schedule", "update"),
        "whether the step",
    ),
    ("10.3", moved("zero_grad", 3), "what is the optimizer to step with"),
    ("10.3", calls(*CALLS[:-1]), "schedule is missing"),
    ("10.3", calls(*CALLS, "step"), "step is there twice"),
    ("10.3", calls(*CALLS, "wait"), "'wait' is none of the eight"),
    ("10.3", calls(*CALLS[:-3], "optimizer.step()", *CALLS[-2:]), "'optimizer.step()' is none of the eight"),
    ("10.3", "calls = 'step'", "a list of eight names"),
]
ALSO_WRONG = [
    ("10.1", blame('return "precision" if run(scale=1, fp32=True) else "loss scale"'), "FP32 cures it, and so does"),
    ("10.1", blame('run()\n    return "not precision"'), "so it is no fault of data or formula"),
    ("10.2", at("scaler.update"), "once an iteration"),
    ("10.2", at("model.train()"), "Is all else back"),
    ("10.3", moved("schedule", 0), "whether the step was taken"),
    ("10.3", moved("zero_grad", 4), "what is the optimizer to step with"),
]
STUBS = {
    "10.1": ("wrong", "Step A: you say 'precision'"),
    "10.2": ("not yet", "your answer is still empty"),
    "10.3": ("wrong", "there is no loss yet that could go backward"),
}
SECRETS = {
    "10.1": r"run\(|scale=1\b|scale of 1\b",
    "10.2": rf"(?i)\bhalf\b|16 bits|line ({FAULT}|{BACK})\b",
    "10.3": r"zero_grad, forward|→",
}
ECHO = rf"is not one of the causes: {'; '.join(CAUSES)}|you say '[a-z ]*'"
