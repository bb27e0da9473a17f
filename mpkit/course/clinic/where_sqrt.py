"""A loss that jumps up after the first step and stays there."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Distances of pairs, in BF16 autocast; in the first pair both are the same."""

    class Distance(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            squared = (a - b).float().square().sum(-1, keepdim=True)
            safe = squared if sick else torch.where(squared > 0, squared, 1.0)
            return torch.where(squared > 0, safe.sqrt(), 0.0)

    torch.manual_seed(seed)
    model = nn.ModuleDict({"embed": nn.Linear(8, 8), "distance": Distance()}).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pairs = torch.randn(2, 32, 8).to(device)
    pairs[1, 0] = pairs[0, 0]
    y = (pairs[0] - pairs[1]).norm(dim=-1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        (a, b), y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = F.mse_loss(model["distance"](model["embed"](a), model["embed"](b)), y)
        loss.backward()
        return loss

    def signs() -> dict[str, float]:
        return {"largest weight": model["embed"].weight.abs().max().item()}

    return Case(step, model, optimizer, batch=(pairs, y), signs=signs, update=optimizer.step)


PATIENT = Patient(
    name="where-sqrt",
    complaint="The first loss is right. Then it jumps and never moves again. I protect the root with where(), so "
    "it must be BF16.",
    thread="pytorch/pytorch#68425",
    form="pass",
    silent=True,
    kind="invalid",
    where="distance",
    because="where() picks the 0, but both branches are computed, and both have a gradient. That of the root at 0 is "
    "Inf, times the 0 that where() sends back: NaN, and the step writes it into the weights. Then every distance is "
    "NaN, NaN > 0 is false, and where() makes 0 of it: the loss looks healthy. FP32 does the same.",
    cure="Make the argument safe, not the result.\n"
    "safe = torch.where(squared > 0, squared, 1.0); torch.where(squared > 0, safe.sqrt(), 0.0)",
    build=build,
)
