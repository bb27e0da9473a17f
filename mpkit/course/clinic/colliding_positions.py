"""A model that cannot tell neighbours apart in long texts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Tell even places of a text of 1,024 tokens from odd ones, by cosine and sine of the position."""

    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frequency = torch.pi / 2 ** torch.arange(8)

        def forward(self, length: int, device: str) -> Tensor:
            place = torch.arange(length, device=device, dtype=torch.bfloat16 if sick else torch.float32)
            angle = place.float()[:, None] * self.frequency.to(device)
            return torch.cat((angle.cos(), angle.sin()), dim=1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rotary = Rotary()
            self.head = nn.Linear(16, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            places: Tensor = self.rotary(len(tokens), device)
            return self.head(places) + 0 * tokens[:, None]

    torch.manual_seed(seed)
    model = Net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    tokens, labels = torch.randn(1024).to(device), torch.arange(1024, device=device) % 2

    def step(batch: Batch) -> Tensor:
        tokens, labels = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens), labels)
        loss.backward()
        return loss

    @torch.no_grad()
    def signs() -> dict[str, float]:
        right = model(tokens).argmax(1) == labels
        return {
            "right up to 256": right[:256].float().mean().item(),
            "right from 512": right[512:].float().mean().item(),
        }

    return Case(step, model, optimizer, batch=(tokens, labels), signs=signs, update=optimizer.step)


PATIENT = Patient(
    name="colliding-positions",
    complaint="In short texts most is right. In long ones the model mixes up neighbours. More training does not help.",
    thread="huggingface/transformers#29285",
    form="pass",
    silent=True,
    kind="lost integer",
    where="rotary",
    because="Positions are counted in BF16, which has 8 bits for a number: every integer up to 256, every second one "
    "up to 512, every fourth up to 1,024. Of 1,024 positions 513 are distinct, so neighbours get the same cosine.",
    cure="Count in integers or FP32, and cast the cosine.\nplace = torch.arange(length, device=device).float()",
    build=build,
)
