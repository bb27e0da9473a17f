"""The recorded transformers, and training of several seeds side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mpkit import DynamicScale, LossScaler, NoScaling, Policy, fit
from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.record.character_models import RUNS
from mpkit.course.record.transformer import main
from mpkit.course.recorded.transformer import TransformerRecord
from mpkit.course.runs.experiments import Outcome, Variant, train_seeds
from mpkit.course.runs.transformer_rows import SIZES, WAYS


def test_the_record_is_complete() -> None:
    record = TransformerRecord.load()
    assert "python -m mpkit record-transformer" in record.source
    assert record.speed.keys() == SIZES.keys() == record.sizes.keys()
    for model, rows in record.speed.items():
        assert set(rows) == set(WAYS)
        for row in rows.values():
            tokens = record.sizes[model]["batch"] * record.sizes[model]["context"]
            assert row["tokens_per_s"] == pytest.approx(1000 * tokens / row["ms"], rel=0.01)  # each a median
            assert row["peak_GiB"] > 1
            assert row["joules_per_million"] > 100
        assert record.speedup(model, "fp32") == 1
    for runs in (*record.losses.values(), *record.curves.values()):
        assert list(runs) == list(RUNS)
    assert {len(one) for runs in record.losses.values() for one in runs.values()} <= {5, 20}
    assert {len(one) for runs in record.curves.values() for one in runs.values()} == {record.steps // 20}


def test_parameters_are_counted_right() -> None:
    for size in TransformerRecord.load().sizes.values():
        w, v = size["width"], size["vocabulary"]
        block = 4 * w + 4 * (w * w + w) + 8 * w * w + 5 * w
        assert size["parameters"] == v * w + size["context"] * w + size["layers"] * block + 2 * w + w * v + v


def test_an_unknown_record_is_refused(tmp_path: Path) -> None:
    known = r"there is no record 'mine'; known: transformer_nvidia_h100_80gb_hbm3\. To make one"
    with pytest.raises(ValueError, match=known):
        TransformerRecord.load("mine")
    with pytest.raises(ValueError, match="known: none"):
        TransformerRecord.load(folder=tmp_path)
    (tmp_path / "transformer_x.json").write_text(json.dumps({"gpu": "x"}))
    with pytest.raises(KeyError):
        TransformerRecord.load("transformer_x", tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_recording_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "this needs a CUDA device, and there is none here." in capsys.readouterr().err


# ---- several seeds side by side ----

CORPUS = text()


def model(seed: int) -> Transformer:
    return Transformer(len(CORPUS.characters), width=16, layers=1, heads=2, context=8, seed=seed)


def data(seed: int) -> Any:
    return CORPUS.batches(4, 8, seed=seed)


def sgd(net: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1)


def run(*variants: Variant, weight: float = 1.0) -> dict[str, Outcome]:
    score = lambda net: float(net.head.weight.sum())  # noqa: E731
    return list(train_seeds(variants, range(3), model, data, sgd, 5, score, weight=weight))[-1]


def test_each_seed_is_trained_as_if_it_were_alone() -> None:
    policy = Policy.preset("fp16-mixed")
    found = run(Variant("one", policy, DynamicScale()))["one"]
    scores, losses = [], []
    for seed in range(3):
        net = model(seed)
        alone = fit(net, data(seed), optimizer=sgd(net), steps=5, policy=policy, scaler=LossScaler(DynamicScale()))
        losses.append([record.loss for record in alone])
        scores.append(float(net.head.weight.sum()))
    assert found.scores == tuple(scores)
    assert [record.losses for record in found.records] == list(zip(*losses, strict=True))
    assert found.records[0].loss == pytest.approx(sum(found.records[0].losses) / 3)


def test_the_weight_multiplies_what_is_trained_and_not_what_is_recorded() -> None:
    plain, light = (run(Variant("FP32", Policy()), weight=w)["FP32"].records for w in (1.0, 2.0**-10))
    assert light[0].losses == plain[0].losses
    assert light[0].grad_norm == pytest.approx(plain[0].grad_norm, rel=1e-5)
    assert light[-1].loss > plain[-1].loss  # SGD's steps are 1,024 times as short


def test_a_skip_of_one_seed_counts() -> None:
    found = run(Variant("huge", Policy.preset("fp16-mixed"), DynamicScale(2.0**60)), Variant("FP32", Policy()))
    assert found["huge"].skipped == 5
    assert found["FP32"].skipped == 0
    assert found["huge"].records[1].scale == 2.0**59
    assert math.isinf(found["huge"].records[0].grad_norm) or math.isnan(found["huge"].records[0].grad_norm)
    assert list(found) == ["huge", "FP32"]


def test_two_variants_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="variants need different names, but these came: a, a"):
        run(Variant("a", Policy()), Variant("a", Policy(), NoScaling()))
