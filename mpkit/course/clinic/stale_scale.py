"""Weights that grow, and a model that does not."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Regression by a linear layer whose weights are multiplied in FP8, E4M3, with one scale."""

    class Linear8(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "amax"):
                self.amax = self.weight.detach().abs().max()
            amax = self.amax if sick else self.weight.detach().abs().max()
            scale = 448 / amax
            self.fp8 = (self.weight * scale).clamp(-448, 448).to(torch.float8_e4m3fn)
            rounded = self.fp8.to(x.dtype) / scale
            return F.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)

    torch.manual_seed(seed)
    model = nn.ModuleDict({"linear8": Linear8(8, 1)}).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.randn(64, 8).to(device)
    y = (x * torch.linspace(0.5, 3, 8, device=device)).sum(1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        loss = F.mse_loss(model["linear8"](x), y)
        loss.backward()
        return loss

    def signs() -> dict[str, float]:
        layer = model["linear8"]
        at_the_end = (layer.fp8.float().abs() == 448).float().mean().item()
        return {"largest weight": layer.weight.abs().max().item(), "share at 448": at_the_end}

    return Case(step, model, optimizer, batch=(x, y), signs=signs, update=optimizer.step)


PATIENT = Patient(
    name="stale-scale",
    complaint="FP8 training. The loss falls a little and stops. The FP32 weights go on growing, they are many times "
    "as large by now.",
    thread="NVIDIA/TransformerEngine#1047",
    form="pass",
    silent=True,
    kind="saturated",
    where="linear8",
    because="The scale was computed once, from the weights of step 0, which were below 0.36. E4M3 ends at 448 and has "
    "no Inf: weights that outgrow the first ones are all set to 448. In the end nearly every weight that is "
    "multiplied is 448 / scale, whatever the FP32 weight says.",
    cure="A scale from the tensor of today, or from the last few steps.\nscale = 448 / weight.abs().max()",
    build=build,
    after=40,
)
