"""Checks and quiz of lesson 01: the spacing of FP16, what becomes 0 in it, and which format fits which job."""

import math
from typing import Any

from mpkit import BF16, FP16
from mpkit.course.exercises.checker import Feedback, checker, number, passed, plain, require, wrong
from mpkit.course.exercises.matching import matching
from mpkit.course.exercises.quiz import Item
from mpkit.formats import FORMATS

# Values of FP16: on a power of two and between two, large, small, and below the smallest normal number.
SPACED = (1.0, 1.5, 3.0, 1000.0, 40000.0, 0.25, 2.0**-14, 1.5 * 2.0**-20)


@checker("01.1", wants="function")
def spacing(answer: Any) -> Feedback:
    """Distance from x to FP16's next larger number: 2^(floor(log2 x) - 10), at least 2^-24."""
    for x in SPACED:
        gap = number(answer(x), "The function should return a number, the distance.")
        if gap != FP16.spacing(x):
            return wrong(_wrong_spacing(gap, x))
    return passed("The distance doubles at each power of two, and below the smallest normal number it stays the same.")


def _wrong_spacing(gap: float, x: float) -> str:
    right, where = FP16.spacing(x), f"At x = {x:.6g} you say {gap:.6g}."
    if gap == math.log2(right):
        return f"{where} That looks like an exponent; the distance is 2 to that power."
    if gap <= 0 or not math.isfinite(gap):
        return f"{where} A distance is a positive, finite number."
    if gap < FP16.smallest_subnormal:
        return f"{where} That is less than FP16's smallest number. Can two of its numbers be closer than that?"
    if x != 1 and gap == FP16.epsilon:
        return f"{where} That is the distance next to 1. What happens to it at each power of two?"
    if math.frexp(gap)[0] != 0.5:
        return f"{where} That is no power of two. Between 1 and 2 all numbers are equally far apart."
    if gap == BF16.spacing(x):
        return f"{where} That is BF16's distance. How many mantissa bits does FP16 have?"
    if gap == right / 2:
        return f"{where} Half as much as it should be. Is it the distance to the larger neighbour?"
    if gap == 2 * right:
        return f"{where} Twice as much as it should be. Which power of two is at or below x?"
    return f"{where} Type x into the explorer and compare with its column “spacing here”."


NEAR = 1 + 2.0**-20  # so near to the limit that a rounded one, such as 3e-8, is told from it; float32 holds it
# Numbers, and whether FP16 makes 0 of them. The order tells one misconception from another.
NUMBERS = (
    (1.0, False), (-1.0, False), (5e-4, False), (3e-5, False), (1e-6, False), (2.0**-24, False), (-1e-6, False),
    (1.01 * 2.0**-25, False), (NEAR * 2.0**-25, False), (-NEAR * 2.0**-25, False),
    (1e-30, True), (1e-8, True), (-1e-8, True), (2.0**-25 / NEAR, True), (2.0**-25, True), (-(2.0**-25), True),
)  # fmt: skip


@checker("01.2", wants="function")
def vanishes(answer: Any) -> Feedback:
    """Whether a number other than 0 becomes 0 in FP16: |x| up to half the smallest subnormal."""
    for x, right in NUMBERS:
        says = plain(answer(x))
        require(isinstance(says, bool), "The function should return True or False.")
        if says != right:
            return wrong(_wrong_verdict(x, right))
    return passed("Subnormals count as numbers, and what lies nearer to one of them than to 0 is rounded to it.")


def _wrong_verdict(x: float, right: bool) -> str:
    where = f"For x = {x:.6g} your function says {not right}."
    if right and abs(x) == 2.0**-25:
        return f"{where} It lies exactly between two numbers of FP16, 0 being one. Which of the two is “even”?"
    if right:
        return f"{where} But FP16 has no number near enough to it, other than 0."
    if x == -1.0:
        return f"{where} A large number does not vanish, whatever its sign."
    if x == 1.0:
        return f"{where} But FP16 holds it exactly."
    if abs(x) >= FP16.smallest_normal:
        return f"{where} `eps` is the distance next to 1. It says nothing about how small a number may be."
    if abs(x) >= FP16.smallest_subnormal:
        return f"{where} Type it into the explorer: FP16 holds such a number, with fewer bits. `tiny` leaves these out."
    return f"{where} FP16 has no such number, but a neighbour of it that is nearer than 0. What does rounding do?"


def _unfit(name: str, width: int) -> str:
    if name == "TF32":
        return "nothing is stored in TF32. It is what a matrix product makes of its inputs."
    bits = FORMATS[name].bits
    if bits > width:
        return f"there are {width} bits to spend, and {name} takes {bits}."
    return f"{name} takes {bits} bits, and there are {width} to spend. What would the others buy?"


# Job: the right format, the bits that it may spend, and what some of the wrong formats hear.
ASKED: dict[str, tuple[str, int, dict[str, str]]] = {
    "A": ("BF16", 16, {"FP16": "What does FP16 make of 100,000? Type it into the explorer."}),
    "B": ("FP16", 16, {"BF16": "It holds them all, but spends three bits on a range that B does not need."}),
    "C": ("FP32", 32, {
        "FP16": "Where does FP16 stop counting?",
        "BF16": "BF16 reaches ten million, but does it hold each whole number on the way?",
        "E4M3": "E4M3's largest number is 448.",
        "E5M2": "E5M2's largest number is 57344.",
    }),
    "D": ("E4M3", 8, {"E5M2": "It holds them all, but spends a bit on a range that D does not need."}),
    "E": ("E5M2", 8, {"E4M3": "E4M3 ends at 448 on one side and at 2^-9 on the other. That is too narrow for E."}),
    "F": ("BF16", 16, {"FP16": "FP16 has numbers as small as 0.000001, but with how many significant bits?"}),
}  # fmt: skip
JOBS = {
    job: (right, {name: f"Job {job}: {said.get(name) or _unfit(name, bits)}" for name in FORMATS if name != right})
    for job, (right, bits, said) in ASKED.items()
}


@checker("01.3")
def formats_for_jobs(answer: Any) -> Feedback:
    """Match six jobs with a format."""
    waiting = "jobs {names} are still open"
    done = "Range where the numbers are spread out, mantissa bits where they must be precise."
    return matching(answer, JOBS, tuple(FORMATS), each="job", choice="format", passes=done, waiting=waiting)


QUIZ = (
    Item(
        question="What is a subnormal number?",
        options=(
            "A number that was rounded to fit into the bits of its format",
            "A number next to 0 whose exponent bits are 0: no leading 1",
            "A number that is so small that its format stores it as 0",
        ),
        right=1,
        feedback=(
            "Rounding happens everywhere on the ruler. Subnormal says where on it a number lies: next to 0.",
            "Yes. Subnormals stand evenly between 0 and the smallest normal number, so bits drop off one by one.",
            "What is stored as 0 was flushed. A subnormal is not 0; it is one of the marks next to 0.",
        ),
    ),
    Item(
        question="`torch.finfo(torch.float16).tiny` is 6.1e-5. What does FP16 make of a gradient of 1e-6?",
        options=("0", "6.1e-5, the smallest number there is", "about 1e-6, with 5 significant bits instead of 11"),
        right=2,
        feedback=(
            "tiny is the smallest *normal* number. Below it, the subnormals go down to 2⁻²⁴, which is 6e-8.",
            "tiny is the smallest *normal* number. There are 1,023 smaller ones above 0.",
            "Yes. It becomes 17 × 2⁻²⁴, a subnormal. Five bits are left: 17 is 10001 in binary.",
        ),
    ),
    Item(
        question="300 × 300 is 90,000. What comes out in FP16, and what in BF16?",
        options=("Inf in both", "Inf in FP16, about 90,000 in BF16", "90,000 in FP16, about 90,000 in BF16"),
        right=1,
        feedback=(
            "BF16 has FP32's exponent bits, so it reaches as far as FP32.",
            "Yes. FP16 ends at 65504. BF16 goes on to 3.4e38, but with 8 significant bits: it says 90112.",
            "FP16 ends at 65504; from 65520 on, everything is Inf.",
        ),
    ),
    Item(
        question="A model computes its matrix products in TF32 instead of FP32. What does that do to its memory?",
        options=("It needs 19 bits a number instead of 32", "It needs half", "Nothing"),
        right=2,
        feedback=(
            "19 bits would be a strange width to store. TF32 is made on the way into the multiplication.",
            "That would be a format of 16 bits. TF32 is made on the way into the multiplication.",
            "Yes. The numbers stay in FP32; only the inputs of a product are rounded to 10 mantissa bits.",
        ),
    ),
)
