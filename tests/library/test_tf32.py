"""The switch for TF32: set inside the block, put back behind it, whichever of torch's two ways the program uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import torch
from mpkit.policy.tf32 import tf32
{setting}
def state():
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # set in the other way
        return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
def on_the_cpu():
    return getattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision", "none")
before, cpu = state(), on_the_cpu()
for allowed in (False, True):
    with tf32(allowed):
        products, convolutions = state()
        assert products in (("high", "medium", "tf32") if allowed else ("highest", "ieee"))
        assert convolutions in ((True, "tf32") if allowed else (False, "ieee", "none"))
    assert state() == before, (before, state())
try:
    with tf32(True):
        1 / 0
except ZeroDivisionError:
    assert state() == before
assert on_the_cpu() == cpu
print(before)
"""


@pytest.mark.parametrize(
    ("setting", "before"),
    [
        ("", "('highest', True)"),
        ("torch.backends.cuda.matmul.allow_tf32 = True", "('high', True)"),
        ("torch.backends.cudnn.allow_tf32 = False", "('highest', False)"),
        ("torch.set_float32_matmul_precision('medium')", "('medium', True)"),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "('tf32', 'tf32')"),
        ("torch.backends.fp32_precision = 'tf32'", "('tf32', 'tf32')"),
        ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", "('none', 'ieee')"),
    ],
)
def test_it_is_set_inside_and_put_back(setting: str, before: str) -> None:
    """In a process of its own: torch remembers which way was used."""
    program = PROGRAM.format(setting=setting)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-600:]
    assert run.stdout.strip() == before
