"""NaN for padded sentences only."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpkit.course.clinic.patient import Batch, Case, Patient


def build(sick: bool, seed: int, device: str = "cpu") -> Case:
    """Attention with a causal mask and a mask of the padding; the first two tokens are padding."""
    floor = torch.finfo(torch.float16).min
    causal = torch.full((16, 16), floor, device=device).triu(1).half()
    padding = torch.tensor([floor] * 2 + [0.0] * 14, device=device).half()
    combine = torch.add if sick else torch.minimum

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.query(x), self.key(x), self.value(x)
            mask = combine(causal, combine(padding[:, None], padding))  # of queries, and of keys
            return (q @ k.mT / 8**0.5 + mask).softmax(-1) @ v

    torch.manual_seed(seed)
    model = nn.ModuleDict({"attention": Attention(), "head": nn.Linear(8, 1)}).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 16, 8).to(device)
    y = x.sum(-1, keepdim=True)

    def step(batch: Batch) -> Tensor:
        x, y = batch
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = F.mse_loss(model["head"](model["attention"](x)).float(), y)
        loss.backward()
        return loss

    return Case(step, model, optimizer, batch=(x, y), update=optimizer.step)


PATIENT = Patient(
    name="masked-twice",
    complaint="I took care to mask with finfo.min and not with -Inf. Batches with padding on the left are NaN all the "
    "same.",
    thread="huggingface/transformers#17306",
    form="pass",
    silent=False,
    kind="overflow",
    where="attention",
    because="finfo(float16).min is -65,504, the end of the format. Where two masks meet, their sum is -131,008: -Inf. "
    "The row of a padded token is masked as a query, and each of its places once more, as a padded key or as a later "
    "token. So the whole row is -Inf, and softmax of such a row is 0 / 0.",
    cure="Combine masks by minimum, or as booleans, never by a sum.\n"
    "mask = torch.minimum(causal, torch.minimum(padding[:, None], padding))",
    build=build,
)
