"""The loss does not move, and nothing is wrong with the gradients."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Linear regression in BF16; `around` is what the loop runs in."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True)

    def around() -> AbstractContextManager[Any]:
        return torch.autocast(device, torch.bfloat16) if sick else nullcontext()

    def step(batch: Batch) -> Tensor:
        x, y = batch
        with torch.autocast(device, torch.bfloat16):
            loss = F.mse_loss(model(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Case(step, model, optimizer, batch=(x, y), around=around,
                signs=lambda: {"weight": model.weight.mean().item()})  # fmt: skip


PATIENT = Patient(
    name="one-autocast",
    complaint="The loss is the same number at every step, to the last digit. Gradients are there, the optimizer steps.",
    thread="X-GenGroup/Flow-Factory#186",
    form="iteration",
    silent=True,
    kind="stale cast",
    where="autocast",
    because="autocast keeps the 16-bit copy of each weight until its outermost block ends. Here that block is around "
    "the whole loop, so every forward pass uses the copy of step 0. The FP32 weights move, step after step in the "
    "direction of the same old gradient, and the model never sees it.",
    cure="One autocast block per forward pass, none around the loop.\n"
    "for batch in loader:\n    with torch.autocast(device, torch.bfloat16):\n        loss = ...",
    build=build,
)
