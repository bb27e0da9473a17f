"""A head that nobody trains."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Fine-tuning: a frozen body, and a new head in place of the old one."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"body": nn.Linear(8, 32), "head": nn.Linear(32, 10)}).to(device)
    model["body"].requires_grad_(False)
    if sick:
        optimizer = torch.optim.SGD(model["head"].parameters(), lr=0.1)
    model["head"] = nn.Linear(32, 1).to(device)  # the new task has one output
    if not sick:
        optimizer = torch.optim.SGD(model["head"].parameters(), lr=0.1)
    x = torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        with torch.autocast(device, torch.bfloat16):
            loss = F.mse_loss(model["head"](model["body"](x).relu()).float(), y)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def signs() -> dict[str, float]:
        return {"gradient of the head": model["head"].weight.grad.norm().item()}

    return Case(step, model, optimizer, batch=(x, y), signs=signs)


PATIENT = Patient(
    name="other-parameters",
    complaint="I gave the network a new head, and the loss does not move. I suspect BF16: the gradients are fine.",
    thread="spro/practical-pytorch#9",
    form="iteration",
    silent=True,
    kind="not trained",
    where="head",
    because="The optimizer was built before the head was replaced. It holds the two tensors of the old head, which get "
    "no gradient any more, and none of the new one. step() runs and changes nothing; FP32 would show the same.",
    cure="Build the optimizer after the last change of the model.\n"
    "model.head = nn.Linear(32, 1); optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)",
    build=build,
)
