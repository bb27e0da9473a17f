"""Twenty lines to take away: give your own training step to mpkit.diagnose, and print what it says.

python examples/diagnose_my_training.py
"""

import torch
from torch import nn
from torch.nn import functional as F

import mpkit

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1)).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scaler = torch.amp.GradScaler(device, init_scale=1024.0)
x = torch.randn(64, 8, device=device)
batch = x, x.sum(1, keepdim=True)


def step(batch):
    """One iteration of a training whose loss falls far too slowly. Replace it by yours."""
    x, y = batch
    optimizer.zero_grad()
    with torch.autocast(device, torch.float16):
        loss = F.mse_loss(model(x).float(), y)
    scaler.scale(loss).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    return loss


print(mpkit.diagnose(step, model=model, optimizer=optimizer, scaler=scaler, batch=batch))
