"""A model that was fine when it was saved."""

import io

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """A model from a BF16 training; its first layer has a few very large weights, which the norm takes back."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.head = nn.Linear(8, 64), nn.LayerNorm(64), nn.Linear(64, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.up(x)))

    torch.manual_seed(seed)
    trained = Net().to(device, torch.bfloat16)
    with torch.no_grad():
        trained.up.weight[:4, :2] = 1e5
    torch.save({"model": trained.state_dict()}, file := io.BytesIO())
    x = 0.05 * torch.randn(64, 8).to(device)
    y = trained(x.bfloat16()).detach().float()

    state = torch.load(io.BytesIO(file.getvalue()), map_location=device)
    dtype = torch.float16 if sick else torch.bfloat16
    model = Net().to(device, dtype)
    model.load_state_dict(state["model"])

    @torch.no_grad()
    def step(batch: Batch) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x.to(dtype)).float(), y)

    return Case(step, model, batch=(x, y), state=state)


PATIENT = Patient(
    name="bf16-checkpoint",
    complaint="The checkpoint has no NaN and no Inf, I looked. Every output of the loaded model is NaN.",
    thread="facebookresearch/metaseq#254",
    form="checkpoint",
    silent=False,
    kind="checkpoint",
    where="up.weight",
    because="The checkpoint is in BF16, the model in FP16, and load_state_dict casts without a word. Eight weights of "
    "up.weight are 100,000, which FP16 does not have: they became Inf, and Inf - Inf in the norm is NaN.",
    cure="Load a BF16 checkpoint into a BF16 or an FP32 model.\nmodel = Net().to(torch.bfloat16)",
    build=build,
    steps=3,
)
