"""The scaler race: what it shows equals `rule_race`, what it says can be recomputed, what it refuses it says why."""

from __future__ import annotations

import dataclasses
import html

import numpy as np
import pytest
from harness.colours import contrast
from harness.pictures import page_size

from mpkit.course.lesson_05.rule_choice import ABOUT, BACKOFFS, INITS, INTERVALS, MOST, RULES, RUNS, WHAT
from mpkit.course.lesson_05.rule_race import Lap, race
from mpkit.course.lesson_05.scaler_race import DEFAULT, ScalerRacePanel
from mpkit.course.lesson_05.scaler_race_picture import _LOOK, LIVE_WINDOW, WINDOW, ScalerRaceFigure
from mpkit.course.lesson_05.scaler_race_words import end_of, headline, log2_text, row
from mpkit.course.lesson_05.settings_bars_picture import settings_bars
from mpkit.course.pictures.style import ZONE
from mpkit.course.pictures.words_fit import refuse_cut, refuse_smeared
from mpkit.course.recorded.history import GradientHistory, synthetic
from mpkit.scaling import DynamicScale, NoScaling, preset


@pytest.fixture(scope="module")
def panel() -> ScalerRacePanel:
    return ScalerRacePanel()


@pytest.fixture(autouse=True)
def at_the_start(panel: ScalerRacePanel) -> None:
    panel.log2_init = panel.interval = panel.backoff = None
    panel.gradients, panel.rules = "made up: drifts", ("torch", "megatron", "LogMax", "article")


def same(a: Lap, b: Lap) -> bool:
    return np.array_equal(a.scales, b.scales) and np.array_equal(a.skipped, b.skipped)


def test_the_laps_are_those_of_the_race(panel: ScalerRacePanel) -> None:
    history = synthetic()
    assert same(panel.laps["torch"], race(preset("torch"), history))
    assert same(panel.laps["LogMax"], race(preset("openseq2seq-logmax"), history))
    panel.log2_init, panel.interval, panel.backoff = 32, 10, 0.25
    rule = preset("torch")
    assert isinstance(rule, DynamicScale)
    rule = dataclasses.replace(rule, init_scale=2.0**32, growth_interval=10, backoff_factor=0.25)
    assert same(panel.laps["torch"], race(rule, history))
    assert panel.laps["LogMax"].rule == preset("openseq2seq-logmax")
    panel.gradients = "falling loss"
    assert same(panel.laps["torch"], race(rule, GradientHistory.load("falling-loss")))


@pytest.mark.parametrize("history", RUNS)
def test_every_trace_and_rule_draws(panel: ScalerRacePanel, history: str) -> None:
    panel.gradients = history
    names = list(RULES)
    pictures = set()
    for start in range(0, len(names), MOST):
        panel.rules = names[start : start + MOST]
        assert set(panel.laps) == set(names[start : start + MOST])
        assert page_size(panel.png()) == (1040, 460)
        pictures.add(panel.png())
        assert all(name in panel.alt() for name in panel.laps)
        assert panel.summary().count("\n") == len(panel.laps)
    assert len(pictures) == 3


def test_the_title_follows_the_numbers(panel: ScalerRacePanel) -> None:
    lost = {name: lap.lost_steps for name, lap in panel.laps.items()}
    assert max(lost, key=lambda name: lost[name]) == "megatron"
    share = {name: lap.flushed[~lap.skipped].mean() for name, lap in panel.laps.items()}
    assert panel.summary().startswith(
        "made up: drifts: megatron ends in the window, torch, LogMax and article below it; "
        f"megatron loses most, {lost['megatron']} steps.\n"
    )
    assert f"article: {lost['article']} steps lost, {100 * share['article']:.0f}% flushed" in panel.summary()
    assert "megatron loses" in panel.picture.tooltip
    shown = html.unescape(panel.words.value)
    assert f'clip-path:inset(50%);white-space:nowrap">{panel.picture.tooltip}.</span>' in shown, (
        "announced, not repeated"
    )
    assert shown.count("megatron loses") == 1


@pytest.mark.parametrize("history", RUNS)
def test_the_title_says_what_the_right_edge_of_the_picture_shows(panel: ScalerRacePanel, history: str) -> None:
    """It once called a rule good on average whose line ended below the window."""
    panel.gradients = history
    trace = synthetic() if RUNS[history] == "synthetic" else GradientHistory.load(RUNS[history])
    low, high = trace.window()
    last = slice(-(len(trace) // 10), None)
    for name in RULES:
        panel.rules = (name,)
        scale = np.log2(panel.laps[name].scales)[last]
        if (scale < low[last] - 0.01).mean() > 0.6:
            assert f"{name.replace(', scaled', ' with scaled norm')} ends below the window" in panel.headline()
        elif (scale >= high[last]).mean() > 0.6:
            assert f"{name} ends above the window" in panel.headline()
        elif ((scale > low[last] + 0.01) & (scale < high[last])).mean() > 0.6:
            assert f"{name.replace(', scaled', ' with scaled norm')} ends in the window" in panel.headline()


def lap(lost: int, flushed: float, steps: int = 1000, end: float = 8.0) -> Lap:
    skipped = np.arange(steps) < lost
    return Lap(NoScaling(), np.full(steps, end), skipped, skipped, np.full(steps, flushed))


def test_the_words_by_hand() -> None:
    assert headline({"a": lap(0, 0.0), "b": lap(0, 0.04)}) == "Both end in the window; no step is lost"
    assert headline({"a": lap(13, 0.0), "b": lap(0, 0.0)}) == "Both end in the window; a loses most, 13 steps"
    assert headline({"a": lap(1000, 1.0)}) == "a ends above the window; every step is lost"
    assert headline({"a": lap(1, 0.06)}) == "a ends below the window; 1 step lost"
    assert headline({"a": lap(0, 0.3), "b": lap(7, 0), "c": lap(7, 0), "d": lap(0, 0)}) == (
        "b, c and d end in the window, a below it; b and c lose most, 7 steps each"
    )
    assert headline({"a": lap(1000, 0), "article, scaled": lap(0, 1), "b": lap(0, 0)}) == (
        "b ends in the window, article with scaled norm below it, a above it; a loses every step"
    )
    assert headline({name * 14: lap(5, 0) for name in "abcd"} | {"e": lap(0, 1)}) == (
        "4 rules end in the window, e below it; 4 rules lose most, 5 steps each"
    )
    assert headline({}) == "Choose a rule to race"
    assert row("a", lap(1, 0.25, end=0.0)) == "a: 1 step lost, 25% flushed, ends at 0"
    gone = dataclasses.replace(lap(1000, 0.5, end=1.0), gave_up=3)
    assert row("a", gone) == "a: 1000 steps lost, – flushed, ends at 2⁰, gives up at step 3"
    assert [log2_text(s) for s in (0.25, 2.0**7.5, float("inf"))] == ["2⁻²", "≈2⁸", "∞"]


def test_what_is_made_up_is_not_called_an_fp32_run(panel: ScalerRacePanel) -> None:
    """It said so, and that no network made these gradients."""
    assert "no network has them" in panel.words.value
    assert "FP32" not in panel.words.value
    panel.gradients = "bad start"
    assert "The gradients come from an FP32 run" in panel.words.value


def test_a_message_has_its_room(panel: ScalerRacePanel) -> None:
    """It moved the picture down."""
    layout = panel.message.layout
    before = layout.display, layout.min_height
    panel.rules = tuple(RULES)[:5]
    panel.controls["rules"].buttons["popart"].value = True
    assert panel.message.value
    assert (layout.display, layout.min_height) == before == (None, "40px")


def test_where_a_rule_ends_is_where_most_of_its_last_tenth_is() -> None:
    end = lap(0, 0.0)
    for low, place in ((40, "in"), (60, "below")):
        assert end_of(dataclasses.replace(end, flushed=np.where(np.arange(1000) < 1000 - low, 0.0, 0.06))) == place
    late = np.arange(1000) >= 940
    assert end_of(dataclasses.replace(end, skipped=late, overflowed=late)) == "above"
    turns = np.arange(1000) % 2 == 0  # one rule of "grow after 1" was called "in", its twin "above": both go to and fro
    assert end_of(dataclasses.replace(end, skipped=turns, overflowed=turns)) == "edge"


def test_who_goes_to_and_fro_ends_at_the_upper_edge(panel: ScalerRacePanel) -> None:
    panel.gradients, panel.interval, panel.rules = "bad start", 1, ("torch", "megatron")
    assert panel.headline() == "Both end at the upper edge of the window; megatron loses most, 640 steps"


def test_no_word_in_the_table_is_one_that_a_slider_replaces() -> None:
    """At a backoff of 0.9 it still said that torch halves."""
    sliders = ("torch", "megatron", "apex-amp", "deepspeed", "fairseq", "keras")
    assert not [WHAT[name] for name in sliders if "hal" in WHAT[name] or "doubl" in WHAT[name]]


def test_the_window_is_not_named_where_a_line_is(panel: ScalerRacePanel) -> None:
    panel.gradients, panel.rules = "bad start", ("torch", "megatron", "LogMax", "article")
    figure = ScalerRaceFigure()
    frame = figure.show(GradientHistory.load("bad-start"), panel.laps, "")
    ((_, y),) = [place for place, words, *_ in frame._words if words == WINDOW]
    for one in panel.laps.values():
        lines = np.log2(one.scales[600:])
        assert min(abs(frame.place(figure.axes, (0, line))[1] - y) for line in np.unique(lines)) > 10


def test_the_first_steps_are_stretched_in_a_long_race() -> None:
    """All that happens on "bad start" was over in 3 % of the axis, and the crosses were one blot."""
    figure = ScalerRaceFigure()
    frame = figure.show(GradientHistory.load("bad-start"), ScalerRacePanel().laps, "")
    labels = {words: x for (x, _), words, *_, anchor in frame._words if anchor in ("mt", "mm")}  # below the axis
    assert labels["40"] - labels["0"] > 200
    assert (labels["1000"] - labels["800"]) == pytest.approx(labels["800"] - labels["600"], abs=1)
    assert "training step; the first 40 are stretched" in labels
    short = figure.show(GradientHistory.load("bad-start"), {}, "", "", 100)
    assert "training step" in [words for _, words, *_ in short._words]


def test_no_title_is_wider_than_the_picture(panel: ScalerRacePanel) -> None:
    for gradients in RUNS:
        panel.gradients = gradients
        for names in (tuple(RULES)[:5], tuple(RULES)[5:10], tuple(RULES)[7:]):
            panel.rules = names
            assert len(panel.headline()) <= 97, panel.headline()


def test_what_the_panel_does_not_offer(panel: ScalerRacePanel) -> None:
    with pytest.raises(ValueError, match=r"gradients 'mine' is not in this panel; use one of 'made up: drifts', 'cl"):
        panel.gradients = "mine"
    with pytest.raises(
        ValueError, match=r"rules 'adam' is not in this panel; use some of 'torch', 'megatron', 'LogMax', 'article'"
    ):
        panel.rules = ("adam",)
    with pytest.raises(ValueError, match=r"one to 5 rules can be raced, but 0 came"):
        panel.rules = ()
    with pytest.raises(ValueError, match=r"log2_init 3 is not in this panel; use one of 0, 4, 8"):
        panel.log2_init = 3
    with pytest.raises(ValueError, match=r"interval 7 is not in this panel; use one of 1, 10, 50"):
        panel.interval = 7
    with pytest.raises(ValueError, match=r"backoff 0.4 is not in this panel; use one of 0.25, 0.5, 0.75, 0.9"):
        panel.backoff = 0.4


def test_four_rules_are_seen_at_first_and_each_says_what_it_does(panel: ScalerRacePanel) -> None:
    toggles = panel.controls["rules"]
    assert [name for name, one in toggles.buttons.items() if one.layout.display != "none"] == list(DEFAULT)
    toggles.more.click()
    assert all(one.layout.display != "none" for one in toggles.buttons.values())
    assert toggles.more.description == "less"
    toggles.more.click()
    assert [name for name, one in toggles.buttons.items() if one.layout.display != "none"] == list(DEFAULT)
    assert {name: one.tooltip for name, one in toggles.buttons.items()} == ABOUT
    assert all(len(words) < 110 for words in ABOUT.values())
    assert WHAT.keys() == RULES.keys()


def test_a_rule_looks_the_same_whoever_else_is_raced() -> None:
    for looks in zip(*_LOOK.values(), strict=True):  # colours, dashes, markers
        assert len(set(map(str, looks))) == len(_LOOK) == len(RULES)
    assert all(contrast(color, zone) >= 3 for color, *_ in _LOOK.values() for zone in ZONE.values())


def test_a_sixth_rule_is_refused_and_taken_back(panel: ScalerRacePanel) -> None:
    panel.rules = tuple(RULES)[:5]
    before = panel.png()
    panel.controls["rules"].buttons["popart"].value = True
    assert "5 rules are raced already. Press one of them" in panel.message.value
    assert not panel.controls["rules"].buttons["popart"].value
    assert (panel.png(), len(panel.laps)) == (before, 5)
    panel.controls["rules"].buttons["torch"].value = False
    panel.controls["rules"].buttons["popart"].value = True
    assert "popart" in panel.laps
    assert panel.message.value == ""


def test_an_override_that_a_rule_refuses_is_shown_and_nothing_is_drawn(panel: ScalerRacePanel) -> None:
    panel.rules = ("apex-amp", "torch")
    before = panel.png()
    panel.log2_init = 40
    assert "apex-amp: DynamicScale needs min_scale &lt;= init_scale &lt;= max_scale" in panel.message.value
    assert "The picture still shows the setting before." in panel.message.value
    assert panel.png() == before


def test_without_a_rule_the_panel_asks_for_one(panel: ScalerRacePanel) -> None:
    for button in panel.controls["rules"].buttons.values():
        button.value = False
    assert panel.picture.tooltip == "Choose a rule to race"


def test_every_setting_can_be_chosen(panel: ScalerRacePanel) -> None:
    panel.rules = ("torch", "keras")
    for values, name in ((INITS, "log2_init"), (INTERVALS, "interval"), (BACKOFFS, "backoff")):
        for value in values:
            setattr(panel, name, value)
            assert getattr(panel, name) == value
            assert panel.message.value == ""
        setattr(panel, name, None)


def test_the_bars_write_every_number() -> None:
    figure = settings_bars({"a": [1, 2.5], "b": [0, 4]}, ["r", "s"], "t", "rows")
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == [" 1", " 2.5", " 0", " 4"]
    refuse_cut(figure)
    refuse_smeared(figure)
    judged = settings_bars({"a": [1, 2], "b": [0, 4]}, ["r", "s"], "t", "rows", ["equivalent", "worse"])
    assert [text.get_text() for ax in judged.axes for text in ax.texts] == [" 1", " 2", " 0 equivalent", " 4 worse"]
    refuse_cut(judged)
    with pytest.raises(ValueError, match=r"table 'a' needs 2 numbers, one for each row, but 1 came"):
        settings_bars({"a": [1]}, ["r", "s"], "t", "rows")


def test_five_rules_over_two_thousand_steps(panel: ScalerRacePanel) -> None:
    panel.rules = ("torch", "megatron", "keras", "LogMax", "article")
    pictures = set()
    for value in INTERVALS:
        panel.interval = int(value)
        pictures.add(panel.png())
        assert len(panel.laps) == 5
    assert len(pictures) == len(INTERVALS)


@pytest.mark.parametrize("name", RUNS.values())
def test_the_window_is_named_in_its_white_band(name: str) -> None:
    """It is what all rules look for, and was white and nameless."""
    history = synthetic() if name == "synthetic" else GradientHistory.load(name)
    figure = ScalerRaceFigure()
    frame = figure.show(history, {}, "nobody races")
    (y,) = [y for (_, y), words, *_ in frame._words if words == WINDOW]
    late = len(history) - int(0.58 * len(history))  # they cover a third of the axis, at the right
    low, high = (edge[late:] for edge in history.window())
    top, bottom = (frame.place(figure.axes, (0, edge))[1] for edge in (high.min(), low.max()))
    assert top + 10 < y < bottom - 10


def test_the_window_of_a_live_race_is_called_the_fp32_runs() -> None:
    """A rule that lost steps still has the gradients of an earlier step, whose window is another."""
    history = GradientHistory.load("bad-start")
    trained = dataclasses.replace(lap(1, 0.0, steps=20), loss=1.0)
    words = [words for _, words, *_ in ScalerRaceFigure().show(history, {"torch": trained}, "", "", 20)._words]
    assert LIVE_WINDOW in words
    assert WINDOW not in words
