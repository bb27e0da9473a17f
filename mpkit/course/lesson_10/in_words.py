"""Numbers, tensors and names in a sentence."""

import math
from collections import Counter
from typing import Any

from torch import Tensor


def number(value: float | None) -> str:
    """A number in a sentence: three digits, and Inf and NaN by name."""
    if value is None:
        return "no number"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "−Inf"
    if value.is_integer() and abs(value) < 1e7:
        return f"{value:,.0f}".replace("-", "−")
    if value and not 1e-3 <= abs(value) < 1e7:
        return ("−" * (value < 0)) + f"{abs(value):.2g}".replace("e-0", "e-").replace("e+0", "e+").replace("e+", "e")
    return (f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}").replace("-", "−")


def apart(one: float | None, other: float | None) -> tuple[str, str]:
    """Two numbers with as many digits as show that they differ."""
    said = number(one), number(other)
    if one is None or other is None or one == other or said[0] != said[1] or not math.isfinite(one - other):
        return said
    digits = next(n for n in range(4, 18) if f"{one:.{n}g}" != f"{other:.{n}g}")
    return f"{one:.{digits}g}".replace("-", "−"), f"{other:.{digits}g}".replace("-", "−")


def listed(names: list[str]) -> str:
    """What is not finite, of names such as "gradient w": how many of each sort."""
    kinds = Counter(name.split(" ")[0] for name in names)
    return ", ".join(kind if kind == "loss" else f"{n} {kind}{'s' * (n > 1)}" for kind, n in kinds.items()) or "nothing"


def about(tensor: Tensor) -> str:
    """Shape and range of a tensor, and what is odd in it."""
    shape = " × ".join(map(str, tensor.shape)) or "one"
    if not tensor.is_floating_point():
        low, high = float(tensor.min()), float(tensor.max())
        return f"{shape} integers, {f'all {number(low)}' if low == high else f'{number(low)} to {number(high)}'}"
    bad = int((~tensor.isfinite()).sum())
    ends = f"{number(float(tensor.min()))} to {number(float(tensor.max()))}"
    zeros = int((tensor == 0).all(-1).sum()) if tensor.dim() > 1 and tensor.shape[-1] > 1 else 0
    rows = f", {zeros} row{'s' * (zeros > 1)} of zeros" if zeros else ""
    return f"{shape} numbers, {ends}{f', {bad} not finite' * bool(bad)}{rows}"


def weights(state: dict[Any, Tensor]) -> str:
    """Dtype and size of the weights in a state dict."""
    tensors = [tensor for tensor in state.values() if tensor.is_floating_point()]
    bad = sum(int((~tensor.isfinite()).sum()) for tensor in tensors)
    largest = max(float(tensor[tensor.isfinite()].abs().max()) for tensor in tensors if tensor.isfinite().any())
    dtype = str(tensors[0].dtype).removeprefix("torch.")
    return f"{dtype}, finite ones up to {number(largest)}, {bad} not finite"
