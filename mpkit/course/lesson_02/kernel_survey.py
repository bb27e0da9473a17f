"""Which operations work in FP16? Measured live: does torch's own FP16 kernel run, is it exact, when does it break?

`survey()` measures torch's kernels. `by_hand()` measures the same formulas written out in steps, each step's result in
FP16, as someone would write them who does not know the kernels. FP64 on the same FP16 inputs is the truth for both.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mpkit import FP16
from mpkit.course import markup
from mpkit.course.lesson_02.kernel_trials import BY_HAND, TRIALS, Trial
from mpkit.policy.operations import MATRIX, WIDE

SEEDS = range(5)
HEADERS = ("operation", "runs in FP16", "error", "breaks", "autocast on CUDA")

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Row:
    """What was measured for one operation.

    `runs`: it takes FP16 and gives FP16. `exact`: it gives FP64's result bit for bit, with nothing rounded, for every
    seed. `spacings`, `error`: the largest error over all seeds, in FP16 spacings around the true result and relative
    to it. `breaks`: where the result first is Inf, NaN or 0 although FP64's is not; "" if nowhere in FP16's range.
    `cuda_list`: FP16, FP32, or "" for an operation on neither of CUDA's lists. `kept`: what autocast made of an FP16
    input on this device, FP16 or FP32.
    """

    name: str
    runs: bool
    exact: bool
    spacings: float
    error: float
    breaks: str
    cuda_list: str
    kept: str


@dataclass(frozen=True, repr=False)
class Survey:
    """Rows of one device, shown as a table. `survey()["exp"]` is a row; the table is the same on every machine."""

    rows: tuple[Row, ...]
    headers: tuple[str, ...] = HEADERS

    def __getitem__(self, name: str) -> Row:
        """The row of an operation. KeyError, with the known names, for any other."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no operation {name!r}; use one of {', '.join(row.name for row in self.rows)}.")

    def __iter__(self) -> Iterator[Row]:
        """The rows, top to bottom."""
        return iter(self.rows)

    def __repr__(self) -> str:
        return markup.columns([self.headers, *self._cells()])

    def _repr_html_(self) -> str:
        return markup.table(self.headers, [[markup.escape(cell) for cell in row] for row in self._cells()])

    def _cells(self) -> list[tuple[str, ...]]:
        return [_cells(row)[: len(self.headers)] for row in self.rows]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        "yes" if row.runs else "no",
        _size_of(row),
        row.breaks or "nowhere",
        row.cuda_list or "as it comes",
    )


def _size_of(row: Row) -> str:
    """The error as a bound that does not depend on the order in which a kernel adds."""
    if not row.runs:
        return "–"
    if row.exact:
        return "none: exact"
    if row.spacings < 1:
        return "below 1 spacing"
    return next((f"over {bound} %" for bound in (10, 1) if row.error > bound / 100), "a few spacings")


def survey(device: torch.device | str = "cpu") -> Survey:
    """Measure torch's own FP16 kernels on `device`: thirteen operations, five seeds, small tensors, some 0.1 s."""
    return Survey(tuple(_measure(trial, torch.device(device)) for trial in TRIALS))


def by_hand(device: torch.device | str = "cpu") -> Survey:
    """Measure seven formulas written out in FP16 steps."""
    return Survey(tuple(_measure(trial, torch.device(device)) for trial in BY_HAND), HEADERS[:4])


def _measure(trial: Trial, device: torch.device) -> Row:
    exact, spacings, error = True, 0.0, 0.0
    try:
        for seed in SEEDS:
            x = _normal(trial, seed).to(device)
            low, true = trial.run(x).double().flatten(), trial.run(x.double()).flatten()
            off = (low - true).abs()
            exact &= bool((off == 0).all()) and trial.run(x).dtype == torch.float16
            units = torch.tensor([FP16.spacing(t) for t in true.tolist()], device=off.device)
            spacings = max(spacings, float((off / units).max()))
            error = max(error, float((off / true.abs())[true != 0].max()))
    except (RuntimeError, NotImplementedError):  # this device has no such FP16 kernel
        return Row(trial.name, False, False, math.nan, math.nan, "", cuda_list(trial.function), "")
    return Row(
        trial.name, trial.run(x).dtype == torch.float16, exact, spacings, error, _limit(trial, device),
        cuda_list(trial.function), _kept(trial, x),
    )  # fmt: skip


def _normal(trial: Trial, seed: int) -> Tensor:
    return (torch.randn(trial.shape, generator=torch.Generator().manual_seed(seed)) + trial.offset).half()


def cuda_list(function: str) -> str:
    """FP16 or FP32 if torch's autocast has the function on that list for CUDA; "" if it leaves it alone."""
    return "FP16" if function in MATRIX else "FP32" if function in WIDE else ""


def _kept(trial: Trial, x: Tensor) -> str:
    """The format that an FP16 input comes out in under autocast."""
    with torch.autocast(x.device.type, dtype=torch.float16):
        return {torch.float16: "FP16", torch.float32: "FP32"}.get(trial.run(x).dtype, "?")


def _limit(trial: Trial, device: torch.device) -> str:
    """Bisect for the first harmful size. Once it is reached, all later sizes are harmful too."""
    sizes = trial.sizes
    if not _harmful(trial, sizes[-1], device):
        return ""
    good, bad = -1, len(sizes) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if _harmful(trial, sizes[middle], device) else (middle, bad)
    return trial.limit.format(_number(sizes[bad]))


def _number(x: float) -> str:
    """Two decimals at most; a power of two below one as such."""
    if x < 1 and math.frexp(x)[0] == 0.5:
        return "2" + str(math.frexp(x)[1] - 1).translate(RAISED)
    return f"{x:.2f}".rstrip("0").rstrip(".")


def _harmful(trial: Trial, size: float, device: torch.device) -> bool:
    """Whether FP16's result is Inf or NaN where FP64's is finite; or 0 where FP64's is not, if that counts."""
    x = torch.tensor(trial.push(size), dtype=torch.float64, device=device)
    low, true = trial.run(x.half()), trial.run(x)
    gone = ~low.isfinite() | (low == 0) & (true != 0) if trial.vanishes else ~low.isfinite()
    return bool((true.isfinite() & gone).any())
