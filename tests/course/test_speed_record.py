"""Speed and memory by arithmetic: papers' numbers, counts by hand, and the panels that show them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.pictures import page_size

from mpkit.course.lesson_07.memory import KINDS, ledger, saved_bytes
from mpkit.course.lesson_07.memory_ledger import RATIOS, SIZES, MemoryLedgerPanel
from mpkit.course.lesson_07.memory_ledger_picture import headline as ledger_headline
from mpkit.course.lesson_07.speed_bars import CASES, WAITING, case_headline, groups
from mpkit.course.lesson_07.speed_lab import PRESETS, SpeedLabPanel
from mpkit.course.lesson_07.speed_lab_picture import headline
from mpkit.course.record.losses import ARMS, MARGIN, STEPS, best_rate
from mpkit.course.recorded.sheets import sheet
from mpkit.course.recorded.speed import SpeedRecord, amdahl, intensity
from mpkit.course.runs.resnet_rows import WAYS


def test_amdahls_law_by_hand() -> None:
    assert amdahl(1, 2, 1e12) == pytest.approx(1.5)
    assert amdahl(3, 1, 3) == 2
    assert amdahl(0, 5, 7) == 1
    for wrong in ((-1, 1, 2), (0, 0, 2), (1, 1, 0)):
        with pytest.raises(ValueError, match="times from 0 on and a speed-up above 0 are asked for"):
            amdahl(*wrong)


def test_the_intensity_by_hand() -> None:
    assert intensity(3, "FP32") == 54 / 108
    assert intensity(4096, "FP16") == 2 * intensity(4096, "FP32")
    assert intensity(3, "FP8") == 54 / (9 + 9 + 18)  # its result is in BF16


def test_the_record_agrees_with_itself_and_names_its_command() -> None:
    record = SpeedRecord.load()
    assert record.command.startswith("python -m mpkit record-speed")
    assert all((record.cuda, record.cudnn, record.triton, record.python, record.driver))
    assert (record.processes, record.gpus) == (3, 4)
    assert list(record.resnet50) == list(WAYS)
    for row in record.resnet50.values():
        assert row["images_per_s"] == pytest.approx(1000 * record.batch / row["ms"])
        assert row["joules_per_image"] * record.batch / row["ms"] * 1000 == pytest.approx(row["watts"], rel=0.1)
    for policy in ("fp32", "tf32", "article", "fp16-mixed", "bf16-mixed"):
        assert record.resnet50[policy]["weights_MiB"] == pytest.approx(25_557_032 * 4 / 2**20, rel=0.06)
    assert list(record.losses) == list(record.skipped) == list(ARMS)
    assert {(len(curves), *map(len, curves)) for curves in record.losses.values()} == {(5, *[STEPS] * 5)}
    assert (record.margin, record.rate) == (MARGIN, best_rate(record.tuning))
    assert record.sheet == sheet(record.gpu)
    both = record.parts["fp32 forward"] + record.parts["fp32 backward"] + record.parts["update"]
    assert both == pytest.approx(record.resnet50["fp32"]["ms"], rel=0.05)
    assert "/" not in record.command


def test_every_figure_lies_within_its_range() -> None:
    record = SpeedRecord.load()

    def inside(figures: Any, ranges: Any) -> int:
        if isinstance(figures, dict):
            assert figures.keys() == ranges.keys() or set(map(str, figures)) == ranges.keys()
            return sum(inside(value, ranges[str(key)]) for key, value in figures.items())
        least, most = ranges
        assert least <= figures <= most
        return 1

    parts = ("resnet50", "parts", "matmul", "small")
    assert sum(inside(getattr(record, part), record.range[part]) for part in parts) > 150


def test_every_way_counts_its_energy() -> None:
    record = SpeedRecord.load()
    assert all(record.joules(way) == row["joules_per_image"] > 0 for way, row in record.resnet50.items())


def test_ways_are_apart_where_their_ranges_are() -> None:
    ranges = {"small": {"mlp": {"a": [1.0, 2.0], "b": [1.9, 3.0], "c": [3.1, 4.0]}}}
    times = {"a": 1.5, "b": 2.5, "c": 3.2}
    record = dataclasses.replace(SpeedRecord.load(), small={"mlp": times}, range=ranges)
    assert [record.apart("mlp", *pair) for pair in ("ab", "bc", "cb", "ca", "aa")] == [False, True, True, True, False]
    once = dataclasses.replace(record, range={})
    assert once.spread("mlp", "a") == pytest.approx((1.275, 1.725))
    assert [once.apart("mlp", *pair) for pair in ("ab", "bc")] == [True, False]


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"there is no record 'mine'; known: speed_nvidia_h100_80gb_hbm3\. .* record-speed"
    ):
        SpeedRecord.load("mine")
    with pytest.raises(ValueError, match="known: none"):
        SpeedRecord.load("mine", tmp_path)


def test_the_ledger_against_the_papers() -> None:
    """ZeRO (arXiv 1910.02054, section 3.1): mixed precision with Adam keeps 16 bytes a parameter, GPT-2 24 GB."""
    gpt2 = ledger(1.5e9, 0, "FP16 + master", "Adam")
    assert sum(gpt2.values()) == 24e9
    assert gpt2 == {
        "FP32 weights": 6e9,
        "16-bit weights": 3e9,
        "gradients": 3e9,
        "optimizer state": 12e9,
        "activations": 0,
    }
    assert sum(ledger(10, 100, "FP32", "SGD").values()) == 10 * 8 + 400
    assert tuple(ledger(1, 1)) == KINDS
    with pytest.raises(ValueError, match="numbers from 0 on are asked for, but -1 and 0 came"):
        ledger(-1, 0)
    with pytest.raises(ValueError, match="way 'FP8' is unknown; use one of FP32, autocast, FP16"):
        ledger(1, 1, "FP8")
    with pytest.raises(ValueError, match="optimizer 'Lion' is unknown; use one of SGD, SGD, momentum, Adam"):
        ledger(1, 1, "FP32", "Lion")


def test_what_autograd_keeps_counted_by_hand() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Sigmoid(), torch.nn.Linear(4, 2))
    x = torch.rand(5, 8)
    assert saved_bytes(lambda: net(x), net.parameters()) == 4 * 5 * (8 + 4)
    y = torch.rand(100, requires_grad=True)
    assert saved_bytes(lambda: (y.exp() + y.exp()).sum(), [y]) == 2 * 400
    assert saved_bytes(lambda: (y + y).sum(), [y]) == 0


def test_every_size_and_preset_of_the_speed_lab() -> None:
    panel, seen = SpeedLabPanel(), set()
    for n in panel.record.matmul["FP32"]:
        panel.size = n
        seen.add(panel.png())
        assert panel.picture.tooltip == headline(panel.record, n)
    assert len(seen) == len(panel.record.matmul["FP32"])
    for name, size in PRESETS.items():
        panel.presets[name].click()
        assert (panel.size, panel.case) == (size, "products")
    assert page_size(panel.png()) == (1040, 470)
    assert "no multiple of 8" in headline(panel.record, 4095)
    assert "too small to keep the GPU busy" in headline(panel.record, 64)
    # The ranges of FP16 and FP32 overlap at 64, and not at 4,096.
    assert headline(panel.record, 64).startswith("64 x 64: FP16 is as fast as FP32, ")
    gain = panel.record.matmul["FP16"][4096] / panel.record.matmul["FP32"][4096]
    assert headline(panel.record, 4096).startswith(f"4096 x 4096: FP16 is {gain:.1f} times as fast as FP32, ")
    assert ("FP8" in str(panel)) == (panel.size % 16 == 0)
    with pytest.raises(ValueError, match="size 100 is not in this panel; use one of 64, 128, 256"):
        panel.size = 100


def test_the_speed_lab_shows_why_it_is_not_faster() -> None:
    panel, seen = SpeedLabPanel(), set()
    small, times = panel.record.small, {}
    for case in CASES:
        panel.presets[case].click()
        assert panel.case == case
        assert panel.picture.tooltip == case_headline(panel.record, case)
        seen.add(panel.png())
        times[case] = [bar.ms for bars in groups(panel.record, case).values() for bar in bars]
        for ms in times[case]:
            assert f" {ms:#.3g} " in str(panel)
    assert len(seen) == len(CASES)
    ways = ("PyTorch FP32 eager", "torch.amp eager", "fp32 captured", "fp16-mixed captured")
    assert times["launch-bound"] == [small[model][way] for model in ("mlp", "transformer") for way in ways]
    ways = ("fp16-mixed eager", "fp16-mixed eager, loss.item() every step")
    assert times["sync every step"] == [small[model][way] for model in ("mlp", "transformer") for way in ways]
    least, most = panel.record.spread("mlp", "torch.amp eager")
    panel.case = "launch-bound"
    assert f"({least:#.3g} to {most:#.3g}) ms" in str(panel)
    # 2^26 values of 4 bytes are read once and written once at so many GB/s; a product does 2 n^3 operations.
    added = 2 * 2**26 * 4 / (panel.record.bandwidth["FP32"] * 1e9) * 1e3
    multiplied = 2 * 4096**3 / (panel.record.matmul["FP16"][4096] * 1e12) * 1e3
    assert (times["memory-bound"][0], times["memory-bound"][3]) == pytest.approx((added, multiplied))
    panel.presets["at its best"].click()  # the slider stands there already
    assert panel.case == "products"
    with pytest.raises(ValueError, match="case 'slow' is not in this panel; use one of 'products', 'launch-bound'"):
        panel.case = "slow"


def test_every_control_of_the_memory_ledger() -> None:
    panel, seen = MemoryLedgerPanel(), set()
    for name, values in (("size", SIZES), ("activations", RATIOS), ("optimizer", ("SGD", "Adam"))):
        for value in values:
            setattr(panel, name, value)
            assert getattr(panel, name) == value
            seen.add(panel.png())
    assert len(seen) >= len(SIZES) + len(RATIOS)
    panel.size, panel.activations, panel.optimizer = "1 M", 10, "SGD"
    assert panel.ledgers["FP32"]["activations"] == 4e7
    # FP32: 8 bytes a parameter and 40 for activations; autocast 10 and 20.
    assert ledger_headline(panel.ledgers).startswith("Autocast keeps 38% less than FP32; its 16-bit copies")
    with pytest.raises(ValueError, match="size '2 M' is not in this panel; use one of '1 M', '10 M'"):
        panel.size = "2 M"
    with pytest.raises(ValueError, match="optimizer 'Lion' is not in this panel"):
        panel.optimizer = "Lion"
    with pytest.raises(ValueError, match="activations 3 is not in this panel"):
        panel.activations = 3


def swung(mlp: float) -> SpeedRecord:
    """The record, but for a second way of the MLP that takes so many times as long as the first, and no ranges."""
    record = SpeedRecord.load()
    ways = {"PyTorch FP32 eager": 1.0, "torch.amp eager": mlp, "fp32 captured": 0.1, "fp16-mixed captured": 0.1}
    ways |= {"fp16-mixed eager": 1.0, WAITING: mlp}
    return dataclasses.replace(record, small={"mlp": ways, "transformer": ways | {WAITING: 1.0}}, range={})


def test_what_lies_within_the_swing_is_not_told_as_a_difference() -> None:
    both = "Launch-bound: torch.amp takes {0} (MLP) and {0} (transformer) times as long as plain FP32"
    assert case_headline(swung(1.5), "launch-bound") == both.format(1.5)
    assert case_headline(swung(1.1), "launch-bound") == both.format("about 1")
    alike = "A wait in every step costs neither model more than its times swing"
    assert case_headline(swung(1.1), "sync every step") == alike
    apart = "A wait in every step costs the MLP 50%, the transformer no more than its times swing"
    assert case_headline(swung(1.5), "sync every step") == apart


def test_a_card_without_tf32_keeps_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a card computes under the name of TF32 is FP32."""
    panel = SpeedLabPanel(device="cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    panel.measure()
    assert str(panel.last_error) == (
        f"This GPU has no TF32 and no BF16 of its own, so the record stays: {SpeedRecord.load().gpu}."
    )
    assert panel.record == SpeedRecord.load()
    buttons = [child.description for child in panel.box.children[0].children if hasattr(child, "description")]
    assert "measure on this GPU" in buttons
    without = SpeedLabPanel().box.children[0].children
    assert "measure on this GPU" not in [getattr(child, "description", "") for child in without]
