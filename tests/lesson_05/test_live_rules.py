"""Rules that train: as mpkit.fit trains them alone, on the gradients that were recorded; and the panel's part."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from harness.turns import nothing_goes_on, started_and_paused, until

from mpkit import DynamicScale, LossScaler, Policy, StaticScale, fit
from mpkit.course.lesson_05.live_rules import LiveScales
from mpkit.course.lesson_05.scaler_race import ScalerRacePanel
from mpkit.course.lesson_05.scaler_race_words import live_headline, numbers, row
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP
from mpkit.course.recorded.history import GradientHistory
from mpkit.course.runs.recipes import falling_weight
from mpkit.scaling import preset


def run(race: LiveScales) -> LiveScales:
    while race.advance():
        pass
    return race


@pytest.mark.parametrize("name", ["classifier", "autoencoder", "bad-start", "falling-loss"])
def test_the_reference_is_the_run_that_was_recorded(name: str) -> None:
    race = run(LiveScales(name, {"torch": preset("torch")}, steps=8))
    norms = [record.grad_norm for record in race.reference.records]
    np.testing.assert_allclose(norms, GradientHistory.load(name).first(8).norm, rtol=1e-4)


def test_each_rule_trains_as_it_would_alone() -> None:
    rules = {"high": DynamicScale(init_scale=2.0**30, growth_interval=5), "low": StaticScale(1.0)}
    race = run(LiveScales("classifier", rules, steps=20))
    for name, rule in rules.items():
        net = MLP(seeds=[0])
        alone = list(
            fit(
                net, digits().classification(), optimizer=torch.optim.SGD(net.parameters(), lr=0.1), steps=20,
                policy=Policy.preset("fp16-mixed"), scaler=LossScaler(rule),
            )
        )  # fmt: skip
        lap = race.laps[name]
        assert lap.scales.tolist() == [record.scale for record in alone]
        assert lap.skipped.tolist() == [record.skipped for record in alone]
        assert lap.flushed.tolist() == [record.flushed for record in alone]
        assert lap.loss == pytest.approx(sum(record.loss for record in alone[-10:]) / 10)
    assert 0 < race.laps["high"].lost_steps < 20


def test_a_weighted_loss_is_shown_without_its_weight() -> None:
    race = run(LiveScales("falling-loss", {"static": StaticScale(8.0)}, steps=30))
    first = race.reference.records[0]
    assert first.loss == pytest.approx(math.log(10) * falling_weight(0), rel=0.1)
    assert 1.0 < race.reference.loss < math.log(10)
    assert race.laps["static"].loss == pytest.approx(race.reference.loss, rel=0.01)
    # With plain SGD the learning rate undoes the weight: the weighted run is the classifier's.
    same = run(LiveScales("classifier", {"static": StaticScale(8.0)}, steps=30))
    assert race.reference.loss == pytest.approx(same.reference.loss, rel=1e-4)


def test_a_skipped_step_changes_nothing_where_a_recording_goes_on() -> None:
    rule = {"static": StaticScale(2.0**10)}
    race = run(LiveScales("bad-start", rule, steps=120))
    lap = race.laps["static"]
    assert lap.lost_steps == 120
    assert len({record.loss for record in race.learners["static"].records[::8]}) <= 15
    recorded = ScalerRacePanel("bad start", ("static 2¹⁰",)).laps["static 2¹⁰"]
    assert not recorded.skipped[110:120].all()
    assert live_headline(race).startswith("No rule ends at FP32's loss, ")
    assert live_headline(race).endswith("; static learns nothing")


def test_a_rule_that_gives_up_stays_where_it_was() -> None:
    rule = dataclasses.replace(preset("fairseq"), init_scale=2.0**12, min_scale=2.0**11)
    lap = run(LiveScales("bad-start", {"fairseq": rule, "torch": preset("torch")}, steps=25)).laps["fairseq"]
    assert lap.gave_up is not None
    assert lap.gave_up < 3
    assert (len(lap.scales), lap.skipped[lap.gave_up :].all(), lap.lost_steps) == (25, True, 25)
    assert "gives up at step" in row("fairseq", lap)


def test_what_cannot_be_trained() -> None:
    torch_rule = {"torch": preset("torch")}
    with pytest.raises(ValueError, match="'synthetic' cannot be trained; use one of classifier, autoencoder"):
        LiveScales("synthetic", torch_rule)
    with pytest.raises(ValueError, match="Nobody is there to train; choose at least one rule"):
        LiveScales("classifier", {})
    with pytest.raises(ValueError, match="falling-loss has 420 steps, and 421 were asked for; use 1 to 420"):
        LiveScales("falling-loss", torch_rule, steps=421)
    with pytest.raises(ValueError, match="popart takes every step, also one that overflowed, and Inf would reach"):
        LiveScales("classifier", {"popart": preset("popart")})
    with pytest.raises(ValueError, match="classifier has 1500 steps, and 0 were asked for"):
        GradientHistory.load("classifier").first(0)


def test_the_words_before_during_and_after() -> None:
    race = LiveScales("classifier", {"torch": DynamicScale(2.0**30), "low": StaticScale(1.0)}, steps=12)
    assert live_headline(race) == "Step 0 of 12: no step is lost"
    assert numbers(race.laps["low"]) == ("–",) * 4
    assert row("low", race.laps["low"]) == "low: no step yet"
    for _ in range(6):
        race.advance()
    assert live_headline(race) == "Step 6 of 12: torch has lost every step"
    race.stop()
    assert live_headline(race) == "Stopped after 6 of 12: torch has lost every step"
    assert not race.advance()
    assert race.step == 6


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> ScalerRacePanel:
    monkeypatch.setenv("MPKIT_STRICT", "1")
    return ScalerRacePanel("classifier", ("torch", "no scaling"))


def test_the_panel_trains_and_returns_to_the_recording(panel: ScalerRacePanel) -> None:
    recorded = panel.png(), repr(panel)
    panel.log2_init, panel.interval = 32, 10
    panel.run_to_end(steps=40)
    assert panel.race is not None
    assert set(panel.laps) == {"torch", "no scaling"}
    assert panel.laps["torch"].rule == dataclasses.replace(preset("torch"), init_scale=2.0**32, growth_interval=10)
    assert repr(panel).startswith("classifier, live: ")
    assert "Live: each rule trains a model of its own" in panel.words.value
    assert panel.buttons.count.value == "40 of 40 steps"
    panel.log2_init = panel.interval = None
    assert panel.race is None
    assert (panel.png(), repr(panel)) == recorded
    assert panel.buttons.count.value == ""


def test_what_the_panel_does_not_train(panel: ScalerRacePanel) -> None:
    panel.rules = ("torch", "popart")
    panel.start()
    assert "popart takes every step" in panel.message.value
    assert "The training has not started." in panel.message.value
    panel.gradients = "made up: drifts"
    panel.start()
    assert "No network made these gradients" in panel.message.value
    assert panel.race is None


def test_the_buttons_and_a_control_that_is_moved_during_training(panel: ScalerRacePanel) -> None:
    async def check() -> None:
        await started_and_paused(panel)
        step = panel.race.step
        await nothing_goes_on()
        assert panel.race.step == step
        panel.buttons.pause.click()
        await until(lambda: panel.race.step > step)
        panel.buttons.stop.click()
        assert repr(panel).startswith("classifier, live: Stopped after ")
        assert panel.buttons.stop.disabled
        panel.buttons.start.click()
        panel.controls["rules"].buttons["keras"].value = True
        assert panel.runner.state == "stopped"
        assert panel.race is None
        assert "keras" in panel.laps
        await nothing_goes_on()
        assert panel.race is None, "a race that was ended must not draw any more"

    asyncio.run(check())


def test_a_refused_setting_during_training_leaves_the_words_with_the_run_that_trains(panel: ScalerRacePanel) -> None:
    async def check() -> None:
        panel.rules = ("torch", "apex-amp")
        panel.start()
        await until(lambda: panel.race and panel.race.step)
        panel.controls["log2_init"].value = 40  # beyond apex-amp's cap: refused, and the training goes on
        panel.gradients = "autoencoder"
        before = panel.png()
        await until(lambda: panel.png() != before)  # the training goes on and draws
        assert panel.race is not None
        assert repr(panel).startswith("classifier, live: ")
        panel.stop()

    asyncio.run(check())


def learner(first: float, last: float) -> SimpleNamespace:
    return SimpleNamespace(records=[SimpleNamespace(loss=first)], loss=last, weight=lambda _: 1.0)


def ended(ends: dict[str, float], fp32: float = 220.0) -> Any:
    learners = {name: learner(8000.0, end) for name, end in ends.items()}
    return SimpleNamespace(over=True, steps=80, reference=learner(8000.0, fp32), learners=learners)


def test_a_headline_names_who_ends_at_fp32s_loss_and_where_the_others_end() -> None:
    """It began "further off: torch", in lower case, and never named the winner."""
    few = {"torch": 1.2, "megatron": 1.4, "LogMax": 0.82, "article": 2.5}
    assert live_headline(ended(few, 0.81)) == "LogMax ends at FP32's loss, 0.81; torch 1.2, megatron 1.4, article 2.5"
    assert live_headline(ended(dict.fromkeys("ab", 0.81), 0.81)) == "Both end at FP32's loss, 0.81"
    assert live_headline(ended(dict.fromkeys("abc", 0.81), 0.81)) == "All 3 end at FP32's loss, 0.81"
    assert live_headline(ended({"torch": 0.8}, 0.81)) == "torch ends at FP32's loss, 0.81"
    assert live_headline(ended({"torch": 300})) == "No rule ends at FP32's loss, 220; torch 300"


def test_a_headline_counts_where_the_names_are_wider_than_the_picture() -> None:
    """Losses as they came on "bad start"."""
    ends = {"static 2¹⁰": 8000.0, "apex-amp": 290.0, "megatron": 420.0, "torch": 220.0}
    assert live_headline(ended(ends)) == (
        "torch ends at FP32's loss, 220; apex-amp 290, megatron 420; static 2¹⁰ learns nothing"
    )
    ends["article, scaled"] = 500.0
    assert live_headline(ended(ends)) == (
        "torch ends at FP32's loss, 220; 3 others at 290 to 500; static 2¹⁰ learns nothing"
    )
    many = {name * 12: loss for name, loss in zip("abcde", (220, 220, 500, 8000, 8000), strict=True)}
    assert live_headline(ended(many)) == "2 rules end at FP32's loss, 220; cccccccccccc 500; 2 rules learn nothing"


def test_a_headline_on_the_way_counts_those_who_share_the_lead() -> None:
    """It named the first of three that had all lost every step."""

    def going(step: int, **lost: int) -> Any:
        laps = {name: SimpleNamespace(lost_steps=steps) for name, steps in lost.items()}
        return SimpleNamespace(over=False, stopped=False, step=step, steps=420, laps=laps)

    assert live_headline(going(13, a=13, b=0, c=13, d=13)) == "Step 13 of 420: 3 rules have lost every step"
    assert live_headline(going(20, a=13, b=13, c=1)) == "Step 20 of 420: a and b have lost 13 steps each"
    assert live_headline(going(20, a=13, b=1)) == "Step 20 of 420: a has lost 13 steps"
