"""What the granularity panel casts: a picture and a matrix of weights, both under the same outlier, by formulas."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

COLUMN = 40  # the column of the outlier, in the picture and in the weights
EVERY = 16  # of "0.2 beside 6.0": the distance of the columns that are 6.0, the first in the middle of a block
PIXELS, WEIGHTS = 128, 64  # rows and columns
SEED = 0  # of the weights

FACTORS = {"no outlier": 1, "outlier ×30": 30, "outlier ×1000": 1000, "outlier ×30,000": 30_000}
GAINS, SMALL = "gains 1 ± 0.02", "0.2 beside 6.0"
SPREAD, LITTLE, LARGE = 0.02, 0.2, 6.0
CHOICES = (*FACTORS, GAINS, SMALL)


@dataclass(frozen=True, eq=False)
class Data:
    """A picture and a matrix; `outlier`: the columns that are not counted among the others, in both."""

    picture: Tensor
    matrix: Tensor
    outlier: tuple[int, ...]


@cache
def data() -> Mapping[str, Data]:
    """What can be chosen, by name. The same numbers on every machine."""
    light = picture()
    normal = torch.randn(WEIGHTS, WEIGHTS, generator=torch.Generator().manual_seed(SEED))
    # As an initialisation has them: a spread of 1/√64, here exactly 1/8.
    made = {name: Data(_brighter(light, by), _brighter(normal / 8, by), (COLUMN,)) for name, by in FACTORS.items()}
    made[GAINS] = Data(1 + SPREAD * (light - light.mean()) / light.std(), 1 + SPREAD * normal, ())
    large = tuple(range(EVERY // 2, PIXELS, EVERY))
    dark, same = 2 * LITTLE * light, torch.full((WEIGHTS, WEIGHTS), LITTLE)
    dark[:, list(large)] = same[:, [column for column in large if column < WEIGHTS]] = LARGE
    made[SMALL] = Data(dark, same, large)
    return made


def picture() -> Tensor:
    """A lit ball with fine rings on a floor of stripes: greys from 0 (black) to 1 (white)."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, PIXELS, dtype=torch.float64)] * 2, indexing="ij")
    square = x**2 + y**2
    inside = square < 0.55
    height = (0.55 - square).clamp(min=0).sqrt()
    lit = (-0.45 * x - 0.55 * y + 0.7 * height).clamp(min=0) / 0.55**0.5
    spot = torch.exp(-((x + 0.22) ** 2 + (y + 0.27) ** 2) / 0.012)
    ball = 0.08 + 0.6 * lit * (1 + 0.16 * torch.sin(24 * (x - y))) + 0.5 * spot
    floor = 0.3 + 0.16 * y + 0.07 * torch.sin(30 * x + 9 * y) + 0.05 * torch.sin(55 * y)
    return torch.where(inside, ball, floor).clamp(0.02, 1).float()


def _brighter(x: Tensor, factor: float) -> Tensor:
    """The same with one column times `factor`."""
    x = x.clone()
    x[:, COLUMN] *= factor
    return x
