"""What the granularity panel says: the finding as its title, a line below it, the table, and all in one line."""

from collections.abc import Sequence

from mpkit.course.lesson_09.granularity_data import FACTORS, GAINS, LARGE, LITTLE, SPREAD
from mpkit.course.lesson_09.granularity_effect import DRAWS, Effect
from mpkit.course.lesson_09.granularity_view import GROUPS, View
from mpkit.course.pictures.style import percent
from mpkit.scaled import SCALED_FORMATS, ScaledFormat

WHERE = {"tensor": "one scale for all", "row": "one scale a row", "column": "one scale a column"}
HOW = {"up": "powers of 2", "floor": "OCP's floor"}
Table = tuple[Sequence[str], Sequence[tuple[str, Sequence[str]]]]  # heads; name and cells of each row
HEADS = ("error beside\nthe outlier", "become 0", "cut off", "groups with\none cut off", "largest of a\ngroup moves",
         "different values\nin a group", "bits a value,\nscales included")  # fmt: skip


def known(fmt: ScaledFormat) -> str:
    """The name that people know: MXFP4, or "MXFP4 by OCP's floor"; else the small format's and what its scales are."""
    named = [one for one in SCALED_FORMATS.values() if one.name.startswith(("MX", "NV"))]
    parts = (fmt.values, fmt.block, fmt.two_level)
    for one in named:
        if (one.values, one.block, one.two_level) == parts and fmt.rule in (one.rule, "floor"):
            return one.name if fmt.rule == one.rule else f"{one.name} by OCP's floor"
    if fmt.scale_format == "FP32":
        return f"{fmt.values}, {where(fmt)}"
    return f"{fmt.values}, {HOW.get(fmt.rule, 'two levels')}, {where(fmt).replace('one scale', 'one')}"


def where(fmt: ScaledFormat) -> str:
    """What shares a scale."""
    name = next(name for name, block in GROUPS.items() if block == fmt.block)
    return WHERE.get(name, f"one scale a {name} block")


def headline(view: View) -> str:
    """The finding in one line, and the title."""
    if view.rounded:
        nearest, mean = view.rounded["nearest"].constant, view.rounded["mean"].constant
        return (
            f"{known(view.fmt)}: {LITTLE} beside {LARGE:.1f} becomes {nearest:.3f} by nearest, "
            f"{mean:.3f} on average by stochastic"
        )
    found, other, name = view.matrix, view.reference, known(view.fmt)
    if view.values == GAINS:
        return f"{name}: {_grouped(found)} 1 ± {SPREAD} become {_levels(found.levels)}; {_apart(found)}"
    if view.fmt.rule == "floor" and found.groups_saturated:
        cut, up = (percent(one.groups_saturated) for one in (found, other))
        moves = f"the largest moves {_signed(found.peak)}"
        return f"{name}: in {cut} of groups a value is cut off, {moves}; rounded up: {up}, {_signed(other.peak)}"
    beside = "" if view.values == "no outlier" else "beside the outlier "
    gone = f", {'all' if found.flushed == 1 else percent(found.flushed)} become 0" if found.flushed >= 0.005 else ""
    lead = f"{name}: {beside}weights are off by {off(found.error)}{gone}"
    if view.fmt.rule != "floor":  # what another sharing would do, the learner is to find out
        return lead
    return (
        f"{lead}, no less rounded up"
        if off(other.error) == off(found.error)
        else f"{lead}; rounded up: {off(other.error)}"
    )


def off(error: float) -> str:
    """A relative error, which may be above 1."""
    return percent(error) if error < 0.995 else f"{error:.0%}"


def _apart(found: Effect) -> str:
    """What is left of the differences between gains."""
    if found.levels == 1:
        return "nothing of what sets them apart is left"
    if found.spread_error > 1:
        return f"the error is {found.spread_error:.1f}× what sets them apart"
    return f"what sets them apart is off by {off(found.spread_error)}"


def _grouped(found: Effect) -> str:
    return f"{found.members:,.0f} gains of"


def _levels(levels: float) -> str:
    if levels == 1:
        return "1 value"
    return f"{levels:.1f} different values" if levels < 9.95 else f"{levels:,.0f} different values"


def about(view: View) -> str:
    """What is shown, in one line below the title."""
    if view.rounded:
        return (
            f"A dark picture, but every 16th column is {LARGE:.1f}; rounded to nearest, stochastically, and the mean "
            f"of {DRAWS} such casts."
        )
    if view.values == GAINS:
        return (
            f"Gains of a layer norm, and a picture with as little contrast: all lies around 1, with a spread of "
            f"{SPREAD}. Dashed: a group with one scale."
        )
    times = f"{FACTORS[view.values]:,}"
    outlier = f"One column of both is {times} times larger. " if view.values != "no outlier" else ""
    group = "Dashed: a group with one scale" + (", the outlier in it." if outlier else ".")
    return f"{outlier}Weights: normal, spread 1/8 = 1/√64. {group}"


def table(view: View) -> Table:
    """The numbers below the picture."""
    if view.rounded:
        few = (
            f"{LITTLE} becomes,\non average",
            f"error beside\nthe {LARGE:.1f}",
            "become 0",
            "different values\nin a group",
        )
        names = {"nearest": "nearest", "once": "stochastic", "mean": f"mean of {DRAWS}"}
        rows = [
            (
                names[way],
                (f"{one.constant:.3f}", off(one.picture.error), percent(one.picture.flushed), _count(one.picture)),
            )
            for way, one in view.rounded.items()
        ]
        return few, rows
    heads = list(HEADS)
    if view.values == GAINS:
        heads[:1] = ["error"]
        heads[2:3] = ["error of what\nsets them apart"]
    elif view.values == "no outlier":
        heads[0] = "error"
    return heads, [
        ("gains" if view.values == GAINS else "weights", _cells(view, view.matrix)),
        ("picture", _cells(view, view.picture)),
    ]


def _cells(view: View, one: Effect) -> Sequence[str]:
    third = off(one.spread_error) if view.values == GAINS else percent(one.saturated)
    return (
        off(one.error), percent(one.flushed), third, percent(one.groups_saturated), _signed(one.peak),
        _count(one), f"{one.bits:.2f}",
    )  # fmt: skip


def _signed(change: float) -> str:
    return "0" if abs(change) < 5e-5 else f"{100 * change:+.1f}%".replace("-", "−")


def _count(one: Effect) -> str:
    levels = f"{one.levels:.1f}" if one.levels < 99.5 and one.levels % 1 else f"{one.levels:,.0f}"
    return f"{levels} of {one.members:,.0f}"


def describe(view: View) -> str:
    """Settings, finding and numbers in words."""
    heads, rows = table(view)
    said = ". ".join(
        f"{name}: " + ", ".join(f"{' '.join(head.split())} {cell}" for head, cell in zip(heads, cells, strict=True))
        for name, cells in rows
    )
    how = f"{view.values}, {view.fmt.values}, {where(view.fmt)}, scales in {view.fmt.scale_format}"
    return f"{headline(view)}. {how}. {said}."
