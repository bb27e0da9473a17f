"""A loss that is never the same twice."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Add up rows by their group in a block of memory, as a hand-written kernel does.

    `block` plays the allocator: it gives the same memory again, with what the last call has left there.
    """

    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = torch.zeros(16, 8, device=device)

        def forward(self, x: Tensor, group: Tensor) -> Tensor:
            rows = self.block if sick else torch.zeros_like(self.block)
            rows = rows.index_add(0, group, x)
            self.block = rows.detach()
            return rows

    torch.manual_seed(seed)
    model = nn.ModuleDict({"pool": Pool(), "head": nn.Linear(8, 1)}).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    x, group = torch.randn(64, 8).to(device), torch.arange(64, device=device) % 16
    y = x.view(4, 16, 8).sum(0).tanh().sum(1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = F.mse_loss(model["head"](model["pool"](x, group).tanh()).float(), y)
        loss.backward()
        return loss

    return Case(step, model, optimizer, batch=(x, y), update=optimizer.step)


PATIENT = Patient(
    name="left-over-memory",
    complaint="I run the same batch through the same weights, with all seeds set, and get another loss each "
    "time. Is BF16 that noisy?",
    thread="pytorch/FBGEMM#5754",
    form="pass",
    silent=True,
    kind="not repeatable",
    where="pool",
    because="The rows are added to a block that nobody has set to zero: what the last call left there is still in it, "
    "so the second call adds to the result of the first. Rounding in BF16 is the same each time if sums are added in "
    "the same order; in another order, as on a GPU, it moves the last digits, not the second.",
    cure="Set to zero what will be added to.\nrows = torch.zeros_like(block)  # not torch.empty",
    build=build,
)
