"""Small values and scales as NVIDIA's kernels lay them out in memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

E2M1_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # by code; the fourth bit is the sign
TILE = (128, 4)  # scales that lie together


def e2m1_codes(values: Tensor) -> Tensor:
    """The 4-bit codes of values of E2M1, uint8, one a byte. NaN, which E2M1 lacks, becomes 6: its scale is NaN."""
    magnitudes = torch.tensor(E2M1_MAGNITUDES, device=values.device)
    codes = torch.bucketize(values.abs(), magnitudes).clamp_(max=7)
    return (codes + 8 * values.signbit()).to(torch.uint8)


def two_a_byte(codes: Tensor) -> Tensor:
    """(rows, columns) of 4-bit codes as (rows, columns / 2) of torch.float4_e2m1fn_x2; the first in the lower bits."""
    return (codes[:, ::2] | codes[:, 1::2] << 4).contiguous().view(torch.float4_e2m1fn_x2)


def in_tiles(scales: Tensor) -> Tensor:
    """(rows, blocks of columns) as the flat array that the tensor cores of compute capability 10 read, whole tiles.

    A tile is 128 rows of 4 scales; row r's scale c is at (r % 32) * 16 + (r // 32) * 4 + c of its tile, and tiles
    follow each other along the columns first (cuBLAS library guide, "1D block scaling factors layout"). What fills a
    tile up is 0.
    """
    high, wide = TILE
    filled = F.pad(scales.float(), (0, -scales.shape[1] % wide, 0, -scales.shape[0] % high))
    tiles = filled.view(filled.shape[0] // high, 4, 32, filled.shape[1] // wide, wide)
    return tiles.permute(0, 3, 2, 1, 4).reshape(-1).to(scales.dtype)
