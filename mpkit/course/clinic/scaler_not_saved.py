"""A run that stands still after every restart."""

import io

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """FP16 regression, trained for 20 steps, saved, loaded, and trained on."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=5e-6)
    scaler = torch.amp.GradScaler(device)
    x = torch.randn(64, 8).to(device)
    y = x.sum(1, keepdim=True) + torch.randn(64, 1).to(device)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = 100 * F.mse_loss(model(x).float(), y, reduction="sum")
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    for _ in range(20):
        step((x, y))
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if not sick:
        saved["scaler"] = scaler.state_dict()
    torch.save(saved, file := io.BytesIO())

    state = torch.load(io.BytesIO(file.getvalue()), map_location=device)
    scaler = torch.amp.GradScaler(device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state.get("scaler", scaler.state_dict()))
    return Case(step, model, optimizer, scaler, batch=(x, y), state=state)


PATIENT = Patient(
    name="scaler-not-saved",
    complaint="I restart from a checkpoint every night. Each time the loss stands still for some steps before it goes "
    "on, and the run does not repeat the one without a restart.",
    thread="allenai/tango#154",
    form="checkpoint",
    silent=True,
    kind="loss scale",
    where="scaler",
    because="The checkpoint has the model and the optimizer, not the scaler. After a restart the scale is 65,536 "
    "again, where the run had come down to 2 or 4: some 14 steps overflow and are skipped until it is there again.",
    cure="Save the scaler with the rest, and load it.\n"
    'torch.save({..., "scaler": scaler.state_dict()}, path); scaler.load_state_dict(state["scaler"])',
    build=build,
)
