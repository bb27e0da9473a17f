"""What a user takes away runs on two ranks, skips as one, and resumes bit for bit; and its record is read back."""

from __future__ import annotations

import argparse
import io
import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from mpkit.course.record import ranks as command
from mpkit.course.recorded.ranks import RanksRecord

SMALL = argparse.Namespace(model="mlp", batch=16, size=0, cpu=True)


@pytest.mark.parametrize("example", command.EXAMPLES)
def test_two_ranks_skip_together_and_resume_bit_for_bit(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = command.agreement(example, 2, SMALL)
    assert found["planted"] == {"data": [2, 1], "gradient": [4, 1]}
    assert found["skipped"] == [[2, 4], [2, 4]]
    assert found["scale"] == [2.0**14, 2.0**14]
    weights = found["checksum"]
    assert len(set(weights["straight"])) == 1
    assert weights["resumed"] == weights["straight"]
    assert capsys.readouterr().err.count("images_per_second") == 2


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)train_ddp.py --json --model resnet50 failed:.* add --synthetic"):
        command.run("ddp", 1, True, ["--model", "resnet50"])


# ---- one rank, in this process ----

QUIET = pytest.mark.filterwarnings("ignore:Unable to enable fault handler")  # it wants a real stderr


@pytest.fixture(params=command.EXAMPLES)
def alone(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Trains as the only rank, without a launch, and returns all that was written, write by write."""
    script = command.ROOT / "examples" / f"train_{request.param}.py"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)

    def train(*options: object) -> list[str]:
        server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        monkeypatch.setenv("MASTER_PORT", str(server.port))
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # the port is taken, by a server that is there
        monkeypatch.setattr(sys, "argv", [script.name, *map(str, options)])
        said: list[str] = []
        screen = io.StringIO()
        monkeypatch.setattr(screen, "write", lambda text: said.append(text) if text else None)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            runpy.run_path(str(script), run_name="__main__")
        return said

    yield train
    if dist.is_initialized():
        dist.destroy_process_group()


@QUIET
def test_a_resume_without_a_checkpoint_says_so(alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, sentence in (
        ([], "--resume needs --checkpoint, the folder of the run that is to go on."),
        (["--checkpoint", tmp_path], f"--resume: there is no checkpoint in {tmp_path} yet; start without --resume."),
        (["--checkpoint", tmp_path / "none"], "none yet; start without --resume."),
    ):
        with pytest.raises(SystemExit) as caught:
            alone("--resume", *options)
        assert caught.value.code == 2
        assert capsys.readouterr().err.endswith(f"{sentence}\n")


@QUIET
@pytest.mark.parametrize("option", ["--inf", "--inf-gradient"])
@pytest.mark.parametrize("place", [(2, 1), (3, 0), (-1, 0)])
def test_an_inf_is_planted_or_refused(
    option: str, place: tuple[int, int], alone: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        alone("--steps", 3, option, *place)
    sentence = "no Inf for step {} on rank {}: steps end with 2, ranks with 0.\n".format(*place)
    assert capsys.readouterr().err.endswith(sentence)


@QUIET
@pytest.mark.parametrize(
    ("option", "given", "wanted"),
    [
        ("--every", "0", "a whole number"), ("--batch", "0", "a whole number"), ("--steps", "-2", "a whole number"),
        ("--steps", "1.5", "a whole number"), ("--size", "big", "a whole number"),
        ("--rate", "0", "a number"), ("--rate", "nan", "a number"), ("--rate", "inf", "a number"),
    ],
)  # fmt: skip
def test_numbers_are_above_zero(
    option: str, given: str, wanted: str, alone: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        alone(f"{option}={given}")
    assert capsys.readouterr().err.endswith(f"argument {option}: give {wanted} above 0, not {given}.\n")


@QUIET
def test_it_is_started_with_torchrun(
    alone: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK")
    with pytest.raises(SystemExit):
        alone()
    assert capsys.readouterr().err.endswith("start this script with torchrun; --help shows how.\n")
    assert " torchrun --standalone " in "".join(alone("--help"))


@QUIET
def test_a_fresh_run_leaves_the_checkpoints_of_another_alone(
    alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a later resume would go on with whichever of the two has trained for longer."""
    alone("--checkpoint", tmp_path, "--steps", 4, "--every", 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for steps in (2, 4, 6):
        with pytest.raises(SystemExit) as caught:
            alone("--checkpoint", tmp_path, "--steps", steps, "--rate", 0.5)
        assert caught.value.code == 2
        assert capsys.readouterr().err.endswith(
            f"{tmp_path} has checkpoints up to step 4; add --resume, or name another folder.\n"
        )
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@QUIET
def test_a_folder_for_checkpoints_can_be_made(alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the first save would fail, after all those steps."""
    file = tmp_path / "file"
    file.touch()
    for place, why in ((file, "File exists"), (file / "below", "Not a directory")):
        with pytest.raises(SystemExit):
            alone("--checkpoint", place)
        assert capsys.readouterr().err.endswith(f"--checkpoint: {place} cannot be a folder ({why}); name another.\n")


@QUIET
def test_what_else_is_in_the_folder_is_no_checkpoint(alone: Any, tmp_path: Path) -> None:
    for name in ("best.pt", "2nd.pt", "best/.metadata"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    saved = ["--checkpoint", tmp_path, "--json"]
    alone(*saved, "--steps", 2)
    assert json.loads(alone(*saved, "--steps", 4, "--resume")[0])["steps"] == 4


@QUIET
def test_nothing_left_to_train(alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And no speed of nothing."""
    saved = ["--batch", 16, "--checkpoint", tmp_path, "--json"]
    assert json.loads(alone(*saved, "--steps", 2)[0])["steps"] == 2
    for steps in (1, 2):
        assert alone(*saved, "--steps", steps, "--resume") == []
        assert capsys.readouterr().err.endswith(
            f" is there already, and --steps is {steps}: nothing is left to train.\n"
        )


@QUIET
def test_a_resume_keeps_the_images_of_a_step(alone: Any, tmp_path: Path) -> None:
    """Of all ranks together: 16 here, as two ranks with 8."""
    saved = ["--checkpoint", tmp_path, "--json"]
    alone(*saved, "--batch", 16, "--steps", 2)
    with pytest.raises(
        SystemExit,
        match=r"^The checkpoint has 16 images a step, not 1 times --batch 8: pass --batch 16\.$",
    ):
        alone(*saved, "--batch", 8, "--steps", 4, "--resume")
    dist.destroy_process_group()
    assert json.loads(alone(*saved, "--batch", 16, "--steps", 4, "--resume")[0])["steps"] == 4


@QUIET
@pytest.mark.parametrize(
    ("name", "before", "now", "more"),
    [
        ("model", "mlp", "resnet50", ["--synthetic"]), ("format", "fp16", "bf16", []), ("rate", "0.05", "0.5", []),
    ],
)  # fmt: skip
def test_a_resume_keeps_what_the_run_was_asked_for(
    name: str, before: str, now: str, more: list[str], alone: Any, tmp_path: Path
) -> None:
    alone("--checkpoint", tmp_path, "--steps", 2)
    with pytest.raises(SystemExit) as caught:
        alone("--checkpoint", tmp_path, "--steps", 4, "--resume", f"--{name}", now, *more)
    assert caught.value.code == (
        f"The checkpoint has --{name} {before}, not {now}: pass --{name} {before}, or train anew in another folder."
    )


@QUIET
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(alone: Any, tmp_path: Path) -> None:
    saved = ["--checkpoint", tmp_path, "--every", 2, "--json"]
    alone(*saved, "--steps", 4)
    (newest,) = tmp_path.glob("00000004*")
    for path in [newest] if newest.is_file() else newest.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SystemExit) as caught:
        alone(*saved, "--steps", 6, "--resume")
    told = str(caught.value.code)
    assert told.startswith(f"{newest} is damaged, or no checkpoint of this training (")
    assert told.endswith(" Move it away, and the one before it is taken.")
    assert "\n" not in told
    dist.destroy_process_group()
    newest.rename(tmp_path / "damaged")
    assert json.loads(alone(*saved, "--steps", 6, "--resume")[0])["steps"] == 6


@QUIET
def test_a_checkpoint_of_another_training_is_named(alone: Any, tmp_path: Path) -> None:
    """It is whole, and was saved the same way."""
    alone("--checkpoint", tmp_path / "mine", "--steps", 2)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    theirs = {"net": {"weight": torch.ones(2)}, "step": 2}
    (mine,) = (tmp_path / "mine").iterdir()
    other = tmp_path / "other" / mine.name
    other.parent.mkdir()
    if mine.is_file():
        torch.save(theirs, other)
    else:
        dcp.save(theirs, checkpoint_id=other)
    dist.destroy_process_group()
    with pytest.raises(SystemExit) as caught:
        alone("--checkpoint", other.parent, "--steps", 4, "--resume")
    assert str(caught.value.code).startswith(f"{other} is damaged, or no checkpoint of this training (")


def test_ranks_that_cannot_share_a_step_evenly() -> None:
    for example in command.EXAMPLES:
        check = runpy.run_path(str(command.ROOT / "examples" / f"train_{example}.py"))["same_batch"]
        check(128, 4, 32)
        with pytest.raises(
            SystemExit,
            match=r"^The checkpoint has 128 .* not 3 times --batch 64: start another number of ranks\.$",
        ):
            check(128, 3, 64)


@QUIET
def test_the_guard_counts_on_after_a_resume_and_names_what_the_model_did(alone: Any, tmp_path: Path) -> None:
    """Of an Inf that is born later it says only what it saw. A line is one write, which no other rank can split."""
    saved = ["--checkpoint", tmp_path, "--batch", 16]
    alone(*saved, "--steps", 2)
    in_data, in_gradient = alone(*saved, "--steps", 5, "--resume", "--inf", 3, 0, "--inf-gradient", 4, 0)
    assert in_data.startswith("rank 0: step 3 withheld at scale 65536: input in the forward pass: input 0 in ")
    assert in_gradient.startswith("rank 0: step 4 withheld at scale 32768: run again, it was finite: ")
    assert in_data.endswith("\n")
    assert in_gradient.endswith("\n")


# ---- the record ----


def answer(example: str, ranks: int, cpu: bool, options: Any) -> dict[str, Any]:
    """Of a run that nobody waits for: twice as fast on two ranks but for a tenth."""
    one = {"skipped": [0, 2, 4], "scale": 8192.0, "checksum": f"{example}{'--deterministic' in options}"}
    return {"images_per_second": 100.0 * ranks - 10 * (ranks - 1), "ranks": [one] * ranks}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(command, "run", answer)
    path = tmp_path / "ranks_cpu.json"
    assert command.main(["--cpu", "--model", "mlp", "--out", str(path)]) == 0
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_the_record_is_read_back(record: dict[str, Any], tmp_path: Path) -> None:
    found = RanksRecord.load("ranks_cpu", tmp_path)
    assert found.images == {"ddp": {1: 100, 2: 190}, "fsdp": {1: 100, 2: 190}}
    assert found.range["images"]["ddp"] == {"1": [100, 100], "2": [190, 190]}
    assert found.command == "python -m mpkit record-ranks --cpu --model mlp"
    assert (found.gpu, found.gpus, found.processes) == ("CPU", 2, 3)
    for example in command.EXAMPLES:
        assert found.agree(example)
        assert found.bit_equal(example)
        assert found.speedup(example) == 1.9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("skipped", [[2, 4], [2]]), ("skipped", [[2], [2]]), ("scale", [1.0, 2.0]),
        ("checksum", {"straight": ["a", "b"], "again": ["a", "b"], "resumed": ["a", "b"]}),
    ],
)  # fmt: skip
def test_ranks_that_do_not_agree(field: str, value: Any, record: dict[str, Any]) -> None:
    record[field]["ddp"] = value
    found = RanksRecord(**RanksRecord.figures(record))
    assert (found.agree("ddp"), found.agree("fsdp")) == (False, True)


def test_a_resume_is_judged_only_where_a_run_repeats(record: dict[str, Any]) -> None:
    runs = record["checksum"]["ddp"]
    runs["resumed"] = ["x", "x"]
    assert RanksRecord(**RanksRecord.figures(record)).bit_equal("ddp") is False
    runs["again"] = ["y", "y"]
    assert RanksRecord(**RanksRecord.figures(record)).bit_equal("ddp") is None


def test_without_two_gpus_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit):
        command.main([])
    assert "this needs two GPUs or more, and torch sees 1; --cpu tries it out." in capsys.readouterr().err
