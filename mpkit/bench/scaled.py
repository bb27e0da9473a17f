"""The rows of scaled formats: their casts, and on a GPU linear layers that multiply in FP8."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mpkit.bench.measure import Case, Sampler, timed
from mpkit.casting import cast
from mpkit.formats import FloatFormat
from mpkit.policy.kernels import require_native
from mpkit.policy.native_products import Native, rounded
from mpkit.policy.recipes import FP8_BLOCKS, FP8_MIXED, LinearRecipe
from mpkit.policy.scaled_linear import scaled_linear
from mpkit.scaled import FP8_ROW, SCALED_FORMATS, ScaledFormat, scaled_cast

EAGER_BAR, COMPILED_BAR = 2.5, 3.0  # of the plain cast to the format of the values; of x.clone()
COLUMNS = 1024
NEXT_TO_TIES = 1e-5  # the share of values that a division with another last bit may round the other way
RECIPES = {"one scale": FP8_MIXED, "scales by row": LinearRecipe("fp8-row", FP8_ROW, FP8_ROW, FP8_ROW),
           "scales by 128": FP8_BLOCKS}  # fmt: skip
SIZES = (1024, 4096, 8192)


def casts(device: str, elements: int) -> list[Case]:
    """Eager against the plain cast, compiled against a copy."""
    rows = []
    for name, fmt in SCALED_FORMATS.items():
        if isinstance(fmt.values, FloatFormat):
            plain = f"cast to {fmt.values}"
            rows.append(Case(f"scaled_cast, {name}", plain, partial(_eager, device, elements, fmt), EAGER_BAR))
        row = f"scaled_cast, {name}, torch.compile"
        rows.append(Case(row, "x.clone()", partial(_compiled, device, elements, fmt), COMPILED_BAR))
    return rows


def _values(device: str, elements: int) -> Tensor:
    return torch.randn(max(elements // COLUMNS, 1), min(COLUMNS, elements), device=device)


def _eager(device: str, elements: int, fmt: ScaledFormat) -> tuple[Sampler, Sampler]:
    x, values = _values(device, elements), fmt.values
    assert isinstance(values, FloatFormat)
    return timed(lambda: scaled_cast(x, fmt)), timed(lambda: cast(x, values))


def _compiled(device: str, elements: int, fmt: ScaledFormat) -> tuple[Sampler, Sampler]:
    x = _values(device, elements)
    torch._dynamo.reset()
    compiled: Callable[[Tensor], Tensor] = torch.compile(lambda t: scaled_cast(t, fmt))
    if (differ := float((compiled(x) != scaled_cast(x, fmt)).float().mean())) > NEXT_TO_TIES:
        raise RuntimeError(f"compiled, {100 * differ:.2g} % of the values are others than eagerly")
    return timed(lambda: compiled(x)), timed(x.clone)


def layers() -> list[Case]:
    """A square linear layer, forward and backward, and its forward product alone, against the same in BF16."""
    rows = []
    for name, recipe in RECIPES.items():
        for n in SIZES:
            rows += [
                Case(f"FP8 product, {name}, {n}", "BF16 product", partial(_product, recipe, n)),
                *(
                    Case(
                        f"FP8 linear layer, {name}, {n}, {how}",
                        "the same in BF16",
                        partial(_layer, recipe, n, products),
                    )
                    for how, products in WAYS.items()
                ),
            ]
    return rows


def _product(recipe: LinearRecipe, n: int) -> tuple[Sampler, Sampler]:
    """Operands rounded before."""
    require_native(recipe, torch.device("cuda"))
    native, (x, w) = Native(), torch.randn(2, n, n, device="cuda").unbind()
    a, b = native.operand(x, recipe.input, "nearest"), native.operand(w, recipe.weight, "nearest")
    u, v = x.bfloat16(), w.bfloat16()
    return timed(lambda: native.product(a, b, torch.bfloat16, False)), timed(lambda: F.linear(u, v))


def _layer(recipe: LinearRecipe, n: int, make: Callable[[], Native]) -> tuple[Sampler, Sampler]:
    """Forward and backward, with the casts of all operands; weights in FP32, which BF16 casts too."""
    require_native(recipe, torch.device("cuda"))
    w, x, g = torch.randn(3, n, n, device="cuda").unbind()
    w, x, g, native = w.requires_grad_(), x.bfloat16().requires_grad_(), g.bfloat16(), make()

    def small() -> None:
        scaled_linear(x, w, None, recipe, native, torch.bfloat16).backward(g)  # type: ignore[no-untyped-call]

    def bf16() -> None:
        F.linear(x, w.bfloat16()).backward(g)  # type: ignore[no-untyped-call]

    return timed(small), timed(bf16)


def _with_compiled_casts() -> Native:
    torch._dynamo.reset()
    return Native(torch.compile(rounded))


WAYS: dict[str, Callable[[], Native]] = {"eager casts": Native, "compiled casts": _with_compiled_casts}
