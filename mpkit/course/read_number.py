"""Numbers as people type them: 0.1, 1/3, 1e-8, 2^-14, 1,000, -0, inf. Computed exactly, rounded once to float64."""

import ast
import math
import operator
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

LONGEST = 80  # characters
LARGEST_POWER = 8192  # bits of an intermediate result: far beyond float64, far below what takes time
LARGEST_EXPONENT = 5000  # decimal, of a number as typed: 1e400/1e399 is 10, and 1e999999999 takes no time
DIGITS = 100  # of a power that would be too long as a fraction, such as 1.001^1000; float64 has 17
LONGEST_EXPONENT = 400  # digits of that power's exponent
LITERAL = re.compile(r"(\d+\.?\d*|\.\d+)(?:e([+-]?\d+))?")  # without a sign; no 0x0
NUMBER = re.compile(r"[\d.,]+")
GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{3})+(\.\d*)?")  # 1,000 and 12,345.6, but not 12,5 or 0,125
RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
SIGNS = str.maketrans({"^": "**", "×": "*", "·": "*", "−": "-", "–": "-", "∞": "inf", "π": "pi", "_": ""})
WORDS = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}
STEPS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class _TooLarge(Exception):
    """Beyond float64's largest number."""


class _TooSmall(Exception):
    """Not zero, and below float64's smallest number."""


def read_number(text: str) -> float:
    """The float64 nearest to what `text` says. A bare -0 keeps its sign; a result of 0 is +0.

    Understood are + - * / and powers (^ or ** or superscripts), pi, brackets, a decimal comma, commas between
    thousands, and, alone or with a sign, inf and nan.

    Raises:
        ValueError: it is no number, or lies beyond float64. The text is meant for the person who typed.
    """
    shown = text.strip() if len(text.strip()) <= 40 else f"{text.strip()[:37]}…"
    try:
        return _number(_plain(text))
    except _TooLarge:
        limit = "float64, which ends at 1.8e308. Type a smaller number, or inf"
        raise ValueError(f"`{shown}` is too large: numbers are held in {limit}.") from None
    except _TooSmall:
        limit = "float64, whose smallest is 4.9e-324. Type a larger number, or 0"
        raise ValueError(f"`{shown}` is too small: numbers are held in {limit}.") from None
    except ZeroDivisionError:
        raise ValueError(f"`{shown}` divides by zero. Type inf if you mean infinity, or nan for no number.") from None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        what = f"`{shown}` is not a number that can be read" if shown else "There is nothing to read yet"
        raise ValueError(f"{what}; type one such as 0.1, 1/3, 1e-8, 2^-14, -0, inf or nan.") from None


def _plain(text: str) -> str:
    """The text in Python's spelling."""
    raised = RAISED.sub(lambda found: f"**({found[0].translate(LOWERED)})", text.strip().lower())
    return NUMBER.sub(lambda found: _without_commas(found[0]), raised.translate(SIGNS))


def _without_commas(number: str) -> str:
    """One number of an expression: commas between thousands are dropped, a decimal comma becomes a point."""
    if GROUPED.fullmatch(number):
        return number.replace(",", "")
    return number if "." in number else number.replace(",", ".")


def _number(text: str) -> float:
    word = text.lstrip("+-").strip()
    if word in WORDS and len(text) - len(word) <= 1:
        return -WORDS[word] if text.startswith("-") else WORDS[word]
    if len(text) > LONGEST:
        raise ValueError(text)
    exact = _value(ast.parse(text, mode="eval").body, text)
    if exact == 0:
        return -0.0 if text.startswith("-") and LITERAL.fullmatch(text[1:].strip()) else 0.0  # not for -1+1
    try:
        value = float(exact)  # one rounding, to nearest even
    except OverflowError:
        raise _TooLarge from None
    if value == 0:
        raise _TooSmall
    return value


def _value(node: ast.expr, text: str) -> Fraction:
    """An expression of numbers, exactly. ValueError for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return _literal(ast.get_source_segment(text, node) or "")
    if isinstance(node, ast.Name) and node.id == "pi":
        return Fraction(math.pi)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _value(node.operand, text)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, text), _value(node.right, text)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in STEPS:
            return STEPS[type(node.op)](left, right)
    raise ValueError(text)


def _literal(digits: str) -> Fraction:
    """Exactly the digits that were typed. ValueError for another spelling, such as 0x3c00."""
    found = LITERAL.fullmatch(digits)
    if found is None:
        raise ValueError(digits)
    if not re.search("[1-9]", found[1]):
        return Fraction(0)
    exponent = int(found[2] or 0)
    if abs(exponent) > LARGEST_EXPONENT:
        raise _TooLarge if exponent > 0 else _TooSmall
    return Fraction(digits)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """Exactly where that is short, else to `DIGITS` digits. ValueError for a broken exponent."""
    if exponent.denominator != 1:
        raise ValueError("a root is not computed exactly")
    size = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
    if base in (-1, 0, 1) or size * abs(exponent.numerator) <= LARGEST_POWER:
        return base**exponent.numerator
    return _long_power(base, exponent.numerator)


def _long_power(base: Fraction, exponent: int) -> Fraction:
    """base^exponent as e^(exponent ln |base|), with as many more digits as the exponent takes away."""
    length = exponent.bit_length() * 3 // 10
    with localcontext(prec=DIGITS + min(length, LONGEST_EXPONENT)):
        size = exponent * (abs(Decimal(base.numerator)) / base.denominator).ln()
        if abs(size) > LARGEST_POWER * Decimal(2).ln():
            raise _TooLarge if size > 0 else _TooSmall
        if length > LONGEST_EXPONENT:  # the base is so near to 1 that these digits do not tell
            raise ValueError("an exponent of more than 400 digits")
        value = Fraction(size.exp())
    return -value if base < 0 and exponent % 2 else value
