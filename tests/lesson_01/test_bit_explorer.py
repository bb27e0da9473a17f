"""Typed numbers, one number in one format, the table of all six, and the panel that shows it."""

from __future__ import annotations

import contextlib
import math
import re
import threading
from decimal import Decimal, localcontext
from fractions import Fraction
from html.parser import HTMLParser
from typing import Any

import ipywidgets as widgets
import ml_dtypes
import numpy as np
import pytest
from oracles.float_oracle import grid, round_on

from mpkit import BF16, E4M3, E5M2, FP16, FP32, TF32, FloatFormat
from mpkit.course import read_number as reading
from mpkit.course.lesson_01.bit_explorer import HINT, MESSAGE, PRESETS, BitExplorer
from mpkit.course.lesson_01.bit_table import RAISED, bit_table, error_of, formula, headline, show, spacing_of
from mpkit.course.lesson_01.bits import Stored, is_pattern, read_pattern, store, store_pattern
from mpkit.course.read_number import read_number
from mpkit.formats import FORMATS

# ---- numbers as people type them ----


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1), (" 65519.99 ", 65519.99), ("1e-8", 1e-8), ("1E3", 1000.0), ("+2", 2.0), ("−5", -5.0),
        ("--3", 3.0),
        ("1/3", 1 / 3), ("-1/3", -1 / 3), ("2048+1", 2049.0), ("3-5", -2.0), ("2*(1+2^-10)", 2 * (1 + 2**-10)),
        ("2^-14", 2.0**-14), ("2**(-14)", 2.0**-14), ("2⁻²⁴", 2.0**-24), ("3·10⁻⁵", 3e-5), ("-2^2", -4.0),
        ("1,000", 1000.0), ("-12,345.5", -12345.5), ("0,5", 0.5), ("1_000", 1000.0), ("pi", math.pi), ("2π", None),
        ("inf", math.inf), ("-Infinity", -math.inf), ("+∞", math.inf), ("4.9e-324", 5e-324), ("2^1023", 2.0**1023),
        ("(2^600)*(2^-1000)", 2.0**-400), ("0^0", 1.0), ("(-1)^99999", -1.0),
        ("1,000*2", 2000.0), ("1,000+1", 1001.0), ("(1,000)", 1000.0), ("-1,000/4", -250.0), ("0,5+0.5", 1.0),
        ("1e400/1e399", 10.0), ("1e-4000*1e4000", 1.0), ("0e9999999", 0.0), ("0e-99999999", 0.0), ("0.5e1", 5.0),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_typed(text: str, value: float | None) -> None:
    if value is None:
        with pytest.raises(ValueError, match="is not a number that can be read"):
            read_number(text)
    else:
        assert read_number(text) == value


def test_zero_keeps_its_sign_and_nan_is_nan() -> None:
    assert [math.copysign(1, read_number(text)) for text in ("0", "-0", "-0.0", "0e5", "−0")] == [1, -1, -1, 1, -1]
    assert math.isnan(read_number("NaN"))
    assert math.isnan(read_number("-nan"))


def test_only_a_bare_zero_has_a_sign() -> None:
    texts = ("-0e5", "- .0", "-1+1", "-0+0", "0*5", "-(0)", "--0", "-0*1", "-5*0")
    assert [math.copysign(1, read_number(text)) for text in texts] == [-1, -1, 1, 1, 1, 1, 1, 1, 1]
    assert {read_number(text) for text in texts} == {0.0}


@pytest.mark.parametrize(
    ("text", "base", "exponent"),
    [("1.001^1000", "1.001", 1000), ("(1+2^-10)^1024", "1.0009765625", 1024), ("0.999^1000", "0.999", 1000),
     ("(-1.001)^1001", "-1.001", 1001), ("1.001^-9999", "1.001", -9999), ("1,5^1500", "1.5", 1500),
     ("1.000001^(7*10^8)", "1.000001", 700_000_000), ("(2/3)^1700", "", 0)],
)  # fmt: skip
def test_long_powers_are_right_to_the_last_bit(text: str, base: str, exponent: int) -> None:
    with localcontext(prec=150):
        expected = Decimal(base) ** exponent if base else Decimal(2) ** 1700 / Decimal(3) ** 1700
    assert read_number(text) == float(expected)


def test_a_base_next_to_1_is_not_taken_for_1() -> None:
    assert read_number("(1+1e-200)^(1e200)") == math.e


@pytest.mark.parametrize(
    "text",
    ["0e9999999", "0e-99999999", "1e999999999", "1e-999999999", "0x0", "2^(1e4999)", "(1+1e-4000)^(1e4000)",
     "*".join(["(1e4999+1e-4999)"] * 4), "((1.0000001^9e7)^9e7)^9e7"],
)  # fmt: skip
def test_no_text_takes_long(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is long numbers: none is made of a large exponent, comes out on the way, or has many digits."""
    value = reading._value

    def literal(number: Any) -> Fraction:
        assert abs(Decimal(str(number)).as_tuple().exponent) <= 5000
        return Fraction(number)

    def watched(node: Any, whole: str) -> Fraction:
        found = value(node, whole)
        assert max(abs(found.numerator).bit_length(), found.denominator.bit_length()) <= 2**18
        return found

    def context(prec: int) -> Any:
        assert prec <= 500
        return localcontext(prec=prec)

    for name, watch in (("Fraction", literal), ("_value", watched), ("localcontext", context)):
        monkeypatch.setattr(reading, name, watch)
    with contextlib.suppress(ValueError):
        read_number(text)


def test_the_text_is_rounded_once() -> None:
    """In steps, 0.1 + 0.2 is not 0.3, and 1e23 / 1e22 is not 10."""
    assert read_number("0.1+0.2") == 0.3 != 0.1 + 0.2
    assert read_number("3*0.1") == 0.3 != 3 * 0.1
    rng = np.random.default_rng(0)
    for a, b, e in zip(rng.integers(1, 10**9, 50), rng.integers(1, 10**9, 50), rng.integers(-30, 30, 50), strict=True):
        assert read_number(f"{a}/{b}*2^{e}") == float(Fraction(int(a), int(b)) * Fraction(2) ** int(e))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("abc", "`abc` is not a number that can be read; type one such as 0.1, 1/3, 1e-8, 2^-14, -0, inf or nan."),
        ("", "There is nothing to read yet; type one such as 0.1"), ("   ", "There is nothing to read yet"),
        ("1 000", "is not a number"), ("2^0.5", "is not a number"), ("True", "is not a number"),
        ("1j", "is not a number"),
        ("inf-inf", "is not a number"), ("f(1)", "is not a number"), ("__import__('os')", "is not a number"),
        ("'7'", "is not a number"), ("1;2", "is not a number"), ("0x3c00", "is not a number"),
        ("++inf", "is not a number"),
        ("1/0", "`1/0` divides by zero. Type inf if you mean infinity"), ("0^-1", "divides by zero"),
        ("1e400", "`1e400` is too large: numbers are held in float64, which ends at 1.8e308. Type a smaller number"),
        ("1e999999999", "is too large"), ("1e-999999999", "is too small"), ("0x0", "is not"), ("0b0", "is not"),
        ("1,000,5", "is not a number"), ("1.001^1000000", "is too large"), ("1.001^-1000000", "is too small"),
        ("(1+1e-4000)^(1e4000)", "is not a number"), ("2^(1e500)", "is too large"), ("1,2,3", "is not a number"),
        ("2^1024", "is too large"), ("2^99999999", "is too large"),
        ("(2^8000)^8000", "is too large"), ("2^9000*2^-9000", "is too large"), ("0.5^-99999", "is too large"),
        ("1e-400", "`1e-400` is too small: numbers are held in float64, whose smallest is 4.9e-324. Type a larger"),
        ("2^-1075", "is too small"), ("0.5^99999", "is too small"), ("2^-99999999", "is too small"),
        ("9" * 81, "…` is not a number that can be read"), ("(" * 40 + "1" + ")" * 39, "is not a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_words_for_the_person(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        read_number(text)
    assert len(str(caught.value)) < 160


# ---- one number in one format ----

# Independent types: numpy's and ml_dtypes' (float32 for FP32); TF32 has none and is tested on the grid.
PEER: dict[str, Any] = {"FP32": np.float32, "FP16": np.float16, "BF16": ml_dtypes.bfloat16,
                        "E4M3": ml_dtypes.float8_e4m3fn, "E5M2": ml_dtypes.float8_e5m2}  # fmt: skip
WHOLE = {8: np.uint8, 16: np.uint16, 32: np.uint32}


def patterns(fmt: FloatFormat) -> list[int]:
    """The ends of the format, of its subnormals and of both signs, and patterns in between."""
    top = 2 ** (fmt.bits - 1)
    ends = [0, 1, 2, 2**fmt.mantissa_bits - 1, 2**fmt.mantissa_bits, 2**fmt.mantissa_bits + 1, top - 1, top - 2]
    ends += [(2**fmt.exponent_bits - 1) << fmt.mantissa_bits, ((2**fmt.exponent_bits - 1) << fmt.mantissa_bits) - 1]
    some = np.random.default_rng(1).integers(0, top, 40).tolist()
    return sorted({p + sign for p in ends + some for sign in (0, top)})


@pytest.mark.parametrize("name", PEER)
def test_values_and_neighbours_are_those_of_numpy_and_ml_dtypes(name: str) -> None:
    fmt, peer = FORMATS[name], PEER[name]
    for code in patterns(fmt):
        stored, theirs = store_pattern(code, fmt), np.array([code], dtype=WHOLE[fmt.bits]).view(peer)
        assert same(stored.value, float(theirs[0])), code
        assert "".join(stored.bits) == f"{code:0{fmt.bits}b}"
        if math.isnan(stored.value):
            assert (stored.below, stored.above, stored.kind) == (None, None, "nan")
            continue
        for neighbour, side in ((stored.below, -math.inf), (stored.above, math.inf)):
            if stored.value == side or (not fmt.has_inf and stored.value == math.copysign(fmt.max, side)):
                assert neighbour is None
            else:
                goal = np.array([side if fmt.has_inf else math.copysign(448.0, side)]).astype(peer)
                with np.errstate(over="ignore"):
                    there = float(np.nextafter(theirs, goal)[0])
                assert neighbour is not None
                assert same(neighbour, there), (code, side)


def same(a: float, b: float) -> bool:
    """Equal, signs of zero included, or both NaN."""
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


NUMBERS = (3e-5, 0.1, 1 / 3, 2049.0, 65504.0, 65519.99, 65520.0, 1e-8, 2.0**-25, 1.01 * 2.0**-25, 464.0, 464.1, 448.0,
           5.9e-39, -7.3e-41, 1e39, -70000.0, -0.0, 16777217.0, 3.4e38)  # fmt: skip


@pytest.mark.parametrize("fmt", [TF32, FP16, BF16, E4M3, E5M2], ids=str)
def test_a_number_is_rounded_once_to_the_nearest(fmt: FloatFormat) -> None:
    x = np.array(NUMBERS)
    expected = round_on(grid(fmt.exponent_bits, fmt.mantissa_bits, fmt.has_inf), x, "nearest")
    if not fmt.has_inf:
        expected = np.clip(expected, -fmt.max, fmt.max)
    assert all(same(store(a, fmt).value, b) for a, b in zip(NUMBERS, expected.tolist(), strict=True))
    # A detour by way of float32 would lose this: it lies just above the middle between 1 and the next value.
    middle = 1 + fmt.epsilon / 2
    assert store(middle + 2.0**-50, fmt).value == 1 + fmt.epsilon


@pytest.mark.parametrize(
    ("x", "fmt", "outcome", "kind", "error"),
    [
        (1.0, FP16, "exact", "normal", 0.0),
        (0.1, FP16, "rounded", "normal", 2.44140625e-4),
        (3e-5, FP16, "rounded", "subnormal", 6.287892659505e-4),
        (2.0**-24, FP16, "exact", "subnormal", 0.0),
        (2.0**-25, FP16, "flushed", "zero", 1.0),
        (65519.99, FP16, "rounded", "normal", 2.44047e-4),
        (65520.0, FP16, "overflowed", "inf", math.inf),
        (math.inf, FP16, "exact", "inf", 0.0),
        (464.0, E4M3, "rounded", "normal", 16 / 464),
        (896.0, E4M3, "saturated", "normal", 0.5),
        (-math.inf, E4M3, "saturated", "normal", math.inf),
        (-0.0, BF16, "exact", "zero", 0.0),
    ],
)
def test_what_happened_to_the_number(x: float, fmt: FloatFormat, outcome: str, kind: str, error: float) -> None:
    stored = store(x, fmt)
    assert (stored.outcome, stored.kind) == (outcome, kind)
    assert stored.relative_error == pytest.approx(error, rel=1e-5)
    assert stored.exact == x


def test_nan_has_no_error_no_spacing_and_no_neighbours() -> None:
    for fmt in FORMATS.values():
        stored = store(math.nan, fmt)
        assert (stored.outcome, stored.kind, stored.below, stored.above) == ("nan", "nan", None, None)
        assert math.isnan(stored.relative_error)
        assert math.isnan(stored.spacing)
    assert [store(x, FP16).spacing for x in (1.0, 3e-5, 2048.0)] == [2.0**-10, 2.0**-24, 2.0]


def test_patterns_are_read_in_the_width_of_the_format() -> None:
    assert [read_pattern(t, FP16) for t in ("0x3c00", " 0X3C00 ", "0b1", "0xff_ff", "3c00", "1")] == [
        0x3C00, 0x3C00, 1, 0xFFFF, None, None,
    ]  # fmt: skip
    assert [is_pattern(t) for t in ("0x0", "0b2", "0xg", "-0x1", "15")] == [True, False, False, False, False]
    words = (
        "`0x13c00` has 17 bits, but FP16 has 16: its patterns go from 0x0 to 0xffff. "
        "Type a shorter one, or choose a wider format first."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        read_pattern("0x13c00", FP16)
    with pytest.raises(ValueError, match="bit pattern 0x100 is asked for, but E4M3 has 8 bits: use 0 to 0xff"):
        store_pattern(256, E4M3)
    with pytest.raises(ValueError, match="bit pattern -0x1 is asked for"):
        store_pattern(-1, E4M3)


# ---- the table ----


class Cells(HTMLParser):
    """The text of each cell, row by row, and the labels of the bits."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.labels: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "br" and self.rows:
            self.rows[-1][-1] += " / "
        if (label := dict(attrs).get("aria-label")) is not None:
            self.labels.append(label)

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data


def rows_of(x: float) -> list[Stored]:
    return [store(x, fmt) for fmt in FORMATS.values()]


def test_the_table_has_every_bit_in_its_column() -> None:
    head, *body = Cells(bit_table(rows_of(3e-5), "FP16")).rows
    assert head == [
        "format", "sign", "exponent", "mantissa", "value", "spacing here", "relative error", "next up / next down",
    ]  # fmt: skip
    assert [row[0] for row in body] == [
        "FP32 / 32 bits", "TF32 / 19 bits", "▸ FP16 / 16 bits", "BF16 / 16 bits", "E4M3 / 8 bits", "E5M2 / 8 bits",
    ]  # fmt: skip
    assert body[0][1:4] == ["0", "01101111", "11110111010100010000010"]
    assert body[2][1:] == ["0", "00000", "0111110111", "2.99811e-5", "2⁻²⁴ / 5.96e-8",
                           "subnormal, rounded / 0.063\xa0%", "3.00407e-5 / 2.99215e-5"]  # fmt: skip
    assert body[4][4:] == ["0", "2⁻⁹ / 0.00195", "✗ flushed to 0 / 100\xa0%", "0.00195312 / -0.00195312"]


def test_inf_nan_and_the_end_of_a_format_have_words() -> None:
    body = Cells(bit_table(rows_of(65520.0), "FP16")).rows[1:]
    assert body[0][6] == "exact"
    assert body[2][4:] == ["Inf", "none", "✗ overflow: Inf", "none / 65504"]
    assert body[4][4:] == ["448", "2⁵ / 32", "✗ too large, no Inf / 99\xa0%", "none / 416"]
    nan = Cells(bit_table(rows_of(math.nan), "FP32")).rows[1:]
    assert [row[4:] for row in nan] == [["NaN", "none", "not a number", "none / none"]] * 6


def test_the_bits_have_names_for_those_who_do_not_see_them() -> None:
    labels = Cells(bit_table(rows_of(1.0), "FP16")).labels
    assert "exponent 01111" in labels
    assert sum(label.startswith("sign ") for label in labels) == 6


def test_the_format_whose_bits_are_shown_must_be_there() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        bit_table(rows_of(1.0), "FP6")


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (3e-5, "3e-5: 0 in E4M3, subnormal in FP16 and E5M2, exact in none"),
        (0.1, "0.1: exact in no format"),
        (1.0, "1: exact in all formats"),
        (-0.0, "-0: exact in all formats"),
        (65520.0, "65520: Inf in FP16 and E5M2, 448 in E4M3, exact in FP32"),
        (-1e39, "-1e39: -Inf in FP32, TF32, FP16, BF16 and E5M2, -448 in E4M3, exact in none"),
        (math.inf, "Inf: 448 in E4M3, exact in FP32, TF32, FP16, BF16 and E5M2"),
        (math.nan, "NaN, not a number: every format has bit patterns for it"),
        (2.0**-20, "9.5367431640625e-7: 0 in E4M3 and E5M2, subnormal in FP16, exact in FP32, TF32, FP16 and BF16"),
    ],
)
def test_the_headline_is_the_finding(x: float, words: str) -> None:
    assert headline(rows_of(x)) == words


def test_the_headline_has_every_digit_and_counts_no_formats() -> None:
    heads = {65519.9999999: "65519.9999999: ", 1.00000000000001: "1.00000000000001: ", 1e300: "1e300: ", 1e-7: "1e-7: "}
    for x, words in heads.items():
        assert headline(rows_of(x)).startswith(words)
    assert headline([store(0.5, fmt) for fmt in (FP16, BF16)]) == "0.5: exact in all formats"


def test_the_columns_keep_their_width_and_raised_digits_their_line() -> None:
    source = bit_table(rows_of(3e-5), "FP16")
    widths = {name: int(px) for px, name in re.findall(r'width:(\d+)px">(value|relative error)<', source)}
    assert widths.keys() == {"value", "relative error"}
    assert min(widths.values()) > 80
    assert "table-layout:fixed" in source
    assert source.count("<sup") == source.count('<sup style="line-height:0">') == 1


@pytest.mark.parametrize(
    ("x", "fmt", "words"),
    [
        (
            3e-5,
            FP16,
            "FP16, subnormal: exponent bits all 0, so no leading 1: 2<sup>−14</sup> × (0 + 503/1,024)",
        ),
        (
            -0.1,
            E5M2,
            "E5M2, normal: exponent 11 − 15 = −4: −2<sup>−4</sup> × (1 + 2/4) = <b>-0.09375</b>",
        ),
        (
            0.0,
            BF16,
            "BF16, zero: exponent bits all 0, so no leading 1: 2<sup>−126</sup> × (0 + 0/128) = <b>0</b>",
        ),
        (1e39, FP32, "FP32: this pattern is kept for infinity: <b>Inf</b>"),
        (math.nan, E4M3, "E4M3: this pattern is kept for NaN, “not a number”: <b>NaN</b>"),
    ],
)
def test_the_formula_says_how_bits_become_a_value(x: float, fmt: FloatFormat, words: str) -> None:
    assert formula(store(x, fmt)).replace(RAISED, "<sup>").startswith(words)


def test_numbers_are_short_and_still_tell_neighbours_apart() -> None:
    assert [show(x) for x in (1e-8, 1e39, -0.0, 65519.99, math.inf, -math.inf, math.nan, None)] == [
        "1e-8", "1e39", "-0", "65519.99", "Inf", "-Inf", "NaN", "none",
    ]  # fmt: skip
    assert [spacing_of(store(x, FP16)) for x in (1.0, 4096.0, math.inf)] == ["2⁻¹⁰", "2²", "none"]
    errors = {0.1: "0.024 %", 1.0: "", 1e-9: "100 %", 65520.0: ""}
    assert {x: error_of(store(x, FP16)) for x in errors} == errors
    assert error_of(store(1 + 1e-14, FP32)) == "<0.0000001 %"
    for fmt in (FP16, BF16, E4M3, E5M2):
        shown = [Cells(bit_table([store_pattern(c, fmt)], fmt.name)).rows[1][4] for c in range(100, 110)]
        assert len(set(shown)) == 10


# ---- the panel ----


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> BitExplorer:
    monkeypatch.setenv("MPKIT_STRICT", "1")
    return BitExplorer()


def bits_on(panel: BitExplorer) -> list[str]:
    """What the buttons that can be seen say, group by group."""
    return ["".join(button.description for button in box.children) for box in panel.buttons.box.children]


def test_six_formats_make_six_numbers_of_the_first_one(panel: BitExplorer) -> None:
    assert panel.number == 3e-5
    assert len({row.value for row in panel.rows.values()}) == 6
    assert bits_on(panel) == ["0", "00000", "0111110111"]
    assert panel.html() == panel.view.value
    assert repr(panel).splitlines()[0] == "3e-5: 0 in E4M3, subnormal in FP16 and E5M2, exact in none"
    assert repr(panel).splitlines()[3] == "  FP16  2.99811e-5     subnormal, rounded, error 0.063 %"


def test_typing_shows_another_number(panel: BitExplorer) -> None:
    panel.field.value = "65519.99"
    assert (panel.number, panel.rows["FP16"].value, panel.rows["BF16"].value) == (65519.99, 65504.0, 65536.0)
    assert bits_on(panel) == ["0", "11110", "1111111111"]
    panel.field.value = "0x3c00"
    assert (panel.number, panel.field.value) == (1.0, "0x3c00")


@pytest.mark.parametrize("text", ["abc", "", "1e999", "0x13c00", "1/0", "<b>"])
def test_what_cannot_be_read_is_said_and_nothing_is_lost(panel: BitExplorer, text: str) -> None:
    before = (panel.view.value, panel.number, bits_on(panel))
    panel.field.value = text
    assert 'role="status"' in panel.message.value
    assert "Traceback" not in panel.message.value
    assert "<b>" not in panel.message.value
    assert (panel.view.value, panel.number, bits_on(panel)) == before
    assert panel.field.value == text
    panel.field.value = "1"
    assert (panel.message.value, panel.number) == (HINT, 1.0)


def test_the_message_stands_next_to_the_field(panel: BitExplorer) -> None:
    assert panel.box.children[1] is panel.message
    assert panel.box.children[0].children[0] is panel.field


def test_a_message_does_not_move_what_is_below(panel: BitExplorer) -> None:
    assert panel.message.value == HINT, "the line is there from the start"
    assert panel.message.layout.min_height == MESSAGE


def test_the_field_and_the_table_agree_after_a_button(panel: BitExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that was typed and not sent stays in the browser's field unless the value changes there."""
    panel.presets[0].click()
    sent: list[str] = []
    panel.field.observe(lambda change: sent.append(change["new"]), names="value")
    panel.presets[0].click()
    assert (sent, panel.number) == (["", "0.1"], 0.1)
    panel.number = "inf"
    panel.field.value = "abc"
    panel.up.click()
    assert (panel.field.value, panel.number) == ("inf", math.inf), "the refused text is gone, as it is not in the table"
    assert "Inf has no neighbour on that side in FP16." in panel.message.value
    panel.field.value = "nan"
    assert panel.message.value == HINT
    panel.down.click()
    assert "NaN has no neighbours in FP16." in panel.message.value


class FrontEnd:
    """What the browser's field and table show, from the messages that the kernel sends; it delivers its own."""

    def __init__(self, panel: BitExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.panel, self.field, self.table = panel, panel.field.value, panel.view.value
        monkeypatch.setattr(widgets.Widget, "_send", lambda widget, msg, buffers=None: self.receive(widget, msg))

    def receive(self, widget: widgets.Widget, message: dict[str, Any]) -> None:
        value = message["state"].get("value") if message["method"] == "update" else None
        if widget is self.panel.field and value is not None:
            self.field = value
        if widget is self.panel.view and value is not None:
            self.table = value

    def text(self, text: str) -> None:
        """The field may show something else by now: the answer to a click that overtook this text."""
        self.deliver(self.panel.field, {"method": "update", "state": {"value": text}})

    def click(self) -> None:
        self.deliver(self.panel.presets[0], {"method": "custom", "content": {"event": "click"}})

    def deliver(self, widget: widgets.Widget, data: dict[str, Any]) -> None:
        widget._handle_msg({"content": {"data": data}, "buffers": []})

    def agree_on(self, number: str) -> None:
        assert (self.field, self.panel.field.value, repr(self.panel).split(":")[0]) == (number,) * 3
        assert self.table == self.panel.view.value == self.panel.html()


@pytest.mark.parametrize(
    "order", ["text click", "click text", "click text click", "click text text", "text click text"]
)
def test_field_and_table_agree_in_whatever_order_messages_come(
    panel: BitExplorer, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    browser, typed = FrontEnd(panel, monkeypatch), iter(("0.15", "0.155"))
    for message in order.split():
        text = "0.1" if message == "click" else next(typed)
        browser.click() if message == "click" else browser.text(text)
        browser.agree_on(text)


@pytest.mark.parametrize("first", ["text", "click"])
def test_field_and_table_agree_when_text_and_click_come_in_two_threads(
    panel: BitExplorer, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """As JupyterLab delivers them. The second arrives in the middle of the first; the button has the last word."""
    panel.number = "0.1"
    browser, inside, go_on = FrontEnd(panel, monkeypatch), threading.Event(), threading.Event()
    show = panel._show

    def slow(chosen: Stored) -> None:
        if not inside.is_set():
            inside.set()
            go_on.wait(10)
        show(chosen)

    monkeypatch.setattr(panel, "_show", slow)
    deliver = [lambda: browser.text("0.15"), browser.click]
    one, two = (threading.Thread(target=each) for each in (deliver if first == "text" else deliver[::-1]))
    one.start()
    assert inside.wait(10)
    two.start()
    two.join(0.2)  # it gets as far as it can
    go_on.set()
    one.join(10)
    two.join(10)
    browser.agree_on("0.1")


def test_the_focus_can_be_seen(panel: BitExplorer) -> None:
    (style,) = [child for child in panel.box.children if "outline" in getattr(child, "value", "")]
    assert "outline: 2px solid" in style.value
    assert "outline-offset: 1px" in style.value
    assert "mpkit-bits" in panel.box._dom_classes
    assert "<style>" not in panel.html(), "the stored twin has nothing to focus"


def test_a_pattern_too_wide_is_read_once_a_wider_format_is_chosen(panel: BitExplorer) -> None:
    panel.field.value = "0x3f800000"
    assert "has 30 bits, but FP16 has 16" in panel.message.value
    panel.controls["format"].value = "BF16"
    assert "has 30 bits, but BF16 has 16" in panel.message.value
    assert "▸ BF16" in panel.view.value
    panel.controls["format"].value = "FP32"
    assert (panel.message.value, panel.number) == (HINT, 1.0)


def test_another_format_keeps_the_number_and_shows_its_bits(panel: BitExplorer) -> None:
    panel.field.value = "0x3c00"
    panel.controls["format"].value = "BF16"
    assert (panel.number, panel.field.value) == (1.0, "1")  # in BF16 that pattern would be 0.0078
    assert bits_on(panel) == ["0", "01111111", "0000000"]
    panel.field.value = "1/3"
    panel.controls["format"].value = "E5M2"
    assert (panel.number, panel.field.value) == (1 / 3, "1/3")
    panel.format = FP32
    assert bits_on(panel) == ["0", "01111101", "01010101010101010101011"]


def test_a_button_flips_its_bit_and_the_number_is_that_value(panel: BitExplorer) -> None:
    panel.number = 1
    panel.buttons.groups["exponent"][4].click()
    assert (panel.number, panel.field.value) == (0.5, "0.5")
    panel.buttons.groups["mantissa"][9].click()
    assert panel.number == 0.5 + 2.0**-11
    panel.buttons.groups["sign"][0].click()
    assert panel.number == -(0.5 + 2.0**-11)
    assert panel.rows["FP16"].outcome == "exact"
    assert panel.rows["BF16"].value == -0.5


def test_a_nan_keeps_its_pattern_so_that_its_bits_can_be_flipped(panel: BitExplorer) -> None:
    panel.number = "inf"
    panel.toggle("mantissa", 3)
    assert math.isnan(panel.number)
    assert bits_on(panel) == ["0", "11111", "0001000000"]
    assert (panel.field.value, panel.rows["FP16"].code) == ("nan", 0x7C40)
    panel.toggle("mantissa", 3)
    assert panel.number == math.inf


def test_up_and_down_go_to_the_neighbours_and_stop_at_the_ends(panel: BitExplorer) -> None:
    panel.number = 65504
    panel.up.click()
    assert (panel.number, panel.field.value) == (math.inf, "inf")
    panel.up.click()
    assert "Inf has no neighbour on that side in FP16." in panel.message.value
    panel.down.click()
    assert (panel.number, panel.message.value) == (65504.0, HINT)
    panel.number = 0
    panel.down.click()
    assert panel.number == -(2.0**-24)
    panel.up.click()
    assert (panel.number, panel.field.value) == (0.0, "-0")
    panel.format, panel.number = E4M3, 1000
    panel.down.click()
    assert panel.number == 416, "from what E4M3 makes of it"


def test_presets_are_typed_for_the_learner(panel: BitExplorer) -> None:
    for button, text in zip(panel.presets, PRESETS, strict=True):
        button.click()
        assert (panel.field.value, button.description) == (text, text)
        assert panel.number == read_number(text)


def test_names_and_tooltips(panel: BitExplorer) -> None:
    groups = panel.buttons.groups
    assert groups["sign"][0].tooltip == "sign bit, is 0"
    assert groups["exponent"][1].tooltip == "exponent bit 3, worth 8, is 0"
    assert groups["mantissa"][1].tooltip == "mantissa bit 2, worth 2⁻², is 1"
    for control in (panel.field, panel.controls["format"], panel.up, panel.down, *panel.presets):
        assert control.description
        assert control.tooltip


def test_a_flip_sends_few_messages(panel: BitExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(widgets.Widget, "_send", lambda self, msg, buffers=None: sent.append(type(self).__name__))
    panel.toggle("mantissa", 9)
    assert sorted(sent) == ["Button", "HTML", "Text"]


def test_settings_are_checked(panel: BitExplorer) -> None:
    before = (repr(panel), panel.field.value)
    bad: list[tuple[str, Any, type[Exception], str]] = [
        ("number", "abc", ValueError, "`abc` is not a number that can be read"),
        ("number", "0x10000", ValueError, "`0x10000` has 17 bits, but FP16 has 16"),
        ("number", [1], TypeError, r"number is a float, or text such as '2\^-24' or '0x3c00'; \[1\] is neither"),
        ("format", "FP16", TypeError, r"write mpkit\.FP16"),
        (
            "format",
            FloatFormat("FP16", 6, 9),
            ValueError,
            "format FP16 is not in this panel; use one of FP32, TF",
        ),
    ]
    for name, value, error, match in bad:
        with pytest.raises(error, match=match):
            setattr(panel, name, value)
    with pytest.raises(
        ValueError, match="FP16 has no exponent bit at place 5; there are sign 0 to 0, exponent 0 to 4, m"
    ):
        panel.toggle("exponent", 5)
    with pytest.raises(ValueError, match="FP16 has no power bit at place 0"):
        panel.toggle("power")
    panel_at_the_end = BitExplorer("inf")
    with pytest.raises(ValueError, match="Inf has no neighbour on that side in FP16"):
        panel_at_the_end.step(1)
    assert (repr(panel), panel.field.value) == before


def test_the_stored_twin_is_the_table(panel: BitExplorer) -> None:
    data, _ = panel._repr_mimebundle_()
    assert data["text/html"] == panel.view.value
    assert data["text/plain"] == repr(panel)
    assert 'role="status" aria-live="polite"' in panel.view.value
    assert len(panel.view.value) < 30_000
