"""The operations that are measured: torch's own, on ordinary and on hard inputs, and formulas in FP16 steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mpkit import FP16
from mpkit.course.arithmetic.accumulate import total

Operation = Callable[[Tensor], Tensor]
Inputs = tuple[str, Callable[[Tensor], Tensor]]  # in words, and made of normal noise with standard deviation 1
Shape = tuple[int, ...]

_values = FP16.values()
LARGER = tuple(_values[_values >= 1].tolist())  # every FP16 value from 1 up to 65504
EXPONENTS = tuple(x for x in LARGER if x < 600)  # FP64 can take the exponential of these
SMALLER = tuple(_values[(_values > 0) & (_values < 1)].flip(0).tolist())  # and every positive one below 1
CLASS = torch.tensor([0])


def _sure(noise: Tensor) -> Tensor:
    """Logits of a model that is sure: its first class leads by about 10, so the others have some 0.0004 together."""
    return torch.cat([torch.full_like(noise[:1], 10.0), 0.1 * noise[1:]])


ZERO: Inputs = ("around 0", lambda noise: noise)
ONE: Inputs = ("around 1", lambda noise: 1 + noise)
SURE: Inputs = ("sure: one logit leads by 10", _sure)
FAR: Inputs = ("100 ± 0.1", lambda noise: 100 + 0.1 * noise)


@dataclass(frozen=True)
class Trial:
    """One operation, of one tensor, and how to look for its limit.

    `function`: torch's name, as autocast's lists have it. `shape`, `inputs`: what its error is measured with.
    `push`: makes an input out of a size; `sizes` are tried from harmless to harmful. `limit`: how the first harmful
    size is told, with {} in its place. `vanishes`: a result of 0 is harm too.
    """

    name: str
    function: str
    run: Operation
    shape: Shape
    push: Callable[[float], list[float]]
    limit: str
    inputs: Inputs = ZERO
    sizes: tuple[float, ...] = LARGER
    vanishes: bool = False


def _conv(x: Tensor) -> Tensor:
    return F.conv2d(x[:36].view(1, 4, 3, 3), x[36:72].view(1, 4, 3, 3))


def _image(x: Tensor) -> Tensor:
    return x.view(1, 1, 8, -1)


def _loss(x: Tensor) -> Tensor:
    return F.cross_entropy(x.view(1, -1), CLASS.to(x.device))


def _gap(s: float) -> list[float]:
    return [-s, 0.0]


def _apart(s: float) -> list[float]:
    return [-s, s]


TRIALS = (
    Trial("matmul", "matmul", lambda x: x.view(2, 64) @ x.view(64, 2), (128,), lambda s: [s] * 128,
          "Inf: 64 products of {0} × {0}"),
    Trial("conv", "conv2d", _conv, (72,), lambda s: [s] * 72, "Inf: 36 products of {0} × {0}"),
    Trial("ReLU", "relu", F.relu, (256,), lambda s: [s], "{}"),
    Trial("max-pool", "max_pool2d", lambda x: F.max_pool2d(_image(x), 2), (256,), lambda s: [s] * 256, "{}"),
    Trial("exp", "exp", torch.exp, (256,), lambda s: [s], "Inf from {}", sizes=EXPONENTS),
    Trial("log", "log", lambda x: x.abs().log(), (256,), lambda s: [s], "{}", sizes=SMALLER),
    Trial("softmax", "softmax", lambda x: x.softmax(-1), (256,), _gap, "0 if {} below the largest",
          sizes=EXPONENTS, vanishes=True),
    Trial("log-softmax", "log_softmax", lambda x: x.log_softmax(-1), (256,), _apart, "−Inf: logits of ± {}"),
    Trial("sum", "sum", lambda x: x.sum(-1), (1024,), lambda s: [s] * 1024, "Inf: 1,024 values of {}", ONE),
    Trial("mean", "mean", lambda x: x.mean(-1), (1024,), lambda s: [s] * 1024, "{}", ONE),
    Trial("variance", "var", lambda x: x.var(-1, correction=0), (1024,), lambda s: [s, -s], "Inf: values of ± {}"),
    Trial("layer norm", "layer_norm", lambda x: F.layer_norm(x, x.shape), (256,), lambda s: [s, -s], "{}"),
    Trial("cross-entropy", "cross_entropy", _loss, (256,), _apart, "Inf: logits of ± {}"),
)  # fmt: skip


def _products(x: Tensor) -> Tensor:
    return x.view(2, 16, 4096)[0] @ x.view(2, 16, 4096)[1].T


# torch's kernels again, with inputs that a trained model has and random numbers around 0 have not.
HARD = (
    Trial("matmul", "matmul", _products, (2 * 16 * 4096,), lambda s: [s], "",
          ("4,096 products, either sign", ZERO[1])),
    Trial("softmax", "softmax", lambda x: x.softmax(-1), (10,), _gap, "", SURE),
    Trial("log-softmax", "log_softmax", lambda x: x.log_softmax(-1), (10,), _gap, "", SURE),
    Trial("cross-entropy", "cross_entropy", _loss, (10,), _gap, "", SURE),
    Trial("mean", "mean", lambda x: x.mean(-1), (1024,), lambda s: [s], "", FAR),
    Trial("variance", "var", lambda x: x.var(-1, correction=0), (1024,), lambda s: [s], "", FAR),
    Trial("layer norm", "layer_norm", lambda x: F.layer_norm(x, x.shape), (256,), lambda s: [s], "", FAR),
)  # fmt: skip

# Two that must fail where ReLU passes: one rounds and leaves the range, one is refused in 16 bits.
PLANTED = (
    Trial("ReLU × 1.001", "relu", lambda x: 1.001 * F.relu(x), (256,), lambda s: [s], "Inf from {}"),
    Trial("inverse", "inverse", lambda x: torch.linalg.inv(x.view(4, 4)), (16,), lambda s: [s] * 16, "{}"),
)


def _softmax(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1)


def _variance(x: Tensor) -> Tensor:
    return (x * x).mean(-1) - x.mean(-1) * x.mean(-1)


def _layer_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1)
    return centred / ((centred * centred).mean(-1) + 1e-5).sqrt()


def _one_by_one(x: Tensor) -> Tensor:
    return total(x, FP16).to(x.dtype) if x.dtype == torch.float16 else x.sum(-1)


BY_HAND = (
    Trial("sum, one by one", "sum", _one_by_one, (8192,), lambda s: [s] * 1024, "Inf: 1,024 values of {}", ONE),
    Trial("mean: sum / n", "mean", lambda x: x.sum(-1) / x.numel(), (1024,), lambda s: [s] * 1024,
          "Inf: 1,024 values of {}", ONE),
    Trial("variance: E[x²] − E[x]²", "var", _variance, (1024,), lambda s: [s, -s], "Inf: values of ± {}",
          ("100 ± 1", lambda noise: 100 + noise)),
    Trial("layer norm: by its formula", "layer_norm", _layer_norm, (256,), lambda s: [s, -s], "0: values of ± {}",
          vanishes=True),
    Trial("softmax: e / sum of e", "softmax", _softmax, (256,), lambda s: [s, 0.0], "NaN from a logit of {}",
          sizes=EXPONENTS),
    Trial("log-softmax: log(softmax)", "log_softmax", lambda x: x.softmax(-1).log(), (10,), _gap,
          "−Inf if {} below the largest", SURE, EXPONENTS),
    Trial("cross-entropy: −log(p)", "cross_entropy", lambda x: -x.softmax(-1)[0].log(), (10,), _gap,
          "Inf if {} below the largest", SURE, EXPONENTS),
)  # fmt: skip
