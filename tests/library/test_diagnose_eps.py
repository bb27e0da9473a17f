"""`diagnose` says "lost eps" where an eps that the format holds cures the step, and only there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit import Diagnosis, diagnose

FORMULAS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "rsqrt": lambda x, eps: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps),
    "div": lambda x, eps: x / ((x * x).mean(-1, keepdim=True) + eps),
    "root": lambda x, eps: x / ((x * x).mean(-1, keepdim=True) + eps).sqrt(),
    "reciprocal": lambda x, eps: x * (x.abs().mean(-1, keepdim=True) + eps).reciprocal(),
    "log": lambda x, eps: x * ((x * x).mean(-1, keepdim=True) + eps).log(),
    "clamp": lambda x, eps: x / x.abs().mean(-1, keepdim=True).clamp_min(eps),
    "two lines": lambda x, eps: _harmless(x) / ((x * x).mean(-1, keepdim=True) + eps),
}


def _harmless(x: Tensor) -> Tensor:
    return x / (x.abs().amax(-1, keepdim=True) + 1.0 + 1e-9)


class Wrong(nn.Module):
    """An eps that is 0 and harmless, and another fault one line further down."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.a, self.b, self.fault = nn.Linear(16, 32), nn.Linear(32, 4), fault

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x.float()).half()
        h = h / (h.norm(dim=-1, keepdim=True) + 1e-8)
        if self.fault == "0 / 0":
            small = h * 3e-5
            small = (small * small).sum(-1, keepdim=True)
            h = h * (small / small.detach())
        else:
            h = h * (h * 0 + 12.0).exp()
        return self.b(h.float())  # type: ignore[no-any-return]


class Norm(nn.Module):
    def __init__(self, formula: str, eps: float) -> None:
        super().__init__()
        self.formula, self.eps = formula, eps

    def forward(self, x: Tensor) -> Tensor:
        return FORMULAS[self.formula](x, self.eps)


def diagnosed(model: nn.Module, zero_row: bool) -> Diagnosis:
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(64, 16, generator=draw), torch.randint(0, 4, (64,), generator=draw)
    x[3] *= not zero_row

    def step(given: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.cross_entropy(model(given[0].half()).float(), given[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    before = [p.detach().clone() for p in model.parameters()]
    found = diagnose(step, model=model, optimizer=optimizer, batch=(x, y))
    assert found.steps <= 8
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return found


def normed(formula: str, eps: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), Norm(formula, eps), nn.Linear(64, 4)).half()
    nn.init.zeros_(model[0].bias)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("formula", FORMULAS)
def test_an_eps_that_is_0_in_fp16(formula: str) -> None:
    """The oracle: with the eps that the cure names the same model is finite, and with no zero row it always was."""
    found = diagnosed(normed(formula, 1e-8), zero_row=True)
    assert found.kind == "lost eps", str(found)
    assert " in 2 (test_diagnose_eps.py:" in found.where
    eps = float(found.cure.split("eps = ")[1])
    assert diagnosed(normed(formula, eps), zero_row=True).kind not in ("lost eps", "overflow", "invalid")
    assert diagnosed(normed(formula, 1e-8), zero_row=False).kind not in ("lost eps", "overflow", "invalid")


@pytest.mark.parametrize(("fault", "kind", "where"), [("0 / 0", "underflow", "div"), ("exp", "overflow", "exp")])
def test_a_harmless_eps_is_not_blamed(fault: str, kind: str, where: str) -> None:
    torch.manual_seed(0)
    found = diagnosed(Wrong(fault), zero_row=False)
    assert (found.kind, found.where.split(" ")[0]) == (kind, where), str(found)
