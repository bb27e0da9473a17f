"""A script of forty lines without a NaN in it. Something in it is wrong, and exercise 10.2 asks what."""

import inspect

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batches = list[tuple[Tensor, Tensor]]


def train(model: nn.Module, batches: Batches, held_out: tuple[Tensor, Tensor], epochs: int = 20) -> list[float]:
    """Train in FP16, and return the held-out loss after each epoch."""
    device = next(model.parameters()).device.type
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    losses = []
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            with torch.autocast(device, torch.float16):
                loss = F.mse_loss(model(x).float(), y)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() >= before:
                schedule.step()
        losses.append(evaluate(model, held_out))
    return losses


def evaluate(model: nn.Module, held_out: tuple[Tensor, Tensor]) -> float:
    """The loss on data that are not trained on."""
    x, y = held_out
    model.eval()
    model.half()
    with torch.no_grad():
        loss = F.mse_loss(model(x.half()).float(), y)
    model.float()
    model.train()
    return loss.item()


HEAD = (
    "import torch\nfrom torch import Tensor, nn\nfrom torch.nn import functional as F\n\n"
    "Batches = list[tuple[Tensor, Tensor]]\n"
)
SOURCE = "\n\n".join((HEAD, inspect.getsource(train), inspect.getsource(evaluate)))
LINES = [line.partition("  # type:")[0] for line in SOURCE.splitlines()]


def listing() -> str:
    """The script with its lines numbered."""
    return "\n".join(f"{number:2} {line}".rstrip() for number, line in enumerate(LINES, 1))


def toy(device: str) -> tuple[nn.Module, Batches, tuple[Tensor, Tensor]]:
    """What the script trains: weights near 1 that should become 1.01; two batches an epoch."""
    draw = torch.Generator().manual_seed(0)
    model = nn.Linear(16, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    x = torch.randn(3, 64, 16, generator=draw).to(device)
    y = 1.01 * x.sum(-1, keepdim=True)
    return model.to(device), [(x[0], y[0]), (x[1], y[1])], (x[2], y[2])
