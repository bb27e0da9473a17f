"""A skip every few steps."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 regression on noisy data, with a scaler that tries a larger scale now and then."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler(device, init_scale=4096.0, growth_interval=8 if sick else 2000)
    x = torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True) + torch.randn(64, 1).to(device)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model(x).float(), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return Case(step, model, optimizer, scaler, batch=(x, y))


PATIENT = Patient(
    name="probing-scaler",
    complaint="Gradient overflow, every few steps, again and again. It never stops. Is my model broken?",
    thread="microsoft/Swin-Transformer#47",
    form="iteration",
    silent=True,
    kind="healthy",
    where="",
    because="Nothing is wrong. After eight clean steps (2,000 by default) the scaler doubles its scale to see if that "
    "fits as well. Where it does not, the step is skipped and the scale halved: one step in nine is the price of a "
    "scale as large as possible. A skip that comes alone, with clean steps on both sides, is a probe.",
    cure="None is needed. Fewer probes, if they disturb:\ntorch.amp.GradScaler(device, growth_interval=2000)",
    build=build,
    steps=100,
)
