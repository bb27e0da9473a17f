"""A loss of Inf."""

import torch
from torch import Tensor, nn

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """L1 regression with 256 outputs, all in FP16."""

    class L1(nn.Module):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            error = (output - target).abs()
            return error.sum() / error.numel() if sick else error.mean()

    torch.manual_seed(seed)
    model = nn.ModuleDict({"output": nn.Linear(8, 256), "criterion": L1()}).half().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=40.0)
    x = torch.randn(128, 8).to(device).half()
    y = 2 * x.sum(1, keepdim=True).expand(-1, 256)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        loss: Tensor = model["criterion"](model["output"](x), y)
        loss.backward()
        return loss

    return Case(step, model, optimizer, batch=(x, y), update=optimizer.step)


PATIENT = Patient(
    name="sum-before-mean",
    complaint="The loss is Inf for the first steps and then comes back by itself.",
    thread="chainer/chainer#6702",
    form="pass",
    silent=False,
    kind="overflow",
    where="criterion",
    because="The mean error is about 4.5, but it is made of a sum over 128 x 256 = 32,768 numbers: 147,000, "
    "beyond the 65,504 of FP16. Inf / 32,768 is Inf. The gradient of a sum is 1 whatever the sum, so "
    "training goes on behind the Inf, until the errors add up to less.",
    cure="Take the mean, which adds up in FP32, or leave FP16 before the sum.\nerror.mean()",
    build=build,
)
