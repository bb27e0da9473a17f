"""Where an update lands, and the panel that shows it: against fractions, against torch, against mpkit.optim."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from harness.pictures import page_size

import mpkit
from mpkit import BF16, E4M3, E5M2, FP16, FP32, FloatFormat
from mpkit.course.arithmetic.scalar import dense, gap, marks, nearest, neighbours
from mpkit.course.lesson_03.landing import KEEPERS, Keeper, Trail, land, repeat
from mpkit.course.lesson_03.number_line import TIMES, UPDATES, NumberLinePanel
from mpkit.course.lesson_03.number_line_picture import SIZE
from mpkit.course.lesson_03.number_line_words import headline, number, spacings, surroundings, update_label, waiting
from mpkit.course.lesson_03.one_update import LOOK
from mpkit.course.panels.panel import BadInput
from mpkit.course.pictures.canvas import Frame, font

SMALL = (FP16, BF16, E5M2, E4M3)


# ---- the arithmetic ----


def some_values(fmt: FloatFormat, count: int = 400) -> list[float]:
    """Finite values of a format, spread over all of them, the smallest and the largest included."""
    every = fmt.values().tolist()
    some = every[:: max(len(every) // count, 1)]
    return [*some, 0.0, fmt.smallest_subnormal, fmt.smallest_normal, fmt.max, 1.0]


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_nearest_is_cast(fmt: FloatFormat) -> None:
    x = torch.tensor(some_values(fmt), dtype=torch.float64)
    spacing = torch.tensor([fmt.spacing(v) for v in x.tolist()], dtype=torch.float64)
    for part in (0.0, 0.25, 0.5, 0.75, 1.0, -0.5, -0.3):
        points = x + part * spacing
        expected = mpkit.cast(points, fmt).tolist()
        assert [nearest(p, fmt) for p in points.tolist()] == expected
    assert nearest(math.inf, fmt) == math.inf
    assert nearest(-2 * fmt.max, fmt) == (-math.inf if fmt.has_inf else -fmt.max)


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_neighbours_and_gaps_are_those_of_the_list_of_all_values(fmt: FloatFormat) -> None:
    every = fmt.values().tolist()
    for i in range(1, len(every) - 1, 7 if fmt.bits == 8 else 1013):
        below, value, above = every[i - 1 : i + 2]
        assert neighbours(value, fmt) == (value, value)
        assert neighbours((value + above) / 2, fmt) == (value, above)
        assert (gap(value, fmt, up=True), gap(value, fmt, up=False)) == (above - value, value - below)
    for spacings_beyond in (0.5, 1.5, 100):
        beyond = fmt.max + spacings_beyond * fmt.spacing(fmt.max)
        assert neighbours(beyond, fmt) == (fmt.max, math.inf)
        assert neighbours(-beyond, fmt) == (-math.inf, -fmt.max)
    assert gap(1.0, fmt, up=False) == gap(1.0, fmt, up=True) / 2
    assert gap(-1.0, fmt, up=True) == gap(-1.0, fmt, up=False) / 2
    assert gap(0.0, fmt, up=True) == gap(0.0, fmt, up=False) == fmt.smallest_subnormal


def exact_nearest(x: Fraction, fmt: FloatFormat) -> float:
    """The closest value of the format by exact arithmetic; of two, the one whose last bit is 0."""
    every = [v for v in fmt.values().tolist() if abs(Fraction(v) - x) <= Fraction(fmt.spacing(float(x)))]
    closest = min(abs(Fraction(v) - x) for v in every)
    best: list[float] = [v for v in every if abs(Fraction(v) - x) == closest]
    codes = fmt.encode(torch.tensor(best, dtype=torch.float64)).tolist()
    return best[0] if len(best) == 1 or codes[0] % 2 == 0 else best[1]


@pytest.mark.parametrize("fmt", [E5M2, E4M3], ids=str)
@pytest.mark.parametrize("weight", [0.0, 1.0, -1.0, 1.75, 0.001953125, -0.0625, 3.0])
def test_a_landing_is_exact_arithmetic_rounded_once(fmt: FloatFormat, weight: float) -> None:
    weight = nearest(weight, fmt)
    for update in (2.0**-30, 2.0**-9, 0.0625, 0.125, 0.3, 1.25, -0.125, -0.7):
        at = land(weight, update, fmt)
        update = at.update
        target = Fraction(weight) + Fraction(update)
        assert Fraction(at.target) == target
        assert at.nearest == exact_nearest(target, fmt)
        assert Fraction(at.low) <= target <= Fraction(at.high)
        further, nearer = (at.high, at.low) if update > 0 else (at.low, at.high)
        chance = Fraction(at.probability)
        assert chance * Fraction(further) + (1 - chance) * Fraction(nearer) == pytest.approx(target, rel=1e-15)
        assert at.share == abs(update) / gap(weight, fmt, update > 0)
        assert at.is_tie == (at.low != at.high and 2 * target == Fraction(at.low) + Fraction(at.high))
        assert at.flushed == (abs(update) <= fmt.flush_at)
        inside = at.borders[0] < at.target < at.borders[1]
        assert (at.nearest == weight) >= inside, "all of the stretch between the borders is rounded back"
        assert at.nearest != weight or at.borders[0] <= at.target <= at.borders[1], "and nothing else"


def test_bfloat16_and_float16_of_torch_agree() -> None:
    for fmt, dtype in ((BF16, torch.bfloat16), (FP16, torch.float16)):
        for weight in (0.1, 1.0, -1.0, 1.999, 0.001, 60000.0):
            for update in UPDATES[::5]:
                at = land(weight, update, fmt)
                assert at.weight == torch.tensor(weight, dtype=dtype).item()
                assert at.nearest == (torch.tensor(at.weight) + update).to(dtype).item()


def test_the_paper_s_ratio_of_2048_is_a_tie_at_powers_of_two() -> None:
    at = land(1.0, 2.0**-11, FP16)
    assert (at.share, at.is_tie, at.nearest) == (0.5, True, 1.0)
    assert land(1 + 2.0**-10, 2.0**-11, FP16).nearest == 1 + 2.0**-9, "an odd weight moves to the even neighbour"
    assert land(-1.0, 2.0**-11, FP16).nearest == -1 + 2.0**-11, "towards zero the grid is twice as fine"
    assert land(1.0, 1.001 * 2.0**-11, FP16).nearest == 1 + 2.0**-10


def test_what_cannot_be_landed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight=70000.0 is beyond FP16, which ends at 65504; use a smaller one."):
        land(70000.0, 1.0, FP16)
    with pytest.raises(ValueError, match=r"weight=nan is beyond FP16"):
        land(math.nan, 1.0, FP16)
    for update in (0.0, 1e-60, math.inf):
        with pytest.raises(ValueError, match=r"is not a number other than 0 that float32 can hold; use one such"):
            land(1.0, update, FP16)
    with pytest.raises(TypeError, match=r"write mpkit.FP16"):
        land(1.0, 1.0, "fp16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"keeper='both' is unknown; use one of nearest, stochastic, Kahan, FP32"):
        repeat(land(1.0, 1.0, FP16), "both")  # type: ignore[arg-type]


def test_marks_are_the_format_s_values() -> None:
    every = tuple(E4M3.values().tolist())
    assert marks(-0.2, 0.2, E4M3, finest=2.0**-9) == tuple(v for v in every if -0.2 <= v <= 0.2)
    assert marks(0.9, 1.3, E5M2, finest=0.1) == (1.0, 1.25)
    assert marks(60000.0, 1e9, FP16, finest=1.0)[-1] == 65504.0
    assert marks(3.0, 5.0, BF16, finest=1.0) == ()


@pytest.mark.parametrize("finest", [2.0**-12, 2.0**-9, 0.01, 0.06, 1.0])
@pytest.mark.parametrize(("left", "right"), [(-2.0, 3.0), (0.1, 7.0), (-1.0, -0.01)])
def test_marks_leave_out_the_dense_stretch_and_nothing_else(left: float, right: float, finest: float) -> None:
    inside = [v for v in E4M3.values().tolist() if left <= v <= right]
    hidden = dense(E4M3, finest)
    assert marks(left, right, E4M3, finest) == tuple(v for v in inside if abs(v) >= hidden)
    beyond = [v for v in E4M3.values().tolist() if v >= hidden]
    assert all(gap(v, E4M3, up=True) >= finest for v in beyond)
    assert not hidden or E4M3.spacing(hidden * 0.99) < finest


# ---- the same update a hundred times: the library's own optimizers are the oracle ----

WRAPPERS: dict[Keeper, Any] = {
    "nearest": mpkit.optim.Rounded,
    "Kahan": mpkit.optim.Kahan,
    "FP32 master": mpkit.optim.MasterWeights,
}


@pytest.mark.parametrize("keeper", WRAPPERS)
@pytest.mark.parametrize(
    ("fmt", "weight", "update"),
    [(BF16, 0.1, 2.0**-13), (BF16, 0.12, 1.25 * 2.0**-12), (FP16, 1.0, 1.75 * 2.0**-12), (FP16, 2.0**-20, 2.0**-26),
     (FP16, -1.0, 2.0**-7), (E5M2, 3.0, 0.25), (E5M2, 3.0, 2.0**-9), (BF16, 1.0, -(2.0**-12))],
    ids=str,
)  # fmt: skip
def test_a_trail_is_what_the_optimizers_do(keeper: Keeper, fmt: FloatFormat, weight: float, update: float) -> None:
    param = torch.nn.Parameter(torch.tensor([weight]))
    param.data = mpkit.cast(param.data, fmt)
    optimizer = WRAPPERS[keeper](torch.optim.SGD([param], lr=1.0), fmt)
    seen = [param.item()]
    for _ in range(TIMES):
        param.grad = torch.tensor([-update])
        optimizer.step()
        seen.append(param.item())
    trail = repeat(land(weight, update, fmt), keeper)
    assert list(trail.stored) == seen
    assert trail.progress == pytest.approx((seen[-1] - seen[0]) / (TIMES * update))


def test_stochastic_steps_are_neighbours_and_right_on_average() -> None:
    start = land(1.0, 2.0**-10, BF16)  # an eighth of a spacing, far from the next power of two
    trail = repeat(start, "stochastic", times=1000)
    steps = [b - a for a, b in zip(trail.stored, trail.stored[1:], strict=False)]
    assert set(steps) == {0.0, 2.0**-7}
    deviation = math.sqrt(1000 * 0.125 * 0.875)  # of the number of moves
    assert abs(steps.count(2.0**-7) - 125) < 4 * deviation
    assert repeat(start, "stochastic") == repeat(start, "stochastic"), "the same picture every time"
    away = repeat(land(-1.0, -(2.0**-10), BF16), "stochastic", times=1000)
    assert 0.5 < away.progress < 1.5, "downwards too"


def test_stochastic_ends_are_on_both_sides_and_right_on_average() -> None:
    ends = [
        repeat(land(weight, share * gap(nearest(weight, fmt), fmt, up=True), fmt), "stochastic").progress
        for fmt in (BF16, FP16)
        for weight in (0.075, 0.08, 1.0, 1.25, -3.0)
        for share in (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
    ]
    assert sum(ends) / len(ends) == pytest.approx(1, abs=0.06)  # 60 ends with a deviation of 0.1 to 0.3 each
    assert min(sum(end > 1 for end in ends), sum(end < 1 for end in ends)) > 15


def test_what_waits_is_not_lost() -> None:
    for keeper in ("Kahan", "FP32 master"):
        trail = repeat(land(1.0, 1.25 * 2.0**-11, FP16), keeper)
        assert trail.progress + trail.waiting == pytest.approx(1, abs=1e-3)
    assert repeat(land(0.1, 2.0**-13, BF16), "nearest").waiting == 0


def test_a_weight_that_leaves_the_format_stays_away() -> None:
    for keeper in ("nearest", "Kahan", "FP32 master"):
        trail = repeat(land(65504.0, 32.0, FP16), keeper)
        assert trail.stored[-1] == trail.progress == math.inf
        assert trail.waiting == 0
    assert repeat(land(448.0, 32.0, E4M3), "nearest").stored[-1] == 448.0
    assert repeat(land(65504.0, 2.0, FP16), "stochastic").stored[-1] == 65504.0


# ---- the words ----


@pytest.mark.parametrize(
    ("weight", "update", "fmt", "keeper", "words"),
    [
        (0.1, 2.0**-13, BF16, "nearest", "0.25 of a spacing: it vanishes, every time"),
        (0.1, 2.0**-13, BF16, "stochastic", "0.25 of a spacing: it moves the weight in 25 % of the tries"),
        (0.1, 2.0**-13, BF16, "Kahan", "0.25 of a spacing: the weight waits, and the rest is kept"),
        (0.1, 2.0**-13, BF16, "FP32 master", "0.25 of a spacing: the copy waits, the FP32 master moves"),
        (1.0, 2.0**-11, FP16, "nearest", "exactly half a spacing: a tie, which goes to the weight itself"),
        (1.999, 2.0**-11, FP16, "nearest", "exactly half a spacing: a tie, which goes to the next value"),
        (1.0, 2.0**-10, FP16, "nearest", "exactly 1 spacing: it arrives in full"),
        (1.0, 1.25 * 2.0**-11, FP16, "nearest", "0.625 of a spacing: it arrives as 1 spacing"),
        (1.0, 1.25 * 2.0**-9, FP16, "stochastic", "2.5 spacings: it is rounded up in 50 % of the tries"),
        (1.0, 2.0**-24, FP16, "stochastic", "6.1e-05 of a spacing: it moves the weight once in about 16,384 tries"),
        (1.0, 1.5 * 2.0**-11, FP16, "Kahan", "0.75 of a spacing: the weight is rounded, and the rest is kept"),
        (1.0, 2.0**-25, FP16, "Kahan", "3.05e-05 of a spacing: the weight waits, and the rest is 0 in FP16"),
        (1.0, 2.0**-25, FP16, "FP32 master", "3.05e-05 of a spacing: it vanishes, even in FP32"),
        (3e38, 2.0**-13, BF16, "nearest", "9.18e-41 of a spacing: it vanishes, every time"),
        (3e38, 2.0**-13, BF16, "stochastic", "9.18e-41 of a spacing: it moves the weight almost never"),
        (3e38, 2.0**-13, BF16, "Kahan", "9.18e-41 of a spacing: the weight waits, and the rest is 0 in BF16"),
        (3e38, 2.0**-13, BF16, "FP32 master", "9.18e-41 of a spacing: it vanishes, even in FP32"),
        (65504.0, 16.0, FP16, "nearest", "exactly half a spacing: the weight leaves FP16 and becomes Inf"),
    ],
)  # fmt: skip
def test_the_title_is_the_finding(weight: float, update: float, fmt: FloatFormat, keeper: Keeper, words: str) -> None:
    assert headline(land(weight, update, fmt), keeper) == f"The update is {words}"


def test_the_line_below_the_title() -> None:
    assert surroundings(land(1.0, 2.0**-11, FP16)) == (
        "FP16 stores 1; the next value is 0.000977 away. The weight is 2,048 times its update."
    )
    assert surroundings(land(0.0, 2.0**-25, FP16)).endswith(
        "The weight is smaller than its update. On its own, FP16 flushes the update to 0."
    )
    assert surroundings(land(65504.0, 1.0, FP16)).startswith("FP16 stores 65504, its last value. The weight is 65,504")
    assert surroundings(land(-65504.0, -1.0, FP16)).startswith("FP16 stores -65504, its last value.")
    assert "the next value is 32 away" in surroundings(land(-65504.0, 1.0, FP16))
    assert surroundings(land(1e-9, 1.0, FP16), asked=1e-9).startswith(
        "FP16 flushes the weight 1e-09 to 0; the next value is 5.96e-08 away."
    )
    assert surroundings(land(0.0, 1.0, FP16), asked=0.0).startswith("FP16 stores 0; the next value is 5.96e-08 away.")
    assert [waiting(Trail((1.0,), 1.0, part)) for part in (0.28, -0.28, 0.001)] == ["+ 28 % kept", "(28 % ahead)", ""]
    assert (spacings(0.5), spacings(1), spacings(0.3), spacings(12.0)) == (
        "half a spacing", "1 spacing", "0.3 of a spacing", "12 spacings",
    )  # fmt: skip
    assert (update_label(2.0**-13), update_label(1.25 * 2.0**-13)) == ("2⁻¹³", "1.25 · 2⁻¹³")


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_neighbours_are_written_differently(fmt: FloatFormat) -> None:
    for weight in (1.0, 1.5, 0.1, 3.0, 100.0):
        at = land(weight, 2.0**-20, fmt)
        near = [at.weight + k * at.gap for k in range(4)]
        assert len({number(v, at) for v in near}) == 4


# ---- the panel ----


@pytest.fixture(scope="module")
def made_once() -> NumberLinePanel:
    return NumberLinePanel()


@pytest.fixture
def panel(made_once: NumberLinePanel, monkeypatch: pytest.MonkeyPatch) -> NumberLinePanel:
    """The panel in its first state."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    made_once.presets["Adam's step"].click()
    made_once.keeper = "nearest"
    return made_once


def test_the_first_view_makes_the_point(panel: NumberLinePanel) -> None:
    assert (panel.weight, panel.update, panel.format, panel.keeper) == (0.075, 2.0**-13, BF16, "nearest")
    assert repr(panel) == (
        "BF16, weight 0.0752, nearest: The update is 0.25 of a spacing: it vanishes, every time.\n"
        "After 100 updates of 0.000122 the weight has come: "
        "nearest 0 %, stochastic 112 %, Kahan 100 %, FP32 master 100 %."
    )
    assert panel.alt().startswith("The update is 0.25 of a spacing: it vanishes, every time. A number line of BF16")


def test_the_first_thing_to_try_ends_as_the_lesson_says(panel: NumberLinePanel) -> None:
    panel.update = 2.0**-12
    assert "exactly half a spacing: a tie, which goes to the weight itself" in repr(panel)
    assert ": nearest 0 %," in repr(panel)
    panel.update = 1.25 * 2.0**-12
    assert "0.625 of a spacing: it arrives as 1 spacing" in repr(panel)
    assert ": nearest 160 %," in repr(panel)


@pytest.mark.parametrize("weight", ["-1", "1", "0.075", "-0.075"])
def test_the_words_on_the_stretch_are_inside_the_picture(
    panel: NumberLinePanel, monkeypatch: pytest.MonkeyPatch, weight: str
) -> None:
    shown: list[tuple[float, float]] = []

    def text(self: Frame, place: Any, words: str, *rest: Any, **named: Any) -> None:
        if words.startswith("everything in here"):
            _, size, bold, anchor, axes = rest
            right = self.place(axes, place)[0]
            shown.append((right - font(size, bold).getlength(words), right))
            assert anchor[0] == "r"

    monkeypatch.setattr(Frame, "text", text)
    for fmt, update in ((FP16, 2.0**-11), (BF16, 2.0**-13), (E4M3, 2.0**-4)):
        panel.format, panel.controls["weight"].value, panel.update = fmt, weight, update
    assert shown
    assert all(left >= 12 and right <= SIZE[0] for left, right in shown)


def test_the_buttons_go_back_to_nearest(panel: NumberLinePanel) -> None:
    for button in panel.presets.values():
        panel.keeper = "Kahan"
        button.click()
        assert panel.keeper == panel.shown_keeper == "nearest"


def test_a_weight_that_the_format_flushes_says_so(panel: NumberLinePanel) -> None:
    panel.format = E4M3
    panel.controls["weight"].value = "1e-9"
    assert repr(panel).startswith("E4M3, weight 1e-09 flushed to 0, nearest: ")


def test_the_picture_and_the_words_follow_every_control(panel: NumberLinePanel) -> None:
    seen = {panel.png()}
    settings: list[tuple[str, Any]] = [
        ("weight", 1.0), ("update", 2.0**-4), ("format", E4M3), ("keeper", "Kahan"), ("keeper", "stochastic"),
        ("keeper", "FP32 master"),
    ]  # fmt: skip
    for name, value in settings:
        setattr(panel, name, value)
        assert getattr(panel, name) == value
        assert panel.landing == land(panel.weight, panel.update, panel.format)
        assert panel.trails == {keeper: repeat(panel.landing, keeper, TIMES) for keeper in KEEPERS}
        assert panel.picture.tooltip == headline(panel.landing, panel.keeper)
        assert panel.summary() in panel.words.value
        seen.add(panel.png())
    assert len(seen) == 7, "seven settings, seven pictures"
    assert page_size(panel.png()) == SIZE
    panel.presets["Adam's step"].click()
    panel.keeper = "nearest"
    assert panel.png() in seen, "back at the start, the same picture"


def test_the_buttons_jump_with_one_new_picture(panel: NumberLinePanel) -> None:
    pictures: list[str] = []
    panel.picture.observe(lambda change: pictures.append(change["name"]), names="value")
    panel.presets["2048 : 1 in FP16"].click()
    assert (panel.weight, panel.update, panel.format) == (1.0, 2.0**-11, FP16)
    panel.presets["a small weight"].click()
    assert (panel.weight, panel.update, panel.format) == (0.001, 2.0**-13, BF16)
    assert "it arrives in full" in repr(panel)
    assert len(pictures) == 2
    assert [button.description for button in panel.presets.values()] == [
        "Adam's step",
        "a small weight",
        "2048 : 1 in FP16",
    ]


@pytest.mark.parametrize(
    ("typed", "value"), [("2^-3", 0.125), ("-1", -1.0), (" 1e-3 ", 0.001), ("1/3", 1 / 3), ("0", 0.0), ("0,5", 0.5)]
)
def test_a_weight_can_be_typed_as_people_type(panel: NumberLinePanel, typed: str, value: float) -> None:
    panel.controls["weight"].value = typed
    assert panel.landing.weight == nearest(value, BF16)
    assert panel.weight == value


@pytest.mark.parametrize(
    ("typed", "fmt", "words"),
    [
        ("many", BF16, "<code>many</code> is not a number that can be read; type one such as 0.1"),
        ("<b>", BF16, "is not a number that can be read"),
        ("", BF16, "There is nothing to read yet; type one such as"),
        ("1e999", BF16, "<code>1e999</code> is too large: numbers are held in float64"),
        ("inf", BF16, "A weight of inf cannot be trained; use a number such as 0.1 or 2^-3."),
        ("nan", BF16, "A weight of nan cannot be trained"),
        ("70000", FP16, "70000 is beyond FP16, which ends at 65504; use a smaller weight."),
        ("-500", E4M3, "-500 is beyond E4M3, which ends at 448; use a smaller weight."),
    ],
)
def test_what_cannot_be_a_weight_gets_a_friendly_line(
    panel: NumberLinePanel, typed: str, fmt: FloatFormat, words: str
) -> None:
    panel.format = fmt
    picture, text = panel.png(), repr(panel)
    panel.controls["weight"].value = typed
    assert words in panel.message.value
    assert "The picture still shows the setting before." in panel.message.value
    assert "<b>" not in panel.message.value
    assert isinstance(panel.last_error, BadInput)
    assert (panel.png(), repr(panel)) == (picture, text), "what is shown stays as it was"
    assert panel.controls["weight"].value == typed, "and so does what was typed"
    panel.controls["weight"].value = "1"
    assert panel.message.value == ""


def test_a_format_too_small_for_the_weight_says_so_and_keeps_the_picture(panel: NumberLinePanel) -> None:
    panel.weight = 1000.0
    text = repr(panel)
    panel.controls["format"].value = "E4M3"
    assert "1000 is beyond E4M3, which ends at 448" in panel.message.value
    assert repr(panel) == text
    panel.format = FP16
    assert panel.message.value == ""


def test_properties_refuse_what_is_not_on_the_panel(panel: NumberLinePanel) -> None:
    with pytest.raises(ValueError, match=r"update 0.0001 is not in this panel; use 1, 1.25, 1.5 or 1.75 times a power"):
        panel.update = 1e-4
    with pytest.raises(ValueError, match=r"format FP32 is not in this panel; use one of BF16, FP16, E5M2"):
        panel.format = FP32
    with pytest.raises(TypeError, match=r"write mpkit.FP16"):
        panel.format = "fp16"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"keeper 'none' is not in this panel; use one of 'nearest', 'stochastic'"):
        panel.keeper = "none"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"A weight of inf cannot be trained"):
        panel.weight = math.inf
    panel.format = FP16
    with pytest.raises(ValueError, match=r"1e\+06 is beyond FP16, which ends at 65504"):
        panel.weight = 1e6
    panel.weight = 0.1 + 2.0**-40
    assert panel.weight == 0.1 + 2.0**-40, "no digit is lost in the text field"


@pytest.mark.parametrize("keeper", KEEPERS)
def test_every_corner_can_be_drawn(panel: NumberLinePanel, keeper: Keeper) -> None:
    panel.keeper = keeper
    for fmt in (BF16, E4M3):
        for weight in ("0", "-1", "448"):
            panel.format, panel.controls["weight"].value = fmt, weight
            for panel.update in (UPDATES[0], UPDATES[72], UPDATES[-1]):
                assert panel.message.value == ""
                assert panel.png()


def test_every_control_has_a_name_and_a_tooltip(panel: NumberLinePanel) -> None:
    for control in (
        panel.controls["weight"],
        panel.controls["update"],
        panel.controls["format"],
        panel.controls["keeper"],
    ):
        assert control.description
        assert control.tooltip
    assert 'role="status" aria-live="polite"' in panel.words.value


def test_keepers_look_as_in_the_picture_of_the_real_runs() -> None:
    from mpkit.course.pictures.comparison import RUNS

    assert list(LOOK.values()) == list(RUNS[:4])
    assert list(LOOK) == list(KEEPERS)


@pytest.mark.parametrize("order", [("weight", "format"), ("format", "weight")])
def test_a_weight_is_held_against_the_format_that_is_chosen_with_it(order: tuple[str, str]) -> None:
    large = {"weight": 70000.0, "format": BF16}
    assert NumberLinePanel(**{name: large[name] for name in order}).weight == 70000.0  # beyond FP16
    with pytest.raises(ValueError, match="70000 is beyond FP16"):
        NumberLinePanel(**{name: {**large, "format": FP16}[name] for name in order})
