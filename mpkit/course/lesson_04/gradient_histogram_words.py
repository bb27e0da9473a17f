"""What a `WhatIf` says in words: its title, what training would do with these gradients, and a line of shares."""

import math

from mpkit.course.pictures.style import percent, power
from mpkit.course.runs.snapshots import WhatIf


def headline(view: WhatIf) -> str:
    """The finding in one line, and the title."""
    scale, total = f"At loss scale {power(view.log2_scale)}", view.total
    if total.overflowed_count:
        lost = "overflow" if view.format.has_inf else f"are cut to {view.format.max:.0f}"
        return f"{scale}, {percent(total.overflowed)} of all gradients {lost} in {view.format}"
    if total.flushed > 0.005:
        return f"{scale}, {percent(total.flushed)} of all gradients vanish in {view.format}"
    if any(value is None or value < 0.99 for value in view.cosines):
        bits = view.format.mantissa_bits
        return f"{scale} nothing leaves {view.format}, but its {bits} mantissa bits blur the gradients"
    return f"{scale} the gradients fit into {view.format}"


def consequence(view: WhatIf) -> str:
    """What training would do with these gradients, in one line."""
    if view.total.overflowed_count and view.format.has_inf:
        return "A gradient is Inf, and Inf travels back to the layers before. This step has to be skipped."
    lost = [number for number, value in enumerate(view.cosines, 1) if value is None]
    bent = [number for number, value in enumerate(view.cosines, 1) if value is not None and value < 0.99]
    if lost or bent:
        parts = [f"{_layers(lost)} get{'s' if len(lost) == 1 else ''} no gradient at all"] if lost else []
        parts += [f"{_layers(bent)} get{'s' if len(bent) == 1 else ''} a bent one (cosine below 0.99)"] if bent else []
        return f"Training in {view.format}: {'; '.join(parts)}."
    room = math.floor(view.total.headroom_bits)
    doublings = "1 doubling" if room == 1 else f"{room} doublings"
    return f"Every layer keeps its direction (cosine to FP32 above 0.99). Room to the top: {doublings}."


def describe(view: WhatIf) -> str:
    """Scale, step, format and the three shares, in whole percents."""
    t = view.total
    return (
        f"Loss scale {power(view.log2_scale)}, step {view.step}, {view.format}: {_whole(t.flushed)} flushed to zero, "
        f"{_whole(t.subnormal)} subnormal, {_whole(t.overflowed)} overflowed. {consequence(view)}"
    )


def _whole(share: float) -> str:
    """Whole percents, the same on every machine; something is never called 0 %."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _layers(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    return f"layers {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
