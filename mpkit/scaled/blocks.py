"""A tensor as a grid of blocks, each of which shares one scale."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from mpkit.rounding import BLOCK
from mpkit.scaled.scaled_format import Block


def as_blocks(x: Tensor, block: Block) -> Tensor:
    """`x` as (rows of blocks, rows of a block, columns of blocks, columns of a block).

    Its last dimension gives the columns, the others the rows; a view where `x` is contiguous and the blocks fit. Where
    they do not, zeros fill the last ones, which changes no largest magnitude. A block is no larger than the tensor.
    """
    columns = x.shape[-1] if x.dim() else 1
    rows = x.numel() // max(columns, 1)
    matrix = x.reshape(rows, columns)
    high, wide = (max(min(side or size, size), 1) for side, size in zip(block, (rows, columns), strict=True))
    below, right = -rows % high, -columns % wide
    if below or right:
        matrix = F.pad(matrix, (0, right, 0, below))
    return matrix.reshape(matrix.shape[0] // high, high, matrix.shape[1] // wide, wide)


def from_blocks(blocks: Tensor, like: Tensor) -> Tensor:
    """The way back: the shape of `like`, without what filled the last blocks."""
    columns = like.shape[-1] if like.dim() else 1
    matrix = blocks.reshape(blocks.shape[0] * blocks.shape[1], blocks.shape[2] * blocks.shape[3])
    return matrix[: like.numel() // max(columns, 1), :columns].reshape(like.shape)


def strips(*grids: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The same parts of several grids, each small enough for a core's cache; where one has a single row, that row.

    Cut between rows of blocks, or inside where there is one row of blocks. A GPU takes all at once, and so does a
    compiler.
    """
    first = grids[0]
    if first.device.type != "cpu" or torch.compiler.is_compiling() or first.numel() <= BLOCK:
        return [grids]
    dim = 0 if first.shape[0] > 1 else 1
    length = first.shape[dim]
    size = max(BLOCK * length // first.numel(), 1)
    count = -(-length // size)
    return zip(*(torch.split(g, size, dim) if g.shape[dim] == length else [g] * count for g in grids), strict=True)


def largest_magnitudes(blocks: Tensor) -> Tensor:
    """Largest magnitude of each block, (rows of blocks, 1, columns of blocks, 1); NaN where it holds a NaN.

    By bits: without the sign they are integers in the order of the magnitudes, NaN above all, and integers compare
    ten times as fast on a CPU as floats that may be NaN.
    """
    if not blocks.numel():
        return blocks.new_zeros(blocks.shape[0], 1, blocks.shape[2], 1)
    if blocks.device.type != "cpu":  # a GPU does it in one pass
        largest: Tensor = torch.linalg.vector_norm(blocks, torch.inf, (1, 3), keepdim=True)
        return largest
    found = [(part.view(torch.int32) & 0x7FFFFFFF).amax((1, 3), keepdim=True) for (part,) in strips(blocks)]
    one_row = len(found) > 1 and blocks.shape[0] == 1
    bits = torch.cat(found, 1).amax(1, keepdim=True) if one_row else torch.cat(found)
    return bits.view(torch.float32)
