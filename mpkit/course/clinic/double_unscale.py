"""A loss that hardly moves, although the scaler skips nothing."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 regression; a framework has wrapped the optimizer."""

    class Prepared:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    prepared: Any = Prepared(optimizer)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    x = torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model(x).float(), y)
        scaler.scale(loss).backward()
        scaler.unscale_(prepared if sick else prepared.optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        scaler.step(prepared.optimizer)
        scaler.update()
        return loss

    return Case(step, model, optimizer, scaler, batch=(x, y))


PATIENT = Patient(
    name="double-unscale",
    complaint="No skip, no NaN, the gradient norm that I log is right. The loss falls a thousand times too slowly.",
    thread="huggingface/accelerate#113",
    form="iteration",
    silent=True,
    kind="order",
    where="unscale_",
    because="The scaler remembers by object which optimizer it has unscaled. Here unscale_ gets the wrapper and step "
    "gets the optimizer inside, so step divides once more: gradients are 1,024 times too small. GradScaler raises "
    "only if both are the same object.",
    cure="Give the scaler the same object in unscale_ and step.\n"
    "scaler.unscale_(optimizer); ...; scaler.step(optimizer)",
    build=build,
)
