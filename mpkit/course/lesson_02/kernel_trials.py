"""The operations that `survey` measures: torch's own, and the same formulas written out in FP16 steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mpkit import FP16
from mpkit.course.arithmetic.accumulate import total

Operation = Callable[[Tensor], Tensor]
Shape = tuple[int, ...]

_values = FP16.values()
LARGER = tuple(_values[_values >= 1].tolist())  # every FP16 value from 1 up to 65504
EXPONENTS = tuple(x for x in LARGER if x < 600)  # FP64 can take the exponential of these
SMALLER = tuple(2.0**-k for k in range(40))
CLASS = torch.tensor([0])


@dataclass(frozen=True)
class Trial:
    """One operation, of one tensor, and how to look for its limit.

    `function`: torch's name, as autocast's lists have it. `shape`, `offset`: its input is normal noise of that shape,
    standard deviation 1, around `offset`. `push`: makes an input out of a size; `sizes` are tried from harmless to
    harmful. `limit`: how the first harmful size is told, with {} in its place. `vanishes`: a result of 0 is harm too.
    """

    name: str
    function: str
    run: Operation
    shape: Shape
    push: Callable[[float], list[float]]
    limit: str
    offset: float = 0.0
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


TRIALS = (
    Trial("matmul", "matmul", lambda x: x.view(2, 64) @ x.view(64, 2), (128,), lambda s: [s] * 128,
          "Inf: 64 products of {0} × {0}"),
    Trial("conv", "conv2d", _conv, (72,), lambda s: [s] * 72, "Inf: 36 products of {0} × {0}"),
    Trial("ReLU", "relu", F.relu, (256,), lambda s: [s], "{}"),
    Trial("max-pool", "max_pool2d", lambda x: F.max_pool2d(_image(x), 2), (256,), lambda s: [s] * 256, "{}"),
    Trial("exp", "exp", torch.exp, (256,), lambda s: [s], "Inf from {}", sizes=EXPONENTS),
    Trial("log", "log", lambda x: x.abs().log(), (256,), lambda s: [s], "−Inf for {} and less", sizes=SMALLER),
    Trial("softmax", "softmax", lambda x: x.softmax(-1), (256,), _gap, "0 if {} below the largest",
          sizes=EXPONENTS, vanishes=True),
    Trial("log-softmax", "log_softmax", lambda x: x.log_softmax(-1), (256,), _gap, "{}"),
    Trial("sum", "sum", lambda x: x.sum(-1), (1024,), lambda s: [s] * 1024, "Inf: 1,024 values of {}", 1.0),
    Trial("mean", "mean", lambda x: x.mean(-1), (1024,), lambda s: [s] * 1024, "{}", 1.0),
    Trial("variance", "var", lambda x: x.var(-1, correction=0), (1024,), lambda s: [s, -s], "Inf: values of ± {}"),
    Trial("layer norm", "layer_norm", lambda x: F.layer_norm(x, x.shape), (256,), lambda s: [s, -s], "{}"),
    Trial("cross-entropy", "cross_entropy", _loss, (256,), _gap, "{}"),
)  # fmt: skip


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
    Trial("sum, one by one", "sum", _one_by_one, (8192,), lambda s: [s] * 1024, "Inf: 1,024 values of {}", 1.0),
    Trial("mean: sum / n", "mean", lambda x: x.sum(-1) / x.numel(), (1024,), lambda s: [s] * 1024,
          "Inf: 1,024 values of {}", 1.0),
    Trial("variance: E[x²] − E[x]²", "var", _variance, (1024,), lambda s: [s, -s], "Inf: values of ± {}", 100.0),
    Trial("layer norm: by its formula", "layer_norm", _layer_norm, (256,), lambda s: [s, -s], "0: values of ± {}",
          vanishes=True),
    Trial("softmax: e / sum of e", "softmax", _softmax, (256,), lambda s: [s, 0.0], "NaN from a logit of {}",
          sizes=EXPONENTS),
    Trial("log-softmax: log(softmax)", "log_softmax", lambda x: x.softmax(-1).log(), (256,), _gap,
          "−Inf if {} below the largest", sizes=EXPONENTS),
    Trial("cross-entropy: −log(p)", "cross_entropy", lambda x: -x.softmax(-1)[0].log(), (256,), _gap,
          "Inf if {} below the largest", sizes=EXPONENTS),
)  # fmt: skip
