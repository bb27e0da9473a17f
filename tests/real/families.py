"""Small models in the manner of the big families, with random weights: what their code does to numbers is theirs.

Each class takes a batch and returns a loss. `make` gives a model and a batch by the family's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, WORDS, LENGTH, BATCH = 16, 2, 23, 12, 3


def heads(x: Tensor) -> Tensor:
    """(batch, length, width) → (batch, heads, length, width of a head)."""
    return x.view(*x.shape[:2], HEADS, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


# ---- BERT: biases everywhere, masks of finfo.min, layer norm after each part ----


class BertAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm, self.dropout = nn.LayerNorm(WIDTH), nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
        weights = self.dropout(nn.functional.softmax(scores + mask, dim=-1))
        return self.norm(self.out(joined(weights @ value)) + x)


class BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = BertAttention()
        self.up, self.down, self.norm = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.norm(self.down(F.gelu(self.up(x))) + x)


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(BertLayer() for _ in range(2))
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: Tensor, labels: Tensor, attend: Tensor) -> Tensor:
        x = self.norm(self.words(tokens) + self.places(torch.arange(tokens.shape[1])))
        mask = (1.0 - attend[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return F.cross_entropy(self.head(x).view(-1, WORDS).float(), labels.view(-1), ignore_index=-100)


# ---- T5: relative buckets with log(0), masks that are added twice ----


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6)).to(x.dtype)


class T5Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.bias = nn.Embedding(8, HEADS)

    def buckets(self, length: int, count: int = 8, farthest: int = 20) -> Tensor:
        distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
        bucket = (distance < 0).to(torch.long) * (count // 2)
        count //= 2
        distance, exact = distance.abs(), count // 2
        large = exact + (torch.log(distance.float() / exact) / math.log(farthest / exact) * (count - exact)).to(
            torch.long
        )
        large = torch.min(large, torch.full_like(large, count - 1))
        return bucket + torch.where(distance < exact, distance, large)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = torch.matmul(heads(self.q(x)), heads(self.k(x)).transpose(3, 2))
        position = self.bias(self.buckets(x.shape[1])).permute([2, 0, 1]).unsqueeze(0)
        scores += position + mask
        weights = F.softmax(scores.float(), dim=-1).type_as(scores)
        return self.o(joined(weights @ heads(self.v(x))))


class T5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.attention, self.norm1, self.norm2 = T5Attention(), RMSNorm(), RMSNorm()
        self.gate, self.up, self.down = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, tokens: Tensor, labels: Tensor, attend: Tensor) -> Tensor:
        x = self.words(tokens)
        padding = (1.0 - attend[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        causal = torch.full((x.shape[1], x.shape[1]), torch.finfo(x.dtype).min).triu(1)
        x = x + self.attention(self.norm1(x), padding + causal)  # -Inf where both masks are
        y = self.norm2(x)
        x = x + self.down(F.gelu(self.gate(y)) * self.up(y))
        logits = (x * WIDTH**-0.5) @ self.words.weight.T
        return F.cross_entropy(logits.view(-1, WORDS), labels.view(-1), ignore_index=-100)


# ---- Llama: RMSNorm, rotary positions in complex numbers, SwiGLU, a mask of -Inf ----


class LlamaAttention(nn.Module):
    first_masked = 1  # of each row; 0 is a known slip: then the first row has nothing left

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        angles = torch.outer(torch.arange(LENGTH).float(), 10000.0 ** -(torch.arange(0, WIDTH // HEADS, 2) / WIDTH))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turns).flatten(3).type_as(x)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.turned(heads(self.q(x))), self.turned(heads(self.k(x))), heads(self.v(x))
        mask = torch.full((LENGTH, LENGTH), float("-inf")).triu(self.first_masked).type_as(x)
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + mask
        return self.o(joined(F.softmax(scores.float(), dim=-1).type_as(query) @ value))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.attention, self.norm1, self.norm2, self.norm3 = LlamaAttention(), RMSNorm(), RMSNorm(), RMSNorm()
        self.w1, self.w2, self.w3 = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, tokens: Tensor, labels: Tensor, attend: Tensor) -> Tensor:
        x = self.words(tokens)
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        x = x + self.w2(F.silu(self.w1(y)) * self.w3(y))
        return F.cross_entropy(self.head(self.norm3(x)).float().view(-1, WORDS), labels.view(-1), ignore_index=-100)


# ---- Swin: windows that are rolled, masks of -100, a table of biases, paths that are dropped ----


class DropPath(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.9)
        mask.div_(0.9)
        return x * mask


class SwinBlock(nn.Module):
    def __init__(self, shift: int, side: int = 4) -> None:
        super().__init__()
        self.shift, self.side = shift, side
        self.norm1, self.norm2, self.drop = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), DropPath()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.table = nn.Parameter(torch.randn((2 * side - 1) ** 2, HEADS) * 0.02)
        place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = (place[:, :, None] - place[:, None, :] + side - 1) * torch.tensor([2 * side - 1, 1])[:, None, None]
        self.register_buffer("index", apart.sum(0).flatten())

    def windows(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        x = x.view(batch, height // self.side, self.side, width // self.side, self.side, channels)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.side**2, channels)

    def mask(self, x: Tensor) -> Tensor:
        zones, count = x.new_zeros((1, *x.shape[1:3], 1)), 0
        for rows in (slice(0, -self.side), slice(-self.side, -self.shift), slice(-self.shift, None)):
            for columns in (slice(0, -self.side), slice(-self.side, -self.shift), slice(-self.shift, None)):
                zones[:, rows, columns] = count
                count += 1
        zones = self.windows(zones).squeeze(-1)
        apart = zones.unsqueeze(1) - zones.unsqueeze(2)
        return apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        windows = self.windows(y)
        query, key, value = self.qkv(windows).reshape(*windows.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        scores = scores + self.table[self.index].view(self.side**2, self.side**2, -1).permute(2, 0, 1).unsqueeze(0)
        if self.shift:
            mask = self.mask(y)
            scores = scores.view(x.shape[0], len(mask), HEADS, self.side**2, self.side**2) + mask[:, None]
            scores = scores.view(-1, HEADS, self.side**2, self.side**2)
        y = self.proj(joined(scores.softmax(-1) @ value))
        many = x.shape[1] // self.side
        y = y.view(-1, many, many, self.side, self.side, WIDTH).permute(0, 1, 3, 2, 4, 5).reshape(x.shape)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + self.drop(y)
        return x + self.drop(self.mlp(self.norm2(x)))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, WIDTH, 2, 2), nn.Sequential(SwinBlock(0), SwinBlock(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.patches(images).permute(0, 2, 3, 1)))
        return F.cross_entropy(self.head(x.mean((1, 2))), labels)


# ---- Mamba: a scan over time with steps of its own size ----


class Mamba(nn.Module):
    sign = -1  # of the decay

    def __init__(self, states: int = 4) -> None:
        super().__init__()
        self.words, self.into, self.norm = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), RMSNorm()
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH, padding=2)
        self.to_bc, self.to_step = nn.Linear(WIDTH, 2 * states, bias=False), nn.Linear(WIDTH, WIDTH)
        self.a_log = nn.Parameter(torch.log(torch.arange(1.0, states + 1).repeat(WIDTH, 1)))
        self.skip, self.out, self.head = (
            nn.Parameter(torch.ones(WIDTH)),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, WORDS),
        )

    def scan(self, x: Tensor) -> Tensor:
        into, read = self.to_bc(x).chunk(2, dim=-1)
        step = F.softplus(self.to_step(x)).float()
        keep = torch.exp(step.unsqueeze(-1) * self.sign * torch.exp(self.a_log.float()))
        add = step.unsqueeze(-1) * into.unsqueeze(2) * x.unsqueeze(-1)
        state, result = x.new_zeros(x.shape[0], WIDTH, self.a_log.shape[1]), torch.zeros_like(x)
        for t in range(x.shape[1]):
            state = keep[:, t] * state + add[:, t]
            result[:, t] = (state * read[:, t].unsqueeze(1)).sum(-1).to(result.dtype)
        return result + x * self.skip

    def forward(self, tokens: Tensor, labels: Tensor, attend: Tensor) -> Tensor:
        start = self.words(tokens)
        x, gate = self.into(self.norm(start)).chunk(2, dim=-1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., :LENGTH].transpose(1, 2))
        x = start + self.out(self.scan(x) * F.silu(gate))
        return F.cross_entropy(self.head(x).view(-1, WORDS), labels.view(-1), ignore_index=-100)


# ---- a mixture of experts, some of which get nothing ----


class Mixture(nn.Module):
    careful = True  # with 0 · log(0)

    def __init__(self, experts: int = 6) -> None:
        super().__init__()
        self.words, self.router = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)) for _ in range(experts)
        )
        nn.init.constant_(self.router.bias[-2:], -100.0)  # nobody comes to the last two
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: Tensor, labels: Tensor, attend: Tensor) -> Tensor:
        start = self.words(tokens).view(-1, WIDTH)
        x = self.norm(start)
        chances = F.softmax(self.router(x), dim=1, dtype=torch.float)
        weights, chosen = chances.topk(2, dim=-1)
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(x.dtype)
        result = torch.zeros_like(start)
        for number, expert in enumerate(self.experts):
            rows, which = torch.where(chosen == number)
            result.index_add_(0, rows, (expert(x[rows]) * weights[rows, which, None]).to(result.dtype))
        load = F.one_hot(chosen, len(self.experts)).float().mean((0, 1))
        entropy = torch.log(load) * load
        if self.careful:
            entropy = torch.where(load > 0, entropy, torch.zeros_like(load))
        balance = (load * chances.mean(0)).sum() * len(self.experts) + 0.01 * entropy.sum()
        logits = self.head(start + result)
        return F.cross_entropy(logits, labels.view(-1), ignore_index=-100) + 0.01 * balance


# ---- an LSTM cell, written out ----


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.gates = nn.Linear(2 * WIDTH, 4 * WIDTH)

    def forward(self, tokens: Tensor, labels: Tensor, attend: Tensor) -> Tensor:
        words = self.words(tokens)
        hidden = cell = words.new_zeros(len(tokens), WIDTH)
        states = []
        for t in range(tokens.shape[1]):
            enter, forget, new, leave = self.gates(torch.cat([words[:, t], hidden], -1)).chunk(4, -1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
            states.append(hidden)
        logits = self.head(torch.stack(states, 1))
        return F.cross_entropy(logits.view(-1, WORDS), labels.view(-1), ignore_index=-100)


# ---- a vision transformer around nn.MultiheadAttention ----


class VitBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, WIDTH, 4, 4), nn.Sequential(VitBlock(), VitBlock())
        self.start, self.places = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 17, WIDTH) * 0.02)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1).to(x.dtype), x], dim=1) + self.places
        return F.cross_entropy(self.head(self.norm(self.blocks(x))[:, 0]), labels)


# ---- a U-Net with batch norm and activations in place ----


def convolutions(channels: int, result: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, result, 3, padding=1, bias=False), nn.BatchNorm2d(result), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.low = convolutions(3, 8), convolutions(8, 16), convolutions(16, 16)
        self.up = nn.ConvTranspose2d(16, 16, 2, 2)
        self.up2, self.up1, self.head = convolutions(32, 8), convolutions(16, 8), nn.Conv2d(8, 1, 1)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        first = self.down1(images)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.up2(torch.cat([second, self.up(self.low(F.max_pool2d(second, 2)))], 1))
        x = self.up1(torch.cat([first, F.interpolate(x, scale_factor=2.0, mode="bilinear")], 1))
        logits = self.head(x).float()[:, 0]
        target = (images[:, 0] > 0).float()
        chances = logits.sigmoid()
        dice = 1 - (2 * (chances * target).sum() + 1) / (chances.sum() + target.sum() + 1)
        return F.binary_cross_entropy_with_logits(logits, target) + dice


TEXT: dict[str, Callable[[], nn.Module]] = {
    "bert": Bert, "t5": T5, "llama": Llama, "mamba": Mamba, "mixture": Mixture, "lstm": Lstm,
}  # fmt: skip
IMAGES: dict[str, Callable[[], nn.Module]] = {"swin": Swin, "vit": Vit, "unet": UNet}
FAMILIES = (*TEXT, *IMAGES)


def make(family: str, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model of this family and a batch for it."""
    torch.manual_seed(seed)
    if family in IMAGES:
        return IMAGES[family](), (torch.randn(BATCH, 3, 16, 16), torch.arange(BATCH))
    tokens = torch.randint(1, WORDS, (BATCH, LENGTH))
    attend = torch.ones_like(tokens)
    attend[1, -4:] = attend[2, -1:] = 0
    return TEXT[family](), (tokens, torch.where(attend > 0, tokens.roll(-1, 1), -100), attend)
