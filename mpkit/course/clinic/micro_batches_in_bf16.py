"""Gradients that stop growing."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Case, Patient

MICRO_BATCHES = 512


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Regression with 512 micro-batches to a step, their gradients added up in `weight.grad`."""
    torch.manual_seed(seed)
    model = nn.Linear(1, 1, bias=False).to(device, torch.bfloat16 if sick else torch.float32)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    signs = torch.randint(0, 2, (MICRO_BATCHES, 1, 1)).to(device) * 2.0 - 1
    x = signs.to(model.weight.dtype)
    y = 3 * x

    def step() -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for part, target in zip(x, y, strict=True):
            loss = F.mse_loss(model(part), target) / MICRO_BATCHES
            loss.backward()
            total += loss.detach().float()
        return total

    return Case(step, model, optimizer, update=optimizer.step,
                signs=lambda: {"gradient": model.weight.grad.float().abs().max().item()})  # fmt: skip


PATIENT = Patient(
    name="micro-batches-in-bf16",
    complaint="With 512 micro-batches the model learns more slowly than with one batch of 512, at the same learning "
    "rate.",
    thread="linkedin/Liger-Kernel#830",
    form="pass",
    silent=True,
    kind="lost update",
    where="weight",
    because="Each micro-batch adds 6 / 512 = 0.012 to weight.grad, which is in BF16. The sum stops at 4: from there on "
    "neighbours are 1/32 = 0.031 apart, and 0.012 is below half of that. The gradient is 4 where 6 is due.",
    cure="Add up in FP32: FP32 weights under autocast have FP32 gradients.\n"
    "model.float(); with torch.autocast(device, torch.bfloat16): ...",
    build=build,
    steps=5,
)
