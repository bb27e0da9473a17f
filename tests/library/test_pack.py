"""Small parameters are stepped as one: the same bits as one by one, in every wrapper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpkit import BF16, FP16
from mpkit.optim import Kahan, MasterWeights, Rounded, pack
from mpkit.optim.pack import Pack, packed
from mpkit.optim.slot import Slot

WRAPPERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "nearest": lambda opt: Rounded(opt, BF16),
    "Kahan": lambda opt: Kahan(opt, FP16),
    "master": lambda opt: MasterWeights(opt, BF16),
}


def trained(name: str, dtype: torch.dtype, closure: bool) -> list[Tensor]:
    """Weights, what is kept beside them, and the counts, after some steps of a net with two large and four small."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4)).to(dtype)
    net[2].weight.data = net[2].weight.data.t()  # not contiguous
    optimizer = WRAPPERS[name](torch.optim.Adam(net.parameters(), lr=1e-3))
    for _ in range(5):
        x = torch.randn(8, 16).to(dtype)

        def loss(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            value = net(x).float().square().mean()
            value.backward()
            return value

        if closure:
            optimizer.step(loss)
        else:
            loss()
            optimizer.step()
    return [t.detach().clone() for t in (*net.parameters(), *optimizer.held())]


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, None])
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_same_bits_as_one_by_one(
    name: str, dtype: torch.dtype | None, closure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = dtype or (torch.float16 if name == "Kahan" else torch.bfloat16)
    together = trained(name, own, closure)
    monkeypatch.setattr(pack, "SMALL", {})
    alone = trained(name, own, closure)
    assert len(together) == len(alone) == 8 + 6 * (name != "nearest")
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert int(together[-2]) > 0, "something moved"


def slot(*shape: int, dtype: torch.dtype = torch.float32) -> Slot:
    stored = torch.randn(shape).to(dtype)
    return Slot(nn.Parameter(stored), stored, stored + 1)


def test_who_is_packed_with_whom() -> None:
    small, other, half, large = slot(3, 2), slot(4), slot(2, dtype=torch.bfloat16), slot(2**13 + 1)
    slanted = slot(3, 2)
    slanted.stored = torch.randn(2, 3).t()
    packs = packed([small, half, large, other, slanted])
    assert [one.slots for one in packs] == [[small, other], [half], [large], [slanted]]
    assert packs[2].one is large


def test_a_pack_takes_no_more_than_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "MOST", 10)
    slots = [slot(4) for _ in range(5)]
    assert [len(one.slots) for one in packed(slots)] == [2, 2, 1]


def test_a_pack_reads_and_gives_back() -> None:
    a, b = slot(3, 2), slot(4)
    both = Pack([a, b])
    assert torch.equal(both.one.stored, torch.cat([a.stored.flatten(), b.stored]))
    assert both.one.extra is not None
    assert [part.shape for part in both.parts(both.one.stored)] == [(3, 2), (4,)]
    both.one.stored.mul_(2)
    both.one.extra.fill_(7)
    before = a.stored.clone(), b.stored.clone()
    assert torch.equal(both.joined([a.stored, b.stored]), torch.cat([before[0].flatten(), before[1]])), "not yet"
    both.give_back()
    assert torch.equal(a.stored, 2 * before[0])
    assert torch.equal(b.stored, 2 * before[1])
    assert a.extra is not None
    assert b.extra is not None
    assert set(a.extra.flatten().tolist() + b.extra.tolist()) == {7.0}
    alone = Pack([a])
    assert alone.one is a
    assert alone.parts(a.stored)[0] is a.stored
