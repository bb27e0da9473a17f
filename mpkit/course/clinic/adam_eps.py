"""NaN after the first step of Adam."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """A model in pure FP16; the last feature of the data is not used, it is always 0."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"head": nn.Linear(8, 1)}).half().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, eps=1e-8 if sick else 1e-4)
    x = torch.randn(64, 8).to(device)
    x[:, -1] = 0
    y = x.sum(1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        loss = F.mse_loss(model["head"](x.half()).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def signs() -> dict[str, float]:
        return {"largest gradient": model["head"].weight.grad.abs().max().item()}

    return Case(step, model, optimizer, batch=(x, y), signs=signs)


PATIENT = Patient(
    name="adam-eps",
    complaint="The first loss is fine, its gradients are small and finite. The second loss is NaN. SGD works.",
    thread="afiaka87/glide-finetune#6",
    form="iteration",
    silent=False,
    kind="lost eps",
    where="head",
    because="The weights are FP16, so Adam's state is too, and eps = 1e-8 is 0 there. The unused feature has "
    "gradient 0: its step is 0 / (sqrt(0) + 0) = NaN, and NaN x 0 in the next forward pass is NaN. Where a gradient is "
    "not 0 but small, its square is rounded to 0, and the step is Inf.",
    cure="FP32 weights under autocast; or, in pure FP16, an eps that the format can hold.\n"
    "torch.optim.Adam(model.parameters(), eps=1e-4)",
    build=build,
)
