"""Every panel of the lessons, and what can be changed in it: what `python -m mpkit bench --panels` runs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import ipywidgets
import torch

from mpkit.bench.panels import Changes, PanelCase
from mpkit.course.lesson_00.first_look_panel import first_look
from mpkit.course.lesson_01.bit_explorer import PRESETS, BitExplorer
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import Autoencoder
from mpkit.course.panels.live_panel import LivePanel
from mpkit.course.panels.picture_panel import PicturePanel
from mpkit.course.panels.setting import OwnSetting, Several, TypedNumber
from mpkit.course.runs.snapshots import record_gradients
from mpkit.formats import FORMATS

MOST = 12  # values of one control; of a longer slider some that lie evenly
UNITS = 30  # of a training: a unit of work and its picture


def cases(device: str) -> list[PanelCase]:
    """Each panel with its controls; one that trains has a second row, for the pictures while it does."""
    lazily = partial(_made, device)
    made: dict[str, Callable[[], Any]] = {
        "lesson 00, first look": first_look,
        "lesson 01, bit explorer": BitExplorer,
        "lesson 02, cast explorer": lambda: lazily("02", "CastExplorerPanel", _tensors(device)),
        "lesson 02, stalling sum": lambda: lazily("02", "StallingSumPanel"),
        "lesson 03, number line": lambda: lazily("03", "NumberLinePanel"),
        "lesson 04, gradient histogram": lambda: lazily("04", "GradientHistogramPanel", _recording(device)),
        "lesson 05, scaler race": lambda: lazily("05", "ScalerRacePanel"),
        "lesson 05, settings sweep": lambda: lazily("05", "SettingsSweepPanel"),
        "lesson 06, precision race": lambda: lazily("06", "PrecisionRacePanel"),
        "lesson 07, speed lab": lambda: lazily("07", "SpeedLabPanel"),
        "lesson 07, memory ledger": lambda: lazily("07", "MemoryLedgerPanel"),
        "lesson 08, attention": lambda: lazily("08", "AttentionPanel"),
        "lesson 09, granularity": lambda: lazily("09", "GranularityPanel"),
        "lesson 09, delayed race": lambda: lazily("09", "DelayedRacePanel"),
        "lesson 10, clinic": lambda: lazily("10", "ClinicPanel"),
        "lesson 11, rank simulator": lambda: lazily("11", "RankSimulatorPanel"),
    }
    live: dict[str, Callable[[], Any]] = {
        "lesson 05, scaler race, training": lambda: lazily("05", "ScalerRacePanel", "bad start"),
        "lesson 06, precision race, training": lambda: lazily("06", "PrecisionRacePanel"),
    }
    close = ipywidgets.Widget.close_all
    return [PanelCase(name, make, moves, close) for name, make in made.items()] + [
        PanelCase(name, make, training, close) for name, make in live.items()
    ]


def _made(device: str, lesson: str, name: str, *arguments: Any) -> Any:
    """A panel of a lesson, told the device if it can be."""
    kind = getattr(importlib.import_module(f"mpkit.course.lesson_{lesson}"), name)
    told = {"device": device} if "device" in inspect.signature(kind).parameters else {}
    return kind(*arguments, **told)


@cache
def _recording(device: str) -> Any:
    """Lesson 04's recording."""
    torch.manual_seed(0)
    model = Autoencoder(seeds=[0]).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    return record_gradients(model, digits(device).reconstruction(), adam, at=(0, 30, 60, 120, 240))


def _tensors(device: str) -> dict[str, torch.Tensor]:
    """Lesson 02's tensors."""
    snapshot = _recording(device).at(60)
    return {
        "gradients": torch.cat([layer.all for layer in snapshot.layers]),
        "weights": torch.cat([p.flatten() for p in snapshot.model.parameters()]),
    }


def moves(panel: Any) -> Changes:
    """Every control to each of its values, or to MOST of them, and back to where it was."""
    if isinstance(panel, BitExplorer):
        steps = [("number", text) for text in PRESETS] + [("format", fmt) for fmt in FORMATS.values()]
        return [(f"{name} {value}", partial(_set, panel, name, value)) for name, value in steps]
    if not isinstance(panel, PicturePanel):
        return [(f"k {k}", partial(_set, panel.k, "value", k, panel)) for k in range(panel.k.min, panel.k.max + 1)]
    return _settings(panel)


def _settings(panel: PicturePanel) -> Iterator[tuple[str, Callable[[], object]]]:
    for name in panel.controls:
        start = getattr(panel, name)
        for value in (*_some(_values(panel, name, start)), start):
            if value != getattr(panel, name):  # else nothing moves, and nothing is drawn
                yield f"{name} {value}", partial(_set, panel, name, value)


def _values(panel: PicturePanel, name: str, start: Any) -> list[Any]:
    setting = getattr(type(panel), name)
    if isinstance(setting, Several):  # each button once; one at least stays pressed
        return [(one,) if start == () else tuple(set(start) ^ {one}) or start for one in setting.names]
    if isinstance(setting, TypedNumber):
        return [start * factor for factor in (0.5, 2, 0.75)]
    return [*setting.values(panel), *([None] if isinstance(setting, OwnSetting) else [])]


def _some(values: list[Any]) -> list[Any]:
    if len(values) <= MOST:
        return values
    return [values[round(place * (len(values) - 1) / (MOST - 1))] for place in range(MOST)]


def _set(holder: Any, name: str, value: Any, panel: Any = None) -> None:
    """Set it, and take the picture's bytes, as the front end would get them."""
    setattr(holder, name, value)
    _shown(panel or holder)


def _shown(panel: Any) -> bytes:
    if panel.last_error is not None:
        raise panel.last_error
    picture = panel.png()
    return picture if picture is not None else str(panel.html()).encode()


def training(panel: LivePanel[Any]) -> Changes:
    """The units of work of a training, each with its picture: how long a button may have to wait."""
    panel.race = panel.new_race(None)
    panel.began()
    return [(f"unit {unit + 1}", partial(_unit, panel)) for unit in range(UNITS)]


def _unit(panel: LivePanel[Any]) -> None:
    panel.work()
    panel.show()
    _shown(panel)
