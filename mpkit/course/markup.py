"""The little HTML that reports, feedback and tables share: readable in light and dark, safe for any text."""

import html
import re
from collections.abc import Iterable, Sequence

# Text takes JupyterLab's colours, which change with the theme. Lines and fills have one colour for both themes:
# JupyterLab removes var(...) from the outputs of a notebook that it does not trust yet.
TEXT = "var(--jp-ui-font-color1, inherit)"
FAINT = "var(--jp-ui-font-color2, inherit)"
BORDER = "#999999"
# Colour alone would fail a colour-blind reader: each text also carries its mark or its words.
ACCENT = {"good": "#2e9d4f", "note": "#1778b8", "bad": "#d9483b", "plain": BORDER}

UNSEEN = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap"


def escape(text: object) -> str:
    """Text made safe for HTML; words in `backticks` become code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(str(text)))


def status(text: object, unseen: str = "", **attributes: str) -> str:
    """A line that screen readers announce when it changes; `attributes` such as aria_live="off". It is escaped.

    unseen: announced before it and not shown.
    """
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    before = f'<span style="{UNSEEN}">{escape(unseen)}</span> ' if unseen else ""
    return f'<div role="status"{more}>{before}{escape(text)}</div>'


def card(inner: str, accent: str = "plain") -> str:
    """A block with a coloured edge around ready HTML. `accent` is good, note, bad or plain."""
    return (
        f'<div style="border-left:4px solid {ACCENT[accent]};padding:4px 12px;margin:4px 0;'
        f'color:{TEXT};line-height:1.5">{inner}</div>'
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of ready HTML cells with left-aligned columns."""
    cell = f"text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid {BORDER};vertical-align:top"
    head = "".join(f'<th scope="col" style="{cell}">{name}</th>' for name in headers)
    body = "".join("<tr>" + "".join(f'<td style="{cell}">{value}</td>' for value in row) + "</tr>" for row in rows)
    # Not <caption>: that would be as narrow as the table.
    title = f'<div style="color:{FAINT}">{caption}</div>' if caption else ""
    return (
        f'{title}<table style="border-collapse:collapse;color:{TEXT};font-size:14px">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def columns(rows: Sequence[Sequence[str]], gap: str = "  ") -> str:
    """Plain-text columns, padded to the widest cell, without trailing blanks."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
