"""A batch after which everything is NaN."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Token classification in BF16 autocast; of batch 12 all labels are -100, the sign of a prompt."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 4).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x = torch.randn(40, 32, 8).to(device)
    labels = x[..., :4].argmax(-1)
    labels[:, :8] = -100
    labels[12] = -100

    def step(batch: Batch) -> Tensor:
        x, labels = batch
        with torch.autocast(device, torch.bfloat16):
            losses = F.cross_entropy(model(x).float(), labels.clamp(min=0), reduction="none")
        counts = labels != -100
        number = counts.sum() if sick else counts.sum().clamp(min=1)
        loss = (losses * counts).sum() / number
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Case(step, model, optimizer, batch=(x[12], labels[12]),
                stream=lambda number: (x[number % 40], labels[number % 40]))  # fmt: skip


PATIENT = Patient(
    name="ignored-labels",
    complaint="NaN in the middle of the epoch, always at the same batch. Since I train in BF16, I blame BF16.",
    thread="NVIDIA-NeMo/Automodel#3796",
    form="iteration",
    silent=False,
    kind="data",
    where="labels",
    because="All 32 labels of batch 12 are -100, so none counts. The loss is 0 / 0 = NaN, and its gradient "
    "1 / 0 x 0 = NaN, which the step writes into the weights. Every format does the same. (The mean of cross_entropy "
    "with ignore_index gives NaN too, but zero gradients.)",
    cure="Divide by at least 1.\nloss = (losses * counts).sum() / counts.sum().clamp(min=1)",
    build=build,
)
