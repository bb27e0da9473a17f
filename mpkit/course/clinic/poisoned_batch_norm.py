"""Training looks fine, evaluation is NaN."""

from collections import OrderedDict
from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Regression with batch norm; record 12 comes from a broken sensor."""
    torch.manual_seed(seed)
    parts = OrderedDict(inner=nn.Linear(8, 16), norm=nn.BatchNorm1d(16), act=nn.ReLU(), head=nn.Linear(16, 1))
    model = nn.Sequential(parts).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    inputs = torch.randn(40, 32, 8).to(device)
    targets = inputs.sum(-1, keepdim=True)
    inputs[12] *= 4e5
    logged = [0.0]

    def step(batch: Batch) -> float:
        x, y = batch
        before = deepcopy(model.norm.state_dict())
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model(x).float(), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if not sick and not loss.isfinite():
            model.norm.load_state_dict(before)
        if loss.isfinite():
            logged.append(loss.item())
        return logged[-1]  # the log leaves out the steps that were skipped

    @torch.no_grad()
    def signs() -> dict[str, float]:
        model.eval()
        loss = F.mse_loss(model(inputs[0]), targets[0])
        model.train()
        return {"eval loss": loss.item()}

    return Case(step, model, optimizer, scaler, batch=(inputs[12], targets[12]), signs=signs,
                stream=lambda number: (inputs[number % 40], targets[number % 40]))  # fmt: skip


PATIENT = Patient(
    name="poisoned-batch-norm",
    complaint="The training loss falls nicely. One step was skipped, as the scaler does. But evaluation says NaN.",
    thread="pytorch/pytorch#88474",
    form="iteration",
    silent=True,
    kind="poisoned state",
    where="norm",
    because="Batch 12 is 400,000 times too large and is Inf in FP16. The scaler skips its step, so the weights stay "
    "clean. But the forward pass had already averaged that batch into running_mean and running_var: 0.9 x old + "
    "0.1 x NaN is NaN, for ever. Training does not read these buffers, evaluation does.",
    cure="Put the buffers back when a step is skipped.\n"
    "before = deepcopy(norm.state_dict()); ...; if not loss.isfinite(): norm.load_state_dict(before)",
    build=build,
)
