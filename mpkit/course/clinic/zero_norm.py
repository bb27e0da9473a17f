"""A layer that returns nothing but zeros."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """A hidden layer in FP16 with large activations, a norm written by hand, a head."""

    class RMSNorm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            wide = x if sick else x.float()
            return x * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6).to(x.dtype)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 64).half()
            self.norm = RMSNorm()
            self.head = nn.Linear(64, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.inner(x.half())).float())

    torch.manual_seed(seed)
    model = Net().to(device)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.01)
    x = 2000 * torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True) / 4000

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    def signs() -> dict[str, float]:
        return {"gradient of the head": model.head.weight.grad.norm().item()}

    return Case(step, model, optimizer, batch=(x, y), signs=signs, update=optimizer.step)


PATIENT = Patient(
    name="zero-norm",
    complaint="The model says the same for every input. No NaN anywhere, no Inf in any layer's output.",
    thread="pytorch/pytorch#133085",
    form="pass",
    silent=True,
    kind="overflow",
    where="norm",
    because="The norm squares its input in FP16. Activations are in the thousands, and the square of anything above "
    "256 is beyond 65,504: Inf. The mean is Inf, 1 / sqrt(Inf) is 0, and x times 0 is 0. The Inf lives inside the norm "
    "only; what comes out is finite.",
    cure="Square in FP32, or use the library's norm, which does.\nx.float().square().mean(-1, keepdim=True)",
    build=build,
)
