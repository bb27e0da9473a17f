"""A small transformer in plain PyTorch: it reads tokens and predicts tokens, the next ones or the hidden ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpkit.course.nets.attention import ATTENTION, Attention
from mpkit.course.nets.text import IGNORED as IGNORED


class Block(nn.Module):
    """Attention, then a two-layer network, each added to its input (pre-norm: Xiong et al. 2020, arXiv 2002.04745)."""

    def __init__(self, width: int, heads: int, causal: bool, attention: Attention) -> None:
        super().__init__()
        self.heads, self.causal, self.attention = heads, causal, attention
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, context, width) to the same shape."""
        batch, context, width = x.shape
        parts = self.qkv(self.attention_norm(x)).view(batch, context, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.attention(query, key, value, self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, context, width))
        out: Tensor = x + self.down(F.gelu(self.up(self.network_norm(x))))
        return out


class Transformer(nn.Module):
    """Tokens (batch, context), int64, to logits (batch, context, vocabulary).

    Args:
        vocabulary: how many different tokens there are.
        width, layers, heads: of the blocks; `width` is a multiple of `heads`.
        context: the longest sequence.
        causal: True lets a place see only those before it (GPT); False all of them (BERT).
        attention: a name from `mpkit.course.nets.attention.ATTENTION`: the fused kernel, or one that is written out.
        seed: of the first weights: normal, standard deviation 0.02 (Radford et al. 2019, section 2.3), zero bias.

    Raises:
        ValueError: `width` is no multiple of `heads`; the attention is unknown; in the forward pass, a sequence is
            too long.
    """

    def __init__(
        self, vocabulary: int, width: int = 64, layers: int = 2, heads: int = 4, context: int = 64, causal: bool = True,
        attention: str = "fused", seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % heads:
            raise ValueError(
                f"width {width} is no multiple of heads {heads}; use, for example, {width // heads * heads}."
            )
        if attention not in ATTENTION:
            raise ValueError(f"attention {attention!r} is unknown; use one of {', '.join(ATTENTION)}.")
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, causal, ATTENTION[attention]) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        draw = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02, generator=draw)
            elif "norm" not in name:
                nn.init.zeros_(p)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next (causal) or of the same place's token."""
        context = tokens.shape[1]
        if context > self.places.num_embeddings:
            raise ValueError(
                f"a sequence of {context} tokens came, but the model knows {self.places.num_embeddings} places; cut it."
            )
        x = self.tokens(tokens) + self.places.weight[:context]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats over all places whose target is not IGNORED."""
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
