"""Operations of ordinary models, each fed with a float32 tensor or with the result of a matrix product.

`OPS` maps a name to a function of `Feed`. Under autocast some of them come out in the low dtype, some in float32.
CUDA's lists are the ones that the emulation follows; the CPU's are shorter, and `CPU_STAYS_LOW` names the difference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class Feed:
    """Small fixed tensors on one device. `low` and `image` are made anew by a matrix product at every access."""

    def __init__(self, device: str = "cpu") -> None:
        draw = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw).to(device)

        self.x, self.square, self.pixels = normal(4, 8), normal(8, 8), normal(2, 3, 8, 8)
        self.kernel, self.cube, self.slope = normal(4, 3, 3, 3), normal(3, 8, 8), normal(1)
        self.labels = torch.tensor([0, 1, 2, 3], device=device)

    @property
    def low(self) -> Tensor:
        return F.linear(self.x, self.square)

    @property
    def image(self) -> Tensor:
        return F.conv2d(self.pixels, self.kernel)


OPS: dict[str, Callable[[Feed], Tensor]] = {
    # matrix work
    "linear": lambda f: f.low,
    "matmul": lambda f: f.x @ f.square,
    "bmm": lambda f: torch.bmm(f.x[None], f.square[None]),
    "baddbmm": lambda f: torch.baddbmm(f.x[None], f.x[None], f.square[None]),
    "addmm": lambda f: torch.addmm(f.x, f.x, f.square),
    "mv": lambda f: torch.mv(f.square, f.x[0]),
    "einsum": lambda f: torch.einsum("ij,jk->ik", f.x, f.square),
    "multi_dot": lambda f: torch.linalg.multi_dot([f.x, f.square, f.square]),
    "linalg.matmul": lambda f: torch.linalg.matmul(f.x, f.square),
    "inner": lambda f: torch.inner(f.x, f.square),
    "tensordot": lambda f: torch.tensordot(f.x, f.square, 1),
    "bilinear": lambda f: F.bilinear(f.x, f.x, f.cube),
    "conv2d": lambda f: f.image,
    "conv_transpose2d": lambda f: F.conv_transpose2d(f.pixels, f.kernel.transpose(0, 1)),
    "attention": lambda f: F.scaled_dot_product_attention(f.x[None], f.x[None], f.x[None]),
    "prelu": lambda f: F.prelu(f.low, f.slope.abs()),
    "dot": lambda f: torch.dot(f.x[0], f.x[1]),
    # elementwise
    "relu": lambda f: F.relu(f.low),
    "relu in place": lambda f: F.relu(f.low, inplace=True),
    "relu of float32": lambda f: F.relu(f.x),
    "gelu": lambda f: F.gelu(f.low),
    "silu in place": lambda f: F.silu(f.low, inplace=True),
    "sigmoid": lambda f: torch.sigmoid(f.low),
    "tanh": lambda f: f.low.tanh(),
    "glu": lambda f: F.glu(f.low),
    "dropout in eval": lambda f: F.dropout(f.low, training=False),
    "times a number": lambda f: f.low * 2.5,
    "times a 0-dim tensor": lambda f: f.low * f.slope[0],
    "low + low": lambda f: f.low + f.low,
    "low + float32": lambda f: f.low + f.x,
    "low += float32": lambda f: f.low.add_(f.x),
    "float32 += low": lambda f: f.x.clone().add_(f.low),
    "where": lambda f: torch.where(f.x > 0, f.low, f.low),
    "masked_fill": lambda f: f.low.masked_fill(f.x > 0, -1.0),
    "zeros_like": lambda f: torch.zeros_like(f.low),
    # shapes
    "flatten": lambda f: f.image.flatten(1),
    "transpose, reshape": lambda f: f.low.t().reshape(-1),
    "contiguous": lambda f: f.low.t().contiguous(),
    "index": lambda f: f.low[1],
    "chunk": lambda f: f.low.chunk(2)[1],
    "unbind": lambda f: f.low.unbind()[0],
    "max over a dimension": lambda f: f.low.max(1).values,
    "topk": lambda f: f.low.topk(2)[0],
    "detach": lambda f: f.low.detach(),
    "cat low": lambda f: torch.cat([f.low, f.low]),
    "cat mixed": lambda f: torch.cat([f.low, f.x]),
    "stack low": lambda f: torch.stack([f.low, f.low]),
    "stack mixed": lambda f: torch.stack([f.low, f.x]),
    "pad": lambda f: F.pad(f.low, (1, 1)),
    "embedding": lambda f: F.embedding(f.labels, f.square),
    # conversions that ask for float32
    "float()": lambda f: f.low.float(),
    "to(torch.float32)": lambda f: f.low.to(torch.float32),
    "to(device, torch.float32)": lambda f: f.low.to(f.x.device, torch.float32),
    "to(another tensor)": lambda f: f.low.to(f.x),
    "type_as": lambda f: f.low.type_as(f.x),
    "double()": lambda f: f.low.double(),
    # pooling and normalization
    "max_pool2d": lambda f: F.max_pool2d(f.image, 2),
    "avg_pool2d": lambda f: F.avg_pool2d(f.image, 2),
    "adaptive_avg_pool2d": lambda f: F.adaptive_avg_pool2d(f.image, 1),
    "interpolate, nearest": lambda f: F.interpolate(f.image, scale_factor=2),
    "interpolate, bilinear": lambda f: F.interpolate(f.image, scale_factor=2, mode="bilinear"),
    "batch_norm": lambda f: F.batch_norm(f.image, None, None, training=True),
    "batch_norm of float32": lambda f: F.batch_norm(f.pixels, None, None, training=True),
    "instance_norm": lambda f: F.instance_norm(f.image),
    "layer_norm": lambda f: F.layer_norm(f.low, (8,)),
    "group_norm": lambda f: F.group_norm(f.image, 2),
    "local_response_norm": lambda f: F.local_response_norm(f.image, 2),
    "normalize": lambda f: F.normalize(f.low),
    # reductions and exponentials
    "mean": lambda f: f.low.mean(),
    "var": lambda f: f.low.var(),
    "var_mean": lambda f: torch.var_mean(f.low)[1],
    "amax": lambda f: f.low.amax(),
    "sum": lambda f: f.low.sum(),
    "prod": lambda f: f.low.prod(),
    "cumsum": lambda f: f.low.cumsum(0),
    "logsumexp": lambda f: f.low.logsumexp(0),
    "norm": lambda f: f.low.norm(),
    "linalg.vector_norm": lambda f: torch.linalg.vector_norm(f.low),
    "softmax": lambda f: F.softmax(f.low, -1),
    "log_softmax": lambda f: F.log_softmax(f.low, -1),
    "softplus": lambda f: F.softplus(f.low),
    "exp": lambda f: f.low.exp(),
    "log": lambda f: f.low.abs().log(),
    "** 2": lambda f: f.low**2,
    "square": lambda f: f.low.square(),
    "asin": lambda f: torch.asin(f.low.sigmoid()),
    "1 / x": lambda f: 1 / f.low,
    "rsqrt": lambda f: f.low.abs().rsqrt(),
    "sqrt": lambda f: f.low.abs().sqrt(),
    "cosine_similarity": lambda f: F.cosine_similarity(f.low, f.low),
    "cdist": lambda f: torch.cdist(f.low, f.low),
    # losses
    "cross_entropy": lambda f: F.cross_entropy(f.low, f.labels),
    "nll_loss": lambda f: F.nll_loss(f.low, f.labels),
    "mse_loss": lambda f: F.mse_loss(f.low, f.x),
    "l1_loss": lambda f: F.l1_loss(f.low, f.x),
    "multi_margin_loss": lambda f: F.multi_margin_loss(f.low, f.labels),
    "multilabel_margin_loss": lambda f: F.multilabel_margin_loss(f.low[:, :4], f.labels.expand(4, 4)),
    "binary_cross_entropy_with_logits": lambda f: F.binary_cross_entropy_with_logits(f.low, f.x.sigmoid()),
}
