"""Which operations work in FP16? Measured live: does torch's own FP16 kernel run, is it exact, when does it break?

`survey()` measures torch's kernels on ordinary inputs, `hard_inputs()` on those of a model that is sure and of
activations with an offset. `by_hand()` measures the same formulas written out in steps, each step's result in FP16, as
someone would write them who does not know the kernels. FP64 on the same FP16 inputs is the truth for all.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mpkit import FP16
from mpkit.course import markup
from mpkit.course.lesson_02.kernel_trials import BY_HAND, HARD, PLANTED, TRIALS, Operation, Trial
from mpkit.policy.operations import MATRIX, WIDE

SEEDS = range(5)


@dataclass(frozen=True)
class Row:
    """What was measured for one operation.

    `runs`: it takes FP16 and gives FP16. `exact`: it gives FP64's result bit for bit, with nothing rounded, for every
    seed. `spacings`, `error`: the largest error over all seeds, in FP16 spacings around the true result and relative
    to it. `breaks`: where the result first is Inf, NaN or 0 although FP64's is not; "" if nowhere in FP16's range.
    `cuda_list`: FP16, FP32, or "" for an operation on neither of CUDA's lists. `kept`: what autocast made of an FP16
    input on this device, FP16 or FP32. `inputs`: what it was measured with. `widened`: the row of the same operation
    with its input converted to FP32 first and its result to FP16 at the end; None where that was not asked for.
    """

    name: str
    inputs: str
    runs: bool
    exact: bool
    spacings: float
    error: float
    breaks: str
    cuda_list: str
    kept: str
    widened: "Row | None" = None

    @property
    def size(self) -> str:
        """The error as a bound that does not depend on the order in which a kernel adds."""
        if not self.runs:
            return "–"
        if self.exact:
            return "none: exact"
        if self.spacings < 1:
            return "below 1 spacing"
        return next((f"over {bound} %" for bound in (90, 10, 1) if self.error > bound / 100), "a few spacings")


COLUMNS: dict[str, Callable[[Row], str]] = {
    "operation": lambda row: row.name,
    "tried with": lambda row: row.inputs,
    "runs in FP16": lambda row: "yes" if row.runs else "no",
    "error": lambda row: row.size,
    "breaks": lambda row: row.breaks or "nowhere",
    "autocast on CUDA": lambda row: row.cuda_list or "as it comes",
    "error with FP32 inside": lambda row: row.widened.size if row.widened else "–",
}


@dataclass(frozen=True, repr=False)
class Survey:
    """Rows of one device, shown as a table. `survey()["exp"]` is a row; the table is the same on every machine."""

    rows: tuple[Row, ...]
    headers: tuple[str, ...]

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

    def _cells(self) -> list[list[str]]:
        return [[COLUMNS[header](row) for header in self.headers] for row in self.rows]


def survey(device: torch.device | str = "cpu") -> Survey:
    """Measure torch's own FP16 kernels on `device`: thirteen operations, five seeds, small tensors, some 0.1 s."""
    return _table(TRIALS, device, "operation", "runs in FP16", "error", "breaks", "autocast on CUDA")


def hard_inputs(device: torch.device | str = "cpu") -> Survey:
    """Measure seven of them where rounding in between would show, and with `.float()` in front. Differs by device."""
    table = _table(HARD, device, "operation", "tried with", "error", "error with FP32 inside")
    wide = _table([replace(trial, run=_in_fp32(trial.run)) for trial in HARD], device)
    return replace(table, rows=tuple(replace(row, widened=wide[row.name]) for row in table))


def by_hand(device: torch.device | str = "cpu") -> Survey:
    """Measure seven formulas written out in FP16 steps."""
    return _table(BY_HAND, device, "operation", "tried with", "error", "breaks")


def planted(device: torch.device | str = "cpu") -> Survey:
    """Measure two operations that a survey must not call exact, harmless or possible: the controls of its verdict."""
    return _table(PLANTED, device, "operation", "runs in FP16", "error", "breaks")


def _table(trials: Sequence[Trial], device: torch.device | str, *headers: str) -> Survey:
    return Survey(tuple(_measure(trial, torch.device(device)) for trial in trials), headers)


def _in_fp32(run: Operation) -> Operation:
    """The same with FP32 inside, for an FP16 input; FP64 stays what it is."""
    return lambda x: run(x.float()).half() if x.dtype == torch.float16 else run(x)


def _measure(trial: Trial, device: torch.device) -> Row:
    exact, spacings, error = True, 0.0, 0.0
    try:
        for seed in SEEDS:
            x = _drawn(trial, seed).to(device)
            low, true = trial.run(x).double().flatten(), trial.run(x.double()).flatten()
            off = (low - true).abs()
            exact &= bool((off == 0).all()) and trial.run(x).dtype == torch.float16
            units = torch.tensor([FP16.spacing(t) for t in true.tolist()], device=off.device)
            spacings = max(spacings, float((off / units).max()))
            error = max(error, float((off / true.abs())[true != 0].max()))
    except (RuntimeError, NotImplementedError):  # this device has no such FP16 kernel
        return Row(trial.name, trial.inputs[0], False, False, math.nan, math.nan, "", cuda_list(trial.function), "")
    return Row(
        trial.name, trial.inputs[0], trial.run(x).dtype == torch.float16, exact, spacings, error,
        _limit(trial, device) if trial.limit else "", cuda_list(trial.function), _kept(trial, x),
    )  # fmt: skip


def _drawn(trial: Trial, seed: int) -> Tensor:
    return trial.inputs[1](torch.randn(trial.shape, generator=torch.Generator().manual_seed(seed))).half()


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
    """Two decimals at most."""
    return f"{x:.2f}".rstrip("0").rstrip(".")


def _harmful(trial: Trial, size: float, device: torch.device) -> bool:
    """Whether FP16's result is Inf or NaN where FP64's is finite; or 0 where FP64's is not, if that counts."""
    x = torch.tensor(trial.push(size), dtype=torch.float16, device=device)  # FP64 gets the same, rounded numbers
    low, true = trial.run(x), trial.run(x.double())
    gone = ~low.isfinite() | (low == 0) & (true != 0) if trial.vanishes else ~low.isfinite()
    return bool((true.isfinite() & gone).any())
