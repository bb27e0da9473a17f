"""The delayed race: its numbers are the library's report step by step, both halves are said, and junk is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from harness.pictures import page_pixels, page_size
from torch import Tensor

from mpkit.course.lesson_09.delayed_race import JUMPS, LENGTHS, MARGINS, DelayedRacePanel
from mpkit.course.lesson_09.delayed_race_picture import IN_ZONE, SIZE
from mpkit.course.lesson_09.delayed_view import Race, race, trace
from mpkit.course.lesson_09.delayed_words import describe, headline, table
from mpkit.course.lesson_09.layer_trace import STEPS, record_layer
from mpkit.course.pictures.canvas import _fitting
from mpkit.course.pictures.palette import levels
from mpkit.course.pictures.style import ZONE_TEXT
from mpkit.scaled import FP8_TENSOR, report

START: dict[str, Any] = {"tensor": "gradients", "jump": 16, "length": 16, "margin": 0}
UP, DOWN = 40, 64


@pytest.fixture(scope="module")
def recorded() -> dict[str, list[Tensor]]:
    torch.set_num_threads(1)
    return {name: list(tensors) for name, tensors in record_layer().items()}


@pytest.fixture(scope="module")
def made_once(recorded: dict[str, list[Tensor]]) -> DelayedRacePanel:
    return DelayedRacePanel(recorded)


@pytest.fixture
def panel(made_once: DelayedRacePanel, monkeypatch: pytest.MonkeyPatch) -> DelayedRacePanel:
    """The panel in its first state; its canvas is drawn once for all tests."""
    monkeypatch.setenv("MPKIT_STRICT", "1")
    made_once.choose(**START)
    return made_once


# ---- the numbers ----


def test_the_training_is_real(recorded: dict[str, list[Tensor]]) -> None:
    """The next weights are these minus the learning rate times inputs transposed times gradients: all three belong."""
    assert {name: (len(of), tuple(of[0].shape)) for name, of in recorded.items()} == {
        "gradients": (STEPS, (64, 64)), "inputs": (STEPS, (64, 128)), "weights": (STEPS, (128, 64)),
    }  # fmt: skip
    for step in range(STEPS - 1):
        moved = recorded["weights"][step] - 0.1 * recorded["inputs"][step].T @ recorded["gradients"][step]
        assert torch.allclose(recorded["weights"][step + 1], moved, atol=1e-6)
    assert float((recorded["weights"][-1] - recorded["weights"][0]).abs().max()) > 0.05
    assert all(torch.equal(a, b) for a, b in zip(recorded["gradients"], record_layer()["gradients"], strict=True))


@pytest.mark.parametrize("name", ["gradients", "inputs", "weights"])
@pytest.mark.parametrize(("length", "margin", "jump"), [(1, 0, 1), (4, 1, 4), (16, 0, 16), (1024, 0, 64), (16, 12, 1)])
def test_every_step_is_what_the_library_reports(
    panel: DelayedRacePanel, recorded: dict[str, list[Tensor]], name: str, length: int, margin: int, jump: int
) -> None:
    panel.choose(tensor=name, length=length, margin=margin, jump=jump)
    view, seen = panel.view, []
    for step, plain in enumerate(recorded[name]):
        x = plain * (jump if UP <= step < DOWN else 1)
        limit = max(seen[-length:] or [float(x.abs().max())]) * 2.0**margin
        seen.append(float(x.abs().max()))
        late, now = report(x, FP8_TENSOR, torch.tensor(limit)), report(x, FP8_TENSOR)
        assert (view.amax[step], view.limit[step]) == (pytest.approx(seen[-1]), pytest.approx(limit))
        assert view.clipped[step] == pytest.approx(late.saturated, abs=1e-9)
        assert view.error[step] == pytest.approx(late.error, rel=1e-4)
        assert view.current[step] == pytest.approx(now.error, rel=1e-4)
        assert view.flushed[step] == pytest.approx(late.flushed, abs=1e-9)
        assert view.current_flushed[step] == pytest.approx(now.flushed, abs=1e-9)
        assert now.saturated == 0


def test_both_halves_of_the_story(panel: DelayedRacePanel) -> None:
    """Up: one step loses most of its values. Down: the limit is too high for 16 steps, and E4M3 does not mind."""
    view = panel.view
    assert view.clipped[UP] > 0.8
    assert view.error[UP] > 0.8 > 0.03 > view.current[UP]
    assert (view.long, view.late) == (1, 16)
    assert view.clipped[UP + 1] < 1e-3
    assert view.limit[DOWN] > 15 * view.amax[DOWN]
    assert view.after(view.error) == pytest.approx(view.after(view.current), rel=0.05)
    panel.length = 1024
    assert panel.view.late == STEPS - DOWN, "it never forgets"
    panel.length = 1
    assert panel.view.late == 1


def test_a_margin_is_free_until_the_format_ends(panel: DelayedRacePanel) -> None:
    panel.jump = 1
    errors = {}
    for panel.margin in MARGINS:
        errors[panel.margin] = float(panel.view.error.mean())
    assert max(errors[margin] for margin in MARGINS if margin <= 10) < 1.02 * errors[0]
    assert errors[14] > 1.5 * errors[0]
    panel.choose(jump=16, margin=4)
    assert panel.view.clipped.max() == 0, "2⁴ takes a jump of 16"
    panel.margin = 3
    assert panel.view.clipped[UP] > 0.1


def test_shares_are_of_what_is_not_zero() -> None:
    """A half-empty tensor that grows by 4: of its four values two lie beyond the old amax by more than rounding."""
    small = torch.tensor([0.0, 0, 0, 0, 0.1, 0.255, 0.26, 1.0])
    found = race(trace("x", [small] * 12), 16, 0, 4)
    assert (found.up, found.down) == (5, 8)
    assert found.clipped.tolist() == [0.0] * 5 + [0.5] + [0.0] * 6, (
        "4 and 1.04 are beyond 464/448; 1.02 and 0.4 are not"
    )
    assert found.small[0] == pytest.approx(0.1, rel=0.05)
    assert race(trace("x", [small.half()] * 12), 16, 0, 1).limit.tolist() == [1.0] * 12


def a_race(**changes: Any) -> Race:
    zeros = np.zeros(12)
    held: dict[str, Any] = {
        "factor": 16, "up": 5, "down": 8, "amax": np.ones(12), "small": np.ones(12), "limit": np.ones(12),
        "clipped": zeros, "flushed": zeros, "error": zeros + 0.02, "current": zeros + 0.02, "current_flushed": zeros,
    }  # fmt: skip
    return Race(**{**held, **changes})


def test_what_lasts_is_counted_from_where_it_begins() -> None:
    clipped, limit = np.zeros(12), np.ones(12)
    clipped[[2, 5, 6, 10]], limit[[1, 8, 9, 11]] = 0.5, 3
    found = a_race(clipped=clipped, limit=limit, error=np.arange(12.0))
    assert (found.long, found.late) == (2, 2)
    assert found.after(found.error) == 8.5, "of steps 8 and 9"
    assert a_race(clipped=np.ones(12), limit=limit + 2).long == 7
    assert a_race(limit=limit + 2).late == 4
    assert a_race(error=np.arange(12.0)).after(np.arange(12.0)) == 8, "no step has too high a limit: the first"
    assert a_race(factor=1).after(np.arange(12.0)) == 5.5


# ---- the words ----

TITLES = {
    "one step is clipped": "History 16: up clips 88% for 1 step; down: limit high for 16, error as current",
    "a margin takes the jump": "History 16, margin 2⁴: up clips nothing; down: limit high for 32, error as current",
    "never forgets": "History 1,024: up clips 98% for 1 step; down: limit high for 32, error as current",
    "no jump, short memory": "History 1: 22 of 96 steps clip, never 0.1% of the values; error as current",
    "too much room": "History 16, margin 2¹⁴: nothing is clipped; error 6.0%, current 2.7%",
}


@pytest.mark.parametrize("name", DelayedRacePanel.jumps)
def test_every_preset_has_its_finding_as_its_title(panel: DelayedRacePanel, name: str) -> None:
    panel.presets[name].click()
    assert {key: getattr(panel, key) for key in DelayedRacePanel.jumps[name]} == DelayedRacePanel.jumps[name]
    assert panel.headline() == panel.picture.tooltip == TITLES[name]
    assert TITLES[name] in panel.words.value
    assert panel.message.value == ""
    assert page_size(panel.png()) == SIZE


def test_titles_of_other_races() -> None:
    clipped = np.zeros(12)
    clipped[5:7] = 0.3
    assert headline(a_race(clipped=clipped), 4, 0) == "History 4: up clips 30% for 2 steps; down: error as current"
    clipped[5:7] = 0.002
    assert headline(a_race(clipped=clipped, limit=np.full(12, 3.0)), 4, 1) == (
        "History 4, margin 2¹: up clips 0.2%; down: limit high for 4, error as current"
    )
    assert headline(a_race(clipped=clipped, factor=1), 1, 0) == (
        "History 1: 2 of 12 steps clip, at most 0.2% of the values; error as current"
    )
    assert table(a_race(error=np.full(12, 1.3)))[1] == ("step 5: error", "130%", "2.0%")


def test_every_title_fits(panel: DelayedRacePanel) -> None:
    for length, margin, jump in itertools.product(LENGTHS, (0, 4, 14), JUMPS):
        found = race(panel.traces["gradients"], length, margin, jump)
        assert _fitting(headline(found, length, margin), 19, True, SIZE[0] - 12) >= 14
        assert "nan" not in describe(found, length, margin)


def test_the_picture_shows_what_is_clipped(panel: DelayedRacePanel) -> None:
    purple = tuple(int(ZONE_TEXT["overflow"][i : i + 2], 16) for i in (1, 3, 5))

    def clipped() -> int:
        """Pixels of the column of the jump in the upper axes."""
        pixels = page_pixels(panel.png())[110:300, 300:360]
        return int((pixels == purple).all(axis=2).sum())

    assert clipped() > 60
    panel.margin = 4
    assert clipped() == 0


def test_it_tells_those_who_cannot_see_it(panel: DelayedRacePanel) -> None:
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.summary()
    assert metadata["image/png"]["alt"] == panel.alt()
    assert panel.alt().startswith(f"{panel.headline()}. Above: magnitudes of the gradients over the training steps")
    assert "a jump of ×16 is planted at step 40 and ends at step 64. Format: E4M3" in panel.alt()
    assert "step 40: clipped 88%, current scale 0%" in panel.summary()
    panel.jump = 1
    assert "nothing planted" in panel.alt()


def test_each_control_changes_the_picture_and_comes_back(panel: DelayedRacePanel) -> None:
    first = panel.png()
    offers = {"tensor": tuple(panel.traces), "jump": JUMPS, "length": LENGTHS, "margin": MARGINS}
    for name, values in offers.items():
        seen = {first}
        for value in values:
            setattr(panel, name, value)
            seen.add(panel.png())
        assert len(seen) == len(values), name
        setattr(panel, name, START[name])
        assert panel.png() == first
    assert len(panel.controls) == 4, "at most four controls"
    assert all(control.description for control in panel.controls.values())


# ---- what it is given ----


def test_it_records_a_training_of_its_own() -> None:
    made = DelayedRacePanel()
    assert (made.tensor, made.jump, made.length, made.margin) == ("gradients", 16, 16, 0)
    assert made.headline() == TITLES["one step is clipped"]


def test_it_takes_any_tensors() -> None:
    mine = [torch.full((3, 5), 2.0**-step, dtype=torch.bfloat16) for step in range(20)]
    made = DelayedRacePanel({"<b>mine</b>": mine}, jump=1, length=4)
    assert (made.tensor, made.view.up, made.view.down) == ("<b>mine</b>", 8, 13)
    assert made.headline() == "History 4: nothing is clipped; error as current", "powers of 2 are exact"
    made.jump = 4
    assert "<b>mine</b>" not in made.words.value


@pytest.mark.parametrize(
    ("tensors", "error", "text"),
    [
        ({}, ValueError, "no tensors came; give at least one name with a tensor for each step"),
        ([torch.ones(3)], TypeError, r'tensors by name are asked for, but list came; write \{"gradients"'),
        ({"x": torch.ones(20, 3)}, TypeError, "'x': a list of tensors is asked for, one a step, but Tensor came"),
        ({"x": [1.0] * 20}, TypeError, "'x': a floating-point tensor a step is asked for, but float came"),
        ({"x": [torch.ones(3).int()] * 20}, TypeError, r"'x': .* but torch\.int32 came"),
        ({"x": []}, ValueError, r"'x': at least 12 tensors of one size are asked for; 0 came\."),
        ({"x": [torch.ones(3)] * 11}, ValueError, "12 tensors of one size are asked for; 11 came, of 3 values"),
        ({"x": [torch.ones(3)] * 20 + [torch.ones(4)]}, ValueError, "21 came, of 3, 4 values"),
        ({"x": [torch.ones(3)] * 20 + [torch.tensor([1.0, math.inf, 1])]}, ValueError, "step 20 has Inf, NaN or"),
        ({"x": [torch.ones(3)] * 20 + [torch.tensor([1.0, math.nan, 1])]}, ValueError, "step 20 has Inf, NaN or"),
        ({"x": [torch.zeros(3)] + [torch.ones(3)] * 20}, ValueError, "'x': step 0 has Inf, NaN or nothing but zeros"),
    ],
)  # fmt: skip
def test_what_cannot_be_raced_is_refused(tensors: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        DelayedRacePanel(tensors)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("tensor", "biases", "tensor 'biases' is not in this panel; use one of 'gradients', 'inputs', 'weights'"),
        ("jump", 2, "jump 2 is not in this panel; use one of 1, 4, 16, 64"),
        ("length", 0, "length 0 is not in this panel; use one of 1, 4, 16, 1024"),
        ("margin", -1, "margin -1 is not in this panel; use one of 0, 1, 2"),
        ("margin", None, "margin None is not in this panel"),
    ],
)
def test_junk_is_refused_and_changes_nothing(panel: DelayedRacePanel, name: str, value: Any, text: str) -> None:
    before = panel.png(), panel.summary()
    with pytest.raises(ValueError, match=text):
        setattr(panel, name, value)
    assert (panel.png(), panel.summary()) == before


def test_where_the_magnitudes_lie_in_a_zone_they_have_its_colour() -> None:
    """With much room the band covered both zones, and nobody saw that half of it had fewer bits."""
    panel, hidden = DelayedRacePanel(), {}
    for margin in (0, 14):
        panel.choose(jump=1, margin=margin)
        pixels = page_pixels(panel.png()).reshape(-1, 3)
        hidden[margin] = [int((pixels == levels(color)).all(1).sum()) for color in IN_ZONE.values()]
    assert max(hidden[0]) < 100
    assert min(hidden[14]) > 5000
