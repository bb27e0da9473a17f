"""What the delayed race says: the finding as its title, a line below it, the table, and all in one line."""

from collections.abc import Sequence

from mpkit.course.lesson_09.delayed_view import MUCH, Race
from mpkit.course.pictures.style import percent, power

# A line that screen readers say and nobody sees.
UNSEEN = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)"
Rows = Sequence[tuple[str, str, str]]  # name, delayed, current


def headline(shown: Race, length: int, margin: int) -> str:
    """The finding in one line, and the title."""
    who = f"History {length:,}" + (f", margin {power(margin)}" if margin else "")
    late, now = (error(shown.after(values)) for values in (shown.error, shown.current))
    against = "error as current" if late == now else f"error {late}, current {now}"
    if shown.factor == 1:
        steps, most = int((shown.clipped > 0).sum()), percent(float(shown.clipped.max()))
        much = "never 0.1% of the values" if most == "<0.1%" else f"at most {most} of the values"
        clips = f"{steps} of {len(shown.clipped)} steps clip, {much}" if steps else "nothing is clipped"
        return f"{who}: {clips}; {against}"
    lost = shown.clipped[shown.up]
    clips = f"up clips {percent(lost) if lost else 'nothing'}"
    if shown.long:
        clips += f" for {shown.long} step{'s' * (shown.long > 1)}"
    high = f"limit high for {shown.late}, " if shown.late else ""
    return f"{who}: {clips}; down: {high}{against}"


def error(share: float) -> str:
    """A relative error, which may be above 1."""
    return percent(float(share)) if share < 0.995 else f"{share:.0%}"


def about(shown: Race, steps: int) -> str:
    """What is shown, in one line below the title."""
    if shown.factor == 1:
        return f"{steps} steps of a real training, nothing planted. Format: E4M3, one scale for the tensor."
    return (
        f"{steps} steps of a real training; a jump of ×{shown.factor} is planted at step {shown.up} and ends at step "
        f"{shown.down}. Format: E4M3, one scale for the tensor."
    )


def table(shown: Race) -> Rows:
    """The numbers beside the picture: what it is, delayed, current."""
    up, clipped = shown.up, shown.clipped
    jump: Rows = (
        (f"step {up}: clipped", percent(float(clipped[up])), "0%"),
        (f"step {up}: error", error(shown.error[up]), error(shown.current[up])),
        (f"step {up + 1}: clipped", percent(float(clipped[up + 1])), "0%"),
    )  # fmt: skip
    down: Rows = (("way down: steps, limit high", str(shown.late), "0"),)
    return (
        *(jump if shown.factor > 1 else ()),
        (f"steps with {MUCH:.0%} clipped", str(int((clipped >= MUCH).sum())), "0"),
        ("steps with any clipped", str(int((clipped > 0).sum())), "0"),
        *(down if shown.factor > 1 else ()),
        (
            "way down: error" if shown.factor > 1 else "error",
            error(shown.after(shown.error)),
            error(shown.after(shown.current)),
        ),
        (
            "way down: become 0" if shown.factor > 1 else "become 0",
            percent(shown.after(shown.flushed)),
            percent(shown.after(shown.current_flushed)),
        ),
    )


def describe(shown: Race, length: int, margin: int) -> str:
    """Finding and numbers in words."""
    rows = "; ".join(f"{what.strip()} {late}, current scale {now}" for what, late, now in table(shown))
    return f"{headline(shown, length, margin)}. {rows}."
