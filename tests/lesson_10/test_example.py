"""What a user takes away runs, is short, and says what is wrong; and so does the script of exercise 10.2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from mpkit.course.lesson_10 import slow_script

EXAMPLE = Path(__file__).parents[2] / "examples" / "diagnose_my_training.py"


def test_the_example_says_what_is_wrong() -> None:
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("order: clip_grad_norm_ (before unscale_)\n")
    assert "cure:  Unscale first." in done.stdout
    code = [line for line in EXAMPLE.read_text(encoding="utf-8").split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 30


def test_the_slow_script_is_slow_for_the_reason_that_is_asked_for() -> None:
    """The same with an evaluation that leaves the weights alone learns."""
    torch.manual_seed(0)
    losses = slow_script.train(*slow_script.toy("cpu"))
    assert len(set(losses)) == 1
    assert losses[0] > 0
    repaired = (
        slow_script.SOURCE.replace("model.half()", "pass").replace("x.half()", "x").replace("model.float()", "pass")
    )
    space = {"Batches": list, "Tensor": torch.Tensor}
    exec(compile(repaired, "repaired", "exec"), space)
    better = space["train"](*slow_script.toy("cpu"))  # type: ignore[operator]
    assert better[-1] < 0.5 * better[0]
    assert len(slow_script.LINES) in range(36, 44)
