"""A loss that is small, and stays where it is."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """512 outputs to a sample, targets of size 1e-4, in FP16 autocast."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 512).to(device)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    scaler = torch.amp.GradScaler(device, enabled=False) if sick else torch.amp.GradScaler(device)
    x = torch.randn(64, 8).to(device)
    y = 3e-5 * x.sum(1, keepdim=True).expand(-1, 512)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model(x).float(), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    def signs() -> dict[str, float]:
        return {"largest gradient": model.weight.grad.abs().max().item()}

    return Case(step, model, optimizer, scaler, batch=(x, y), signs=signs)


PATIENT = Patient(
    name="no-scaler",
    complaint="The loss is tiny from the start, about 6e-9, and flat. No warning, and no step is skipped.",
    thread="engichang1467/Open-Rig3R#35",
    form="iteration",
    silent=True,
    kind="underflow",
    where="weight",
    because="The loss is a mean over 64 x 512 = 32,768 numbers, so the gradient of one output is 2 x 2e-4 / 32,768 = "
    "1e-8 where it is largest. Below 3e-8 FP16 rounds to 0. All gradients are exactly 0, the step changes nothing.",
    cure="A loss scale: that is what it is for.\nscaler = torch.amp.GradScaler(device)",
    build=build,
)
