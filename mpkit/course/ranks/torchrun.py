"""Torch's own launcher as a command: what to run, and what its processes find around them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mpkit

ROOT = Path(mpkit.__file__).parents[1]  # the folder that holds the package


def torchrun(ranks: int, *target: object) -> list[str]:
    """`python -m torch.distributed.run --standalone --nproc-per-node RANKS TARGET …`: torchrun with this Python."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, *map(str, target)]


def around(threads: int, cuda: bool, **more: str) -> dict[str, str]:
    """The environment for it: this package, `threads` a rank, and without `cuda` no GPU; `more` is added."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    found = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": str(threads), **more,
    }  # fmt: skip
    return found if cuda else {**found, "CUDA_VISIBLE_DEVICES": ""}
