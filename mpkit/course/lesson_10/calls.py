"""The calls of an iteration as its script makes them, and what is wrong with their order."""

from collections.abc import Sequence

SCALER = ("scale", "step", "update")
# (what comes first, what comes later, what is wrong where it does not)
RULES = (
    ("scale", "backward", "backward comes before the loss is scaled"),
    ("unscale_", "clip_grad_norm_", "gradients are clipped while they carry the loss scale"),
    ("clip_grad_norm_", "step", "gradients are clipped after the step"),
    ("step", "update", "the scaler is updated before the step"),
    ("update", "scheduler.step", "the schedule moves before the scaler is updated"),
)


def made(calls: Sequence[str]) -> list[str]:
    """What the script calls, without what `scaler.step` calls by itself: `unscale_`, and the optimizer's step.

    Where the script had unscaled before, and `scaler.step` does so again, that is said behind its name.
    """
    found: list[str] = []
    inside = False
    for call in calls:
        if inside and call == "unscale_":
            if "unscale_" in found:
                found[-1] = "step, which unscales as well"
        elif not (inside and call == "optimizer.step") and not (found and call == found[-1]):
            found.append(call)
        inside = call == "step" or (inside and call == "unscale_")
    return found


def told(calls: Sequence[str]) -> str:
    """The calls of a script in a line."""
    shown = [f"scaler.{call}" if call.split(",")[0] in SCALER else call for call in made(calls)]
    return " → ".join(shown[:9]) or "none"


def disorder(calls: Sequence[str]) -> str:
    """What is wrong with them, in a few words; "" if nothing is. Whether a schedule heeds a skip is not seen here."""
    seen = made(calls)
    place = {call.split(",")[0]: k for k, call in enumerate(seen)}
    if "step, which unscales as well" in seen:
        return "gradients are unscaled twice"
    if "backward" in place and "zero_grad" not in place:
        return "nobody calls zero_grad"
    if "clip_grad_norm_" in place and "scale" in place and "unscale_" not in place:
        return RULES[1][2]
    return next((why for a, b, why in RULES if a in place and b in place and place[a] > place[b]), "")
