"""A learning rate that is gone before training begins."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 regression with a decaying learning rate, and a scaler that doubles its scale after every clean step."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0, growth_interval=1)
    x = torch.randn(64, 8).to(device)
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
    because="The scaler tries a doubled scale after every clean step, so in the end every second step overflows and is "
    "skipped. The optimizer does not step then, the scheduler does. After 40 iterations the optimizer has made about "
    "23 steps, and the learning rate is that of step 40: 0.9^40 in place of 0.9^23, six times lower.",
    cure="Step the scheduler only if the optimizer did.\n"
    "before = scaler.get_scale(); scaler.update()\nif scaler.get_scale() >= before: scheduler.step()",
    build=build,
)
