"""A loss scale that falls to zero."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """A gated layer in FP16; the sigmoid of the gate was written by hand."""

    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast(device, enabled=False):
                return 1 / (1 + torch.exp(-x)) if sick else torch.sigmoid(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.choice, self.gate, self.head = nn.Linear(8, 16), nn.Linear(8, 16), Gate(), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(x) * self.gate(self.choice(x)))

    torch.manual_seed(seed)
    model = Net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    scaler = torch.amp.GradScaler(device)
    x = 12 * torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True) / 12

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
    name="scale-to-zero",
    complaint="Gradient overflow, skipping step, reducing loss scale to 32768. 16384. 8192. It goes on to 0. The loss "
    "is an ordinary number.",
    thread="NVIDIA/apex#834",
    form="iteration",
    silent=True,
    kind="overflow",
    where="gate",
    because="exp(-x) is Inf in FP16 where x is below -11.1. The gate is then 1 / Inf = 0, which is right, so the loss "
    "is fine. Its gradient is 1 / Inf^2 x Inf = 0 x Inf = NaN. No loss scale can cure a NaN of the backward pass: the "
    "scaler halves it 166 times, down to 0.",
    cure="Use torch.sigmoid, or compute the exponential in FP32.\ngate = torch.sigmoid(x)",
    build=build,
    steps=180,
)
