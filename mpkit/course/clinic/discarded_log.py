"""A log of zero in a model that trains."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """A bias for every distance of two tokens, in T5's buckets: small distances as they are, large ones by log."""

    class Buckets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Embedding(16, 1)

        def forward(self, distance: Tensor) -> Tensor:
            inside = distance if sick else distance.clamp(min=8)
            far = 8 + (torch.log(inside.float() / 8) * 2.88).clamp(-8, 7)
            bucket = torch.where(distance < 8, distance, far.long())
            return self.bias(bucket)

    torch.manual_seed(seed)
    model = nn.ModuleDict({"buckets": Buckets()}).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    distance = torch.randint(0, 128, (256,)).to(device)
    distance[0] = 0
    y = (distance.float() / 8).square()[:, None].log1p()

    def step(batch: Batch) -> Tensor:
        distance, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model["buckets"](distance).float(), y)
        loss.backward()
        return loss

    return Case(step, model, optimizer, batch=(distance, y), update=optimizer.step)


PATIENT = Patient(
    name="discarded-log",
    complaint="The loss is fine, but my debugger says that log makes -Inf, in every single step. Do I have to worry?",
    thread="pytorch/text#1830",
    form="pass",
    silent=True,
    kind="healthy",
    where="",
    because="Nothing is wrong. A token is at distance 0 of itself, and log(0) is -Inf. But for distances below 8 "
    "where() takes the other branch, and integers have no gradient. No -Inf reaches the output or a gradient.",
    cure="None is needed. To quiet the debugger:\ntorch.log(distance.clamp(min=8) / 8)",
    build=build,
)
