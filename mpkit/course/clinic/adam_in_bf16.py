"""Adam's second moment stands still."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """L1 regression on noise, on its second day: 400 steps are behind it, so that beta2's average is half full."""
    torch.manual_seed(seed)
    model = nn.Linear(4, 1, bias=False).to(device, torch.bfloat16 if sick else torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.randint(0, 2, (64, 1, 4)).to(device) * 2.0 - 1
    y = torch.randint(0, 2, (64, 1, 1)).to(device) * 20.0 - 10
    number = 0

    def step(batch: Batch) -> Tensor:
        x, y = (part.to(model.weight.dtype) for part in batch)
        loss = F.l1_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for number in range(400):
        step((x[number % 64], y[number % 64]))

    def signs() -> dict[str, float]:
        return {"second moment": optimizer.state[model.weight]["exp_avg_sq"].mean().item()}

    return Case(step, model, optimizer, batch=(x[0], y[0]), signs=signs, stream=lambda k: (x[k % 64], y[k % 64]))


PATIENT = Patient(
    name="adam-in-bf16",
    complaint="Gradients have size 1, always. Adam's second moment should go to 1 and stopped at 0.5.",
    thread="NVIDIA-NeMo/Automodel#2248",
    form="iteration",
    silent=True,
    kind="lost update",
    where="exp_avg_sq",
    because="With beta2 = 0.999 one step adds 0.001 x g^2 = 0.001 to the second moment. It is in BF16, and from 0.5 on "
    "neighbours there are 1/256 = 0.0039 apart: 0.001 is below half of that and is rounded away. So it stays at half "
    "of g^2, and in the long run every step of Adam is 1.4 times too long.",
    cure="Keep Adam's state in FP32: FP32 weights under autocast, or an optimizer with FP32 state.\n"
    "model.float(); with torch.autocast(device, torch.bfloat16): ...",
    build=build,
)
