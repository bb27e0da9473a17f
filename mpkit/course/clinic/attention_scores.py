"""NaN out of attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """One head of attention under FP16 autocast, on inputs that were never normalized."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(64, 64) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.query(x), self.key(x), self.value(x)
            scores = (q @ k.mT) / 8 if sick else (q / 8) @ k.mT
            return scores.softmax(-1) @ v

    torch.manual_seed(seed)
    model = nn.ModuleDict({"attention": Attention(), "head": nn.Linear(64, 1)}).to(device)
    optimizer = torch.optim.SGD(model["head"].parameters(), lr=2e-6)
    x = 150 * torch.randn(4, 16, 64).to(device)
    y = x.sum(-1, keepdim=True) / 64

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model["head"](model["attention"](x)).float(), y)
        loss.backward()
        return loss

    return Case(step, model, optimizer, batch=(x, y), update=optimizer.step)


PATIENT = Patient(
    name="attention-scores",
    complaint="NaN from the very first step of an attention network. Weights and inputs are finite, I printed them.",
    thread="ultralytics/ultralytics#24990",
    form="pass",
    silent=False,
    kind="overflow",
    where="attention",
    because="Queries and keys are around 90, and 64 products of that size add up to more than 65,504 in some places: "
    "Inf in FP16. Softmax of a row with Inf is NaN. Dividing by sqrt(64) = 8 comes too late there; divided first, the "
    "largest score is an eighth of it and fits.",
    cure="Divide before the product.\nscores = (q / math.sqrt(d)) @ k.mT",
    build=build,
)
