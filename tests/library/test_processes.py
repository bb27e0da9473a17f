"""Commands in fresh processes: the GPUs that there are, and what becomes of a process that fails or does not end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mpkit import processes
from mpkit.processes import Ended, gpus, in_turn


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_gpus_are_chosen_among_those_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert gpus(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-1")
    assert gpus(2) == ["5", "GPU-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-1,")
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"--gpus {count}: torch sees 2 here; use a number from 1 to 2."):
            gpus(count)


def test_what_became_of_each(tmp_path: Path) -> None:
    heard: dict[int, Ended] = {}
    commands = [python("print('fine')"), python("raise SystemExit('no luck')"), python("import os; os._exit(3)")]
    ended = in_turn(commands, [None], tmp_path, 60, heard.__setitem__)
    assert [one.status for one in ended] == [0, 1, 3]
    assert [one.trouble for one in ended] == ["", "no luck", "status 3"]
    assert heard == dict(enumerate(ended))


def test_a_process_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    [ended] = in_turn([python("import time; time.sleep(60)")], [None], tmp_path, 0.5)
    assert ended.status is None
    assert ended.trouble == f"not done after {ended.seconds:.0f} s"


@pytest.mark.parametrize(("version", "expected"), [("2.12.1", "0"), ("2.13.0", "None"), ("2.9.0", "0")])
def test_graphs_that_mix_up_formats_are_not_shared(
    version: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    monkeypatch.delenv("TORCHINDUCTOR_AUTOGRAD_CACHE", raising=False)
    [ended] = in_turn(
        [python("import os, sys; sys.exit(str(os.environ.get('TORCHINDUCTOR_AUTOGRAD_CACHE')))")], [None], tmp_path, 60
    )
    assert ended.last_words == expected


def test_words_that_are_no_text_and_a_child_of_a_child(tmp_path: Path) -> None:
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])"
    code = f"import os, subprocess, sys; os.write(2, b'caf\\xe9'); {sleeper}"
    [ended] = in_turn([python(code)], [None], tmp_path, 15)
    assert (ended.status, ended.last_words) == (0, "caf\ufffd"), "what it started itself is not waited for"


def test_one_place_has_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, time; taken = pathlib.Path(os.environ['CUDA_VISIBLE_DEVICES']);"
        "taken.touch(exist_ok=False); time.sleep(0.2); taken.unlink()"
    )
    places = [str(tmp_path / name) for name in "ab"]
    ended = in_turn([python(code)] * 6, places, tmp_path, 60)
    assert [one.trouble for one in ended] == [""] * 6
    assert {one.place for one in ended} == set(places)


def test_the_last_words_are_short(tmp_path: Path) -> None:
    [ended] = in_turn([python("raise SystemExit('\\n'.join(map(str, range(99))))")], ["7"], tmp_path, 60)
    assert ended.last_words.split("\n") == [str(n) for n in range(99 - processes.LAST_LINES, 99)]
    assert ended.place == "7"
