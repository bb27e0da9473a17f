"""One loud batch, and the model is gone, although gradients are clipped."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 regression without a scaler, gradients clipped to a norm of 5; one label of batch 12 is a typing error."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.randn(40, 64, 8).to(device)
    y = x.sum(-1, keepdim=True)
    y[12, 0] = 1e7

    def step(batch: Batch) -> Tensor:
        x, y = batch
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        if sick or norm.isfinite():
            optimizer.step()
        return loss

    return Case(step, model, optimizer, batch=(x[12], y[12]), stream=lambda number: (x[number % 40], y[number % 40]))


PATIENT = Patient(
    name="clipped-inf",
    complaint="I clip gradients so that no batch can hurt. At step 12 the loss is large but finite; from step 13 it is "
    "NaN.",
    thread="pytorch/pytorch#46849",
    form="iteration",
    silent=False,
    kind="overflow",
    where="clip_grad_norm_",
    because="A label of 10,000,000 gives a gradient of 2 x 10^7 / 64 = 312,500 at the output: Inf in FP16. The norm is "
    "Inf, and clipping multiplies by 5 / Inf = 0. Inf x 0 is NaN, and the step writes it into the weights. In FP32 the "
    "same batch is clipped as it should be.",
    cure="Look at the norm before the step, or use a GradScaler, which does.\n"
    "norm = clip_grad_norm_(model.parameters(), 5.0)\nif norm.isfinite(): optimizer.step()",
    build=build,
)
