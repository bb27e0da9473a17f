"""One skipped step, and then all of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 regression with a scaler that tries a doubled scale every four steps."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0, growth_interval=4)
    x = torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True) + torch.randn(64, 1).to(device)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model(x).float(), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        if not sick or norm.isfinite():
            optimizer.zero_grad()
        return loss

    return Case(step, model, optimizer, scaler, batch=(x, y))


PATIENT = Patient(
    name="zero-grad-after-skip",
    complaint="After some twenty steps the scaler skips one, which is normal. But then it skips every step, and the "
    "scale falls and falls.",
    thread="espnet/espnet#3283",
    form="iteration",
    silent=True,
    kind="order",
    where="zero_grad",
    because="zero_grad() is called only after a clean step. After a skipped one the Inf stays in .grad, and the next "
    "backward pass adds to it: Inf plus anything is Inf. So every later step is skipped too, whatever its batch and "
    "its scale. The scale is halved each time: the messenger, not the cause.",
    cure="Clear the gradients before every backward pass, without a condition.\noptimizer.zero_grad()",
    build=build,
    steps=60,
    after=60,
)
