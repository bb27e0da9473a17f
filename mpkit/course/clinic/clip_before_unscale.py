"""Training that crawls since gradients are clipped."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 regression with gradients clipped to a norm of 5."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    x = torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True)
    norms = [0.0]

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model(x).float(), y)
        scaler.scale(loss).backward()
        if not sick:
            scaler.unscale_(optimizer)
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 5.0).item())
        scaler.step(optimizer)
        scaler.update()
        return loss

    return Case(step, model, optimizer, scaler, batch=(x, y), signs=lambda: {"norm before clipping": norms[-1]})


PATIENT = Patient(
    name="clip-before-unscale",
    complaint="Since I clip gradients, the loss falls a thousand times too slowly. Others use the same limit.",
    thread="milesial/Pytorch-UNet#468",
    form="iteration",
    silent=True,
    kind="order",
    where="clip_grad_norm_",
    because="The gradients are clipped while they still carry the loss scale. Their norm is about 6 x 1,024, "
    "so clipping to 5 divides by 1,200, and the scaler then by 1,024 more: a norm of 0.005 is left where 5 is due. "
    "Adam would hide it.",
    cure="Unscale first.\nscaler.unscale_(optimizer); clip_grad_norm_(model.parameters(), 5.0); scaler.step(optimizer)",
    build=build,
)
