"""NaN once the model becomes sure of itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Pooling with weights from a softmax that was written by hand, in FP16."""

    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(8, 1).half()

        def forward(self, x: Tensor) -> Tensor:
            score = self.score(x.half())
            weight = score.exp() if sick else (score - score.amax(1, keepdim=True)).exp()
            return (weight / weight.sum(1, keepdim=True)).float().mul(x).sum(1)

    torch.manual_seed(seed)
    model = nn.ModuleDict({"pool": Pool(), "head": nn.Linear(8, 1)}).to(device)
    nn.init.ones_(model["pool"].score.weight)
    optimizer = torch.optim.SGD(model["head"].parameters(), lr=0.02)
    x = torch.randn(32, 64, 8).to(device) * torch.linspace(0.5, 2, 40, device=device)[:, None, None, None]
    y = (x.sum(-1, keepdim=True).softmax(-2) * x).sum(-2).sum(-1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        loss = F.mse_loss(model["head"](model["pool"](x)), y)
        loss.backward()
        return loss

    return Case(step, model, optimizer, batch=(x[-1], y[-1]), update=optimizer.step,
                stream=lambda number: (x[number % 40], y[number % 40]))  # fmt: skip


PATIENT = Patient(
    name="own-softmax",
    complaint="Trains for a while, then NaN. The inputs grow a little from batch to batch, none of them is large.",
    thread="intel/xFasterTransformer#326",
    form="pass",
    silent=False,
    kind="overflow",
    where="pool",
    because="exp(11.1) is 66,171, and FP16 ends at 65,504. A score above 11 makes Inf, and Inf / Inf is NaN. In FP32 "
    "exp lasts up to 88. The softmax of torch subtracts the row's largest score first, so that exp never exceeds 1.",
    cure="Use torch.softmax, or subtract the largest score first.\n"
    "weight = (score - score.amax(1, keepdim=True)).exp()",
    build=build,
)
