"""What one rank of a launch is: it joins the others, works, answers, and leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.elastic.multiprocessing.errors import record

FOLDER, WAITS = "MPKIT_RANKS_FOLDER", "MPKIT_RANKS_WAIT"  # set by launch: where to answer, and how long to wait


class Left(Exception):
    """A rank ended by `sys.exit` where it had to answer."""


@dataclass(frozen=True)
class Rank:
    """One of `size` processes. `mesh` has all of them in one row."""

    number: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    @classmethod
    def join(cls) -> Rank:
        """Meet the others: over NCCL where torch sees GPUs, over gloo elsewhere."""
        torch.set_num_threads(1)
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(kind, int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device(kind)
        if kind == "cuda":
            torch.cuda.set_device(device)
        patience = _patience()
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=patience)
        return cls(dist.get_rank(), dist.get_world_size(), device, init_device_mesh(kind, (dist.get_world_size(),)))


def answer(work: Callable[[Rank], dict[str, Any]]) -> None:
    """Call `work` with this process's rank, and leave what it returns where `launch` finds it.

    If it raises, the error is noted (torch's `record`) and the process ends at once: to wait for the others here would
    only hide it.
    """
    record(_work)(work)


def _patience() -> timedelta:
    return timedelta(seconds=float(os.environ.get(WAITS, "20")))


def _work(work: Callable[[Rank], dict[str, Any]]) -> None:
    rank = Rank.join()
    # Of its own: no collective of the work is taken for this one. Twice: who is done gives up after who waits in vain.
    leaving = dist.new_group(backend="gloo", timeout=2 * _patience())
    try:
        text = as_text(work(rank))
    except SystemExit as left:  # a status of 0 would look like success, and the ranks that wait like the cause
        raise Left().with_traceback(left.__traceback__) from None
    Path(os.environ[FOLDER], f"rank{rank.number}.json").write_text(text, encoding="utf-8")
    dist.barrier(leaving)
    dist.destroy_process_group()


def as_text(found: dict[str, Any]) -> str:
    """The answer as JSON. TypeError: it is no dict, or one of its values is nothing that JSON can hold."""
    if not isinstance(found, dict):
        raise TypeError(f"a rank answers with a dict, but {type(found).__name__} came; end with return {{...}}.")
    for key, value in found.items():
        try:
            json.dumps(value)
        except TypeError:
            what = f"{key!r} ({type(value).__name__})"
            raise TypeError(
                f"the answer's {what} has what JSON cannot hold; of a tensor return .item() or .tolist()."
            ) from None
    return json.dumps(found)
