"""Which processes agree on a skip. Two and three processes with gloo; a case that hangs is a case that fails."""

from __future__ import annotations

import copy
import math
import pickle
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mpkit import DynamicScale, LossScaler
from mpkit.scaling import preset


def _process(rank: int, count: int, port: int, answers: Any, work: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("localhost", port, count, rank == 0)
    patience = timedelta(seconds=20)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=patience)
    answers.put((rank, work(rank)))
    dist.barrier()
    dist.destroy_process_group()


def in_processes(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(rank)` returns in each of `count` fresh processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = mp.get_context("forkserver")  # imports torch once for all of them
    context.set_forkserver_preload(["torch.distributed.fsdp", "mpkit"])
    answers = context.SimpleQueue()
    mp.start_processes(_process, (count, port, answers, work), count, start_method="forkserver")
    return [answer for _, answer in sorted(answers.get() for _ in range(count))]


def step(scaler: LossScaler, p: nn.Parameter, gradient: float, clip: bool = False) -> tuple[bool, str, float, float]:
    optimizer = torch.optim.SGD([p], lr=1.0)
    p.grad = None
    scaler.scale((p * gradient).sum()).backward()
    if clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([p], 1.0)
    result = scaler.step(optimizer)
    scaler.update()
    return result.stepped, result.reason, p.sum().item(), scaler.get_scale()


# --- groups --------------------------------------------------------------------------------------------------------


def groups(rank: int) -> dict[str, Any]:
    """Processes 0 and 1 are a group, process 2 trains alone; Inf is in process 1 in the second step."""
    pair = dist.new_group([0, 1])
    told: dict[str, Any] = {}
    alone = LossScaler()  # agrees with nobody: the gradients are plain
    told["auto"] = [step(alone, nn.Parameter(torch.zeros(1)), math.inf if rank == 1 else 1.0)[0]]
    if rank == 2:  # the others do not wait for it, nor it for them
        told["alone"] = step(LossScaler(process_group=None), nn.Parameter(torch.zeros(1)), math.inf)[0]
        try:
            LossScaler(process_group=pair)
        except ValueError as error:
            told["error"] = str(error)
        return told
    scaler, p = LossScaler(process_group=pair), nn.Parameter(torch.zeros(1))
    assert copy.deepcopy(scaler)._iteration.agreement is scaler._iteration.agreement
    with pytest.raises(TypeError, match="with a process_group cannot be pickled"):
        pickle.dumps(scaler)
    bad = math.inf if rank == 1 else 1.0
    told["pair"] = [step(scaler, p, gradient, clip) for gradient, clip in ((1.0, False), (bad, False), (bad, True))]
    reading = LossScaler(preset("openseq2seq-logmax"), process_group=pair)
    step(reading, nn.Parameter(torch.zeros(1)), 4.0**rank)
    told["reading"] = reading.state_dict()
    told["raises"] = raises(rank, LossScaler(process_group=pair), LossScaler(process_group=pair))
    return told


def raises(rank: int, scaler: LossScaler, fresh: LossScaler) -> list[Any]:
    """Process 1 cannot step: no scale yet, then no gradient. Process 0 skips then, and nobody hangs."""
    p, told = nn.Parameter(torch.zeros(1)), []
    for one in (fresh, scaler):
        optimizer = torch.optim.SGD([p], lr=1.0)
        p.grad = None
        if rank == 0 or one is scaler:
            loss = one.scale(p.sum())
        if rank == 0:
            loss.backward()
        try:
            told.append(one.step(optimizer).stepped)
        except RuntimeError as error:
            told.append(str(error)[:40])
        one.abandon()
    told.append(step(scaler, p, 1.0)[0])  # what was told to the other is not kept
    return told


def test_a_group_agrees_and_nobody_else_is_asked() -> None:
    first, second, third = in_processes(3, groups)
    assert (first["auto"], second["auto"], third["auto"]) == ([True], [False], [True])
    assert third["alone"] is False
    assert third["error"].startswith("this process does not belong to the group that it passed as process_group.")
    here = [(stepped, weight, scale) for stepped, _, weight, scale in first["pair"]]
    assert here == [(stepped, weight, scale) for stepped, _, weight, scale in second["pair"]]
    assert here == [(True, -1.0, 2.0**16), (False, -1.0, 2.0**15), (False, -1.0, 2.0**14)]
    for (_, one, *_), (_, other, *_) in zip(first["pair"][1:], second["pair"][1:], strict=True):
        assert one == "skipped: a gradient was not finite, but all gradients here were finite: another rank found it"
        assert other == "skipped: 1 Inf and 0 NaN, first in param_groups[0]['params'][0], shape (1,)"
    assert first["reading"] == second["reading"]
    assert first["raises"] == [False, False, True]
    assert second["raises"] == [
        "step() was called before any scale(): there is no scale on the device"[:40],
        "step(): no parameter of this optimizer has a gradient"[:40], True,
    ]  # fmt: skip


# --- DTensor and DDP -----------------------------------------------------------------------------------------------


def shards(rank: int) -> dict[str, Any]:
    """FSDP2: Inf in the shard of process 1 alone. DDP: one process has a batch more than the other."""
    told: dict[str, Any] = {}
    for name, group in (("auto", "auto"), ("never", None)):
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
        fully_shard(model)
        scaler, optimizer = LossScaler("cpu", process_group=group), torch.optim.SGD(model.parameters(), lr=1.0)  # type: ignore[arg-type]
        scaler.scale(model(torch.ones(2, 4)).sum()).backward()
        if rank == 1:
            model.weight.grad.to_local().fill_(math.inf)  # type: ignore[union-attr]
        told[name] = scaler.step(optimizer).stepped
        scaler.update()
        told[f"{name}'s scale"] = scaler.get_scale()
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(4, 4))
    scaler, optimizer, stepped = LossScaler(DynamicScale()), torch.optim.SGD(model.parameters(), lr=0.1), []
    with model.join():
        for batch in range(2 + rank):
            optimizer.zero_grad()
            bad = math.inf if (batch, rank) == (1, 0) else 1.0
            scaler.scale((model(torch.full((2, 4), 0.1 * batch)) * bad).sum()).backward()
            stepped.append(scaler.step(optimizer).stepped)
            scaler.update()
    told["ddp"] = stepped
    return told


def test_the_default_agrees_over_shards_and_leaves_plain_gradients_alone() -> None:
    first, second = in_processes(2, shards)
    assert (first["auto"], second["auto"]) == (False, False)
    assert first["auto's scale"] == second["auto's scale"] == 2.0**15
    assert (first["never"], second["never"]) == (True, False), "what auto protects from"
    assert first["ddp"] == [True, False], "the Inf of process 0 reached process 1 through DDP's sum"
    assert second["ddp"] == [True, False, True]


@pytest.mark.parametrize("group", ["all", 3, [0, 1]])
def test_what_is_no_group(group: Any) -> None:
    with pytest.raises(TypeError, match=r"process_group must be 'auto', None or a group of .* Pass dist.new_group"):
        LossScaler(process_group=group)
