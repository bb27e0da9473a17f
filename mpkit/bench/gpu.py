"""The rows that need a CUDA device: unscaling ResNet-50's gradients, whole steps, and casts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mpkit.bench.cpu import E5M7, parameters, scalers, step_pair, unscale_pair
from mpkit.bench.measure import Case, Sampler, timed
from mpkit.casting import cast
from mpkit.formats import BF16, E4M3, E5M2, FP16, TF32, FloatFormat
from mpkit.rounding import Rounding

UNSCALE_BAR = 0.33  # of GradScaler.unscale_
EAGER_BAR, COMPILED_BAR, COMPILED_STOCHASTIC_BAR = 6.0, 1.2, 2.0  # of x.clone()
FORMATS = (FP16, BF16, TF32, E4M3, E5M2, E5M7)


def resnet50_shapes() -> list[tuple[int, ...]]:
    """Shapes of ResNet-50's 161 parameters, 25,557,032 values (He et al. 2015, arXiv 1512.03385, table 1).

    Each convolution is followed by batch normalization with a weight and a bias. The first block of each of the
    four stages also has a convolution on its shortcut.
    """

    def convolution(out: int, into: int, kernel: int) -> list[tuple[int, ...]]:
        return [(out, into, kernel, kernel), (out,), (out,)]

    shapes, into = convolution(64, 3, 7), 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += convolution(width, into, 1) + convolution(width, width, 3) + convolution(4 * width, width, 1)
            shapes += convolution(4 * width, into, 1) if block == 0 else []
            into = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def cases(elements: int) -> list[Case]:
    """Every CUDA row; `elements` is the size of the tensors that are cast."""
    shapes = resnet50_shapes()
    rows = [
        Case(
            "check + unscale in step(), ResNet-50's gradients",
            "GradScaler.unscale_",
            lambda: unscale_pair("cuda", shapes),
            UNSCALE_BAR,
        ),
        Case("unscale_(), ResNet-50's gradients", "GradScaler.unscale_", lambda: unscale_pair("cuda", shapes, True)),
        Case("the same, against its floor", "its kernel alone", lambda: _kernel_pair(shapes)),
        Case("found_inf, ResNet-50's gradients", "isfinite().all() per tensor", lambda: _found_inf(shapes)),
    ]
    for fused in (True, False):
        kind = "fused SGD" if fused else "SGD"
        whole, update = partial(step_pair, "cuda", fused), partial(_update_pair, shapes, fused)
        rows += [
            Case(f"MLP step, {kind}", "the same with GradScaler", whole),
            Case(f"scale, step, update, ResNet-50, {kind}", "the same with GradScaler", update),
        ]
    return rows + _cast_cases(elements)


def _kernel_pair(shapes: list[tuple[int, ...]]) -> tuple[Sampler, Sampler]:
    """The floor: torch's kernel, which both scalers call, with everything for it at hand."""
    ours, _ = unscale_pair("cuda", shapes)
    grads = [p.grad for p in parameters("cuda", shapes) if p.grad is not None]
    flag, one = torch.tensor([0.0, 1.0], device="cuda").unbind()
    return ours, timed(lambda: torch._amp_foreach_non_finite_check_and_unscale_(grads, flag, one))


def _found_inf(shapes: list[tuple[int, ...]]) -> tuple[Sampler, Sampler]:
    from mpkit.overflow import found_inf

    grads = [p.grad for p in parameters("cuda", shapes) if p.grad is not None]
    naive = timed(lambda: ~torch.stack([g.isfinite().all() for g in grads]).all())
    return timed(lambda: found_inf(grads)), naive


def _update_pair(shapes: list[tuple[int, ...]], fused: bool) -> tuple[Sampler, Sampler]:
    def step(scaler: Any) -> Callable[[], None]:
        optimizer = torch.optim.SGD(parameters("cuda", shapes), lr=1e-6, momentum=0.9, fused=fused)
        loss = torch.zeros((), device="cuda")

        def call() -> None:
            scaler.scale(loss)
            scaler.step(optimizer)
            scaler.update()

        return call

    ours, theirs = scalers("cuda", 1.0)
    return timed(step(ours)), timed(step(theirs))


def _cast_cases(elements: int) -> list[Case]:
    def pair(run: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> tuple[Sampler, Sampler]:
        x = torch.randn(elements, device="cuda").to(dtype)
        return timed(lambda: run(x)), timed(x.clone)

    def compiled(fmt: FloatFormat, rounding: Rounding) -> tuple[Sampler, Sampler]:
        return pair(_compiled(fmt, rounding))

    rows, peer = [], "x.clone()"
    for fmt in FORMATS:
        name, drawn, stochastic = f"cast to {fmt}", f"cast to {fmt}, stochastic", partial(compiled, fmt, "stochastic")
        rows += [
            Case(name, peer, partial(pair, partial(cast, fmt=fmt)), EAGER_BAR),
            Case(drawn, peer, partial(pair, partial(cast, fmt=fmt, rounding="stochastic"))),
            Case(f"{name}, torch.compile", peer, partial(compiled, fmt, "nearest"), COMPILED_BAR),
            Case(f"{drawn}, torch.compile", peer, stochastic, COMPILED_STOCHASTIC_BAR),
        ]
    for dtype in (torch.float16, torch.bfloat16):
        rows.append(Case(f"cast {dtype} to E4M3", "x.clone()", partial(pair, partial(cast, fmt=E4M3), dtype)))
    return rows


def _compiled(fmt: FloatFormat, rounding: Rounding) -> Callable[[Tensor], Tensor]:
    """Compile a cast for one shape at a time.

    It is no use unless it gives the bits of the eager one, or, if it is stochastic, those of a neighbour.
    """
    torch.compiler.reset()  # otherwise the second size that is seen makes shapes dynamic, which is slower
    compiled: Callable[[Tensor], Tensor] = torch.compile(partial(cast, fmt=fmt, rounding=rounding), dynamic=False)
    patterns = torch.arange(-(2**31), 2**31, 2**12 - 1, device="cuda").to(torch.int32).view(torch.float32)
    numbers = patterns[~patterns.isnan()]
    ways: tuple[Rounding, ...] = ("down", "up") if rounding == "stochastic" else (rounding,)
    bits, right = compiled(numbers).view(torch.int32), [cast(numbers, fmt, way).view(torch.int32) for way in ways]
    wrong = torch.stack([bits != one for one in right]).all(0)
    if bool(wrong.any()):
        example = numbers[wrong][0].item()
        raise AssertionError(f"compiled, {int(wrong.sum())} of {len(numbers)} bit patterns differ, such as {example!r}")
    return compiled
