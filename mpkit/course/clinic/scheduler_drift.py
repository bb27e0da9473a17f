"""A learning rate that is gone before training begins."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 regression that starts at a loss scale of 2^32, with a decaying learning rate."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**32)
    x = torch.randn(64, 8, device=device)
    y = x.sum(1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model(x).float(), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        if sick or scaler.get_scale() >= before:
            scheduler.step()
        return loss

    return Case(step, model, optimizer, scaler, scheduler, batch=(x, y),
                signs=lambda: {"learning rate": optimizer.param_groups[0]["lr"]})  # fmt: skip


PATIENT = Patient(
    name="scheduler-drift",
    complaint="Same seed, same schedule as the FP32 run. The FP16 run ends higher, as if it had been trained for less.",
    thread="Lightning-AI/pytorch-lightning#16228",
    form="iteration",
    silent=True,
    kind="order",
    where="scheduler",
    because="The scale starts at 2^32 and is halved about 18 times before the first step can be taken. The "
    "optimizer skips those steps, the scheduler does not: 0.9^18 = 0.15 of the learning rate is left when training "
    "begins. Each later skip adds one more.",
    cure="Step the scheduler only if the optimizer did.\n"
    "before = scaler.get_scale(); scaler.update()\nif scaler.get_scale() >= before: scheduler.step()",
    build=build,
)
