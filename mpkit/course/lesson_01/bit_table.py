"""One number in several formats as an HTML table: coloured bits, value, spacing, error and neighbours.

HTML, not a picture: the digits can be copied, follow the theme, and are there after one short message.
"""

import math
from collections.abc import Sequence

from mpkit.course import markup
from mpkit.course.lesson_01.bits import Stored
from mpkit.course.pictures.style import power

# Fill and text of a 0 and of a 1, with the same look in both themes. Groups are told apart by hue, lightness, a gap
# and the name over their column; 0 and 1 by lightness and the digit itself.
BIT: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "sign": (("#E3A8C8", "#222222"), ("#7D1258", "#FFFFFF")),
    "exponent": (("#D9E8F6", "#222222"), ("#0B5A9C", "#FFFFFF")),
    "mantissa": (("#F7E08C", "#222222"), ("#765A00", "#FFFFFF")),
}
LINE = 12  # mantissa bits on one line where the window is narrow
# Columns in pixels, the mantissa's last: it takes what is left, from 12 bits on a line to 23. They keep their widths
# while the numbers in them change: stepping must not make the table jump.
WIDTHS = {"format": 50, "sign": 42, "exponent": 100, "value": 119, "spacing here": 62, "relative error": 95,
          "next up<br>next down": 108}  # fmt: skip
NARROW, WIDE = sum(WIDTHS.values()) + 148, sum(WIDTHS.values()) + 284
RAISED = '<sup style="line-height:0">'  # raised digits must not push the lines apart
DIGITS = 6  # tell every value of the formats below FP32 from its neighbours; FP32 takes 9
OUTCOME = {
    "exact": "exact",
    "rounded": "rounded",
    "flushed": "✗ flushed to 0",
    "overflowed": "✗ overflow: Inf",
    "saturated": "✗ too large, no Inf",
    "nan": "not a number",
}


def show(x: float | None, digits: int = 9) -> str:
    """A number in a form that is short and, with 9 digits, tells every float32 from its neighbours."""
    if x is None:
        return "none"
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "Inf" if x > 0 else "-Inf"
    return _short_exponent(f"{x:.{digits}g}")


def _short_exponent(text: str) -> str:
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def show_exact(x: float) -> str:
    """A float64 in as many digits as it takes to tell it from every other float64."""
    return _short_exponent(repr(x).removesuffix(".0")) if math.isfinite(x) else show(x)


def value_of(stored: Stored, x: float | None) -> str:
    """A value of the format of `stored`, in enough digits to tell it from its neighbours."""
    return show(x, 9 if stored.fmt.mantissa_bits > 16 else DIGITS)


def spacing_of(stored: Stored) -> str:
    """The distance to the next value away from 0: a power of two, or "none" for Inf and NaN."""
    ulp = stored.spacing
    return "none" if math.isnan(ulp) else power(math.frexp(ulp)[1] - 1)


def error_of(stored: Stored) -> str:
    """The relative error in percent, two digits; "" where there is none to give."""
    error = 100 * stored.relative_error
    if not 0 < error < math.inf:
        return ""
    digits = max(0, 1 - math.floor(math.log10(error)))
    return "<0.0000001 %" if digits > 8 else f"{error:.{digits}f} %"


def headline(rows: Sequence[Stored]) -> str:
    """The headline: who loses the number, who only just holds it, who holds it exactly."""
    exact = rows[0].exact
    if math.isnan(exact):
        return "NaN, not a number: every format has bit patterns for it"
    parts = [
        f"{value_of(group[0], group[0].value)} in {_names(group)}"
        for outcome in ("overflowed", "saturated", "flushed")
        if (group := [row for row in rows if row.outcome == outcome])
    ]
    faint = [row for row in rows if row.kind == "subnormal"]
    held = [row for row in rows if row.outcome == "exact"]
    parts += [f"subnormal in {_names(faint)}"] if faint else []
    everyone = ("all" if held else "none") if parts else ("all formats" if held else "no format")
    parts += [f"exact in {everyone if len(held) in (0, len(rows)) else _names(held)}"]
    return f"{show_exact(exact)}: {', '.join(parts)}"


def _names(rows: Sequence[Stored]) -> str:
    names = [row.fmt.name for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def formula(stored: Stored) -> str:
    """How the bits of one format become its value."""
    sign, exponent, mantissa = stored.bits
    fmt, value = stored.fmt, f"<b>{value_of(stored, stored.value)}</b>"
    if stored.kind in ("inf", "nan"):
        return (
            f"{fmt}: this pattern is kept for {'infinity' if stored.kind == 'inf' else 'NaN, “not a number”'}: {value}"
        )
    minus, scale = "−" if sign == "1" else "", 2**fmt.mantissa_bits
    fraction, field = f"{int(mantissa, 2):,}/{scale:,}", int(exponent, 2)
    if field == 0:
        what = "zero" if stored.value == 0 else "subnormal"
        return (
            f"{fmt}, {what}: exponent bits all 0, so no leading 1: "
            f"{minus}2{RAISED}{_minus(fmt.min_exponent)}</sup> × (0 + {fraction}) = {value}"
        )
    power_of_two = _minus(field - fmt.bias)
    return (
        f"{fmt}, normal: exponent {field} − {fmt.bias} = {power_of_two}: "
        f"{minus}2{RAISED}{power_of_two}</sup> × (1 + {fraction}) = {value}"
    )


def _minus(n: int) -> str:
    """A whole number with a real minus sign."""
    return str(n).replace("-", "−")


def bit_table(rows: Sequence[Stored], chosen: str) -> str:
    """Headline, formula of the format named `chosen`, and one row a format."""
    (marked,) = [row for row in rows if row.fmt.name == chosen]
    title = markup.status(headline(rows), aria_live="polite", style="font-size:17px;font-weight:bold")
    how = f'<div style="margin:2px 0 6px;font-size:13px">{formula(marked)}</div>'
    line = f"border-bottom:1px solid {markup.BORDER};padding:3px 4px 3px 0;vertical-align:middle;text-align"
    head = "".join(
        f'<th scope="col" style="{line}:{side};font-weight:600;{_width(name)}">{_column(name)}</th>'
        for name, side in (
            ("format", "left"), ("sign", "right"), ("exponent", "right"), ("mantissa", "left"),
            ("value", "left"), ("spacing here", "left"), ("relative error", "left"), ("next up<br>next down", "left"),
        )
    )  # fmt: skip
    body = "".join(_row(row, line, row is marked) for row in rows)
    return (  # as wide as the page whatever its content is: the table scrolls, and the headline wraps
        f'<div style="color:{markup.TEXT};font-size:12px;line-height:1.4;overflow-x:auto;width:0;min-width:100%">'
        f"{title}{how}"
        f'<table style="border-collapse:collapse;color:{markup.TEXT};font-size:12px;margin:0;table-layout:fixed;'
        f'width:100%;min-width:{NARROW}px;max-width:{WIDE}px">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _width(column: str) -> str:
    return f"box-sizing:border-box;width:{WIDTHS[column]}px" if column in WIDTHS else ""


def _column(name: str) -> str:
    """A column's name, in the colours of its bits where it has some."""
    if name not in BIT:
        return name
    fill, ink = BIT[name][1]
    return f'<span style="background:{fill};color:{ink};padding:1px 4px;border-radius:3px">{name}</span>'


def _row(row: Stored, line: str, marked: bool) -> str:
    name = f"<b>{'▸ ' if marked else ''}{row.fmt.name}</b><br>{row.fmt.bits} bits"
    sign, exponent, mantissa = row.bits
    parts = [mantissa[start : start + LINE] for start in range(0, len(mantissa), LINE)]
    ulp = "" if math.isnan(row.spacing) else f"<br>{show(row.spacing, 3)}"
    subnormal = "subnormal, " if row.kind == "subnormal" else ""
    error = f"<br>{error_of(row)}".replace(" %", "&nbsp;%") if error_of(row) else ""
    cells = (
        ("right", _boxes("sign", sign)),
        ("right", _boxes("exponent", exponent)),
        ("left", "<wbr>".join(_boxes("mantissa", part) for part in parts)),
        ("left;white-space:nowrap;font-weight:bold", value_of(row, row.value)),
        ("left;white-space:nowrap", spacing_of(row) + ulp),
        ("left", f"{subnormal}{OUTCOME[row.outcome]}{error}"),
        ("left;white-space:nowrap", f"{value_of(row, row.above)}<br>{value_of(row, row.below)}"),
    )
    head = f'<th scope="row" style="{line}:left;font-weight:normal;white-space:nowrap">{name}</th>'
    return f"<tr>{head}" + "".join(f'<td style="{line}:{side}">{inner}</td>' for side, inner in cells) + "</tr>"


def _boxes(group: str, bits: str) -> str:
    """Bits in their colours; runs of equal bits would be shorter, but each keeps its own place and edge."""
    inner = "".join(
        f'<span style="display:inline-block;width:11px;margin-right:1px;background:{fill};color:{ink}">{bit}</span>'
        for bit in bits
        for fill, ink in (BIT[group][int(bit)],)
    )
    return (
        f'<span role="img" aria-label="{group} {bits}" style="display:inline-block;white-space:nowrap;'
        f'font-family:monospace;font-size:12px;text-align:center;margin:1px 0">{inner}</span>'
    )
