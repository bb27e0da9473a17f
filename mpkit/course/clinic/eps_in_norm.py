"""NaN for empty inputs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 activations, a layer norm written by hand; the last row of the batch is padding, all zeros."""

    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            eps = 1e-12 if sick else 1e-5
            centred = x - x.mean(-1, keepdim=True)
            return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = Norm(), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(x.half()).float())

    torch.manual_seed(seed)
    model = Net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(32, 16).to(device)
    x[-1] = 0
    y = F.layer_norm(x, (16,))[:, :8].sum(1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    return Case(step, model, optimizer, batch=(x, y), update=optimizer.step)


PATIENT = Patient(
    name="eps-in-norm",
    complaint="NaN as soon as a batch has a padded row. There is an eps in the norm, so it cannot divide by zero.",
    thread="pytorch/pytorch#41527",
    form="pass",
    silent=False,
    kind="lost eps",
    where="norm",
    because="The smallest number of FP16 is 6e-8, so 0 + 1e-12 is 0. A row of zeros has variance 0: 0 / sqrt(0) is "
    "NaN. In FP32 and in BF16 the same eps works, for both reach down to 1e-38.",
    cure="An eps that FP16 can hold, or a norm that computes in FP32.\neps = 1e-5",
    build=build,
)
