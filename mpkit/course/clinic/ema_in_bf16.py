"""The averaged model does not follow the trained one."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Fine-tuning from weights near 1 to weights near 1.12, with an average of the weights."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1, bias=False)
    nn.init.normal_(model.weight, 1.0, 0.01)
    model.to(device)
    ema = copy.deepcopy(model).to(torch.bfloat16 if sick else torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.randn(64, 8).to(device)
    y = 1.12 * x.sum(1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for average, weight in zip(ema.parameters(), model.parameters(), strict=True):
                average.lerp_(weight.to(average.dtype), 0.01)
        return loss

    @torch.no_grad()
    def signs() -> dict[str, float]:
        return {"eval loss of the average": F.mse_loss(x @ ema.weight.float().T, y).item()}

    return Case(step, model, optimizer, ema=ema, batch=(x, y), signs=signs)


PATIENT = Patient(
    name="ema-in-bf16",
    complaint="The model learns, its moving average does not: samples from the average look as on the first day.",
    thread="d8ahazard/sd_dreambooth_extension#1415",
    form="iteration",
    silent=True,
    kind="lost update",
    where="ema",
    because="The average holds weights near 1 in BF16, where neighbours are 1/128 apart (1/256 below 1). Each step "
    "moves it by 0.01 x (1.12 - 1) = 0.0012 at most. Half of the smaller gap is 0.00195, so it rounds back to where it "
    "was, every time.",
    cure="Keep the average in FP32, whatever the model is in.\nema = copy.deepcopy(model).float()",
    build=build,
)
