"""Which scaled formats torch's matrix products take, and on which devices.

| scales | device |
|---|---|
| one a tensor | a CPU, or compute capability 8.9 and later |
| one a row | a CPU from torch 2.13 on, or compute capability 8.9 and later |
| 1 x 128 and 128 x 128 | compute capability 9.x, CUDA 12.9 and later |
| MXFP8, NVFP4 | compute capability 10.0 and later; **untested**: written by the documentation, run on no such GPU |

Measured on an H200 (torch 2.11): the small transformer of `python -m mpkit robustness 09`, Adam at 2e-3, 300 steps, 12
seeds, ends 0.003 nats (standard error 0.004) above its emulation with 1 x 128 and 128 x 128, and 0.005 with the same
operands and FP32 sums: no difference but chance.

The conditions are those of aten/src/ATen/native/cuda/ScaledBlas.cpp.
"""

import torch
from torch.nn.functional import ScalingType
from torch.torch_version import TorchVersion

from mpkit.formats import E2M1, E4M3, E5M2
from mpkit.policy.recipes import LinearRecipe
from mpkit.scaled.scaled_format import ScaledFormat

ANYWHERE = (ScalingType.TensorWise, ScalingType.RowWise)
BY_ROW_ON_CPU = TorchVersion(torch.__version__) >= "2.13"  # 2.11 has not; 2.12 was not tried
BY_128 = (ScalingType.BlockWise1x128, ScalingType.BlockWise128x128)
BY_BLOCK = {
    (None, None): ScalingType.TensorWise,
    (1, None): ScalingType.RowWise,
    (1, 128): ScalingType.BlockWise1x128,
    (128, 128): ScalingType.BlockWise128x128,
    (1, 32): ScalingType.BlockWise1x32,
}
SINCE = (8, 9)  # compute capability of the first GPUs that multiply in FP8
HOPPER = 9  # its major number
CUDA_BY_128 = (12, 9)
SINCE_BLOCKS = (10, 0)  # … and of the first that multiply MXFP8 and NVFP4


def scaling_of(fmt: ScaledFormat | None) -> ScalingType | None:
    """What torch calls the scales of `fmt`; None: no product of torch's takes it."""
    if fmt is None:
        return None
    if fmt.two_level:
        return ScalingType.BlockWise1x16 if fmt.values == E2M1 and fmt.block in ((1, 16), (16, 16)) else None
    scaling = BY_BLOCK.get(fmt.block) if fmt.values in (E4M3, E5M2) else None
    return None if scaling is ScalingType.BlockWise1x32 and fmt.scale_format != "E8M0" else scaling


def require_native(recipe: LinearRecipe, device: torch.device) -> None:
    """ValueError: torch multiplies no such formats, or not on `device`. The module's docstring says which and where."""
    if not (recipe.grad and all(_multiply(*pair) for pair in _products(recipe))):
        raise ValueError(
            'engine="native" runs FP8 with one scale a tensor, a row, 128 or 32 values, and NVFP4, in all three '
            f'products; {recipe} needs engine="emulated".'
        )
    scaling = scaling_of(recipe.input)
    assert scaling is not None
    if not _runs_on(scaling, device):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"device {device.type!r}"
        raise ValueError(f'{recipe} runs natively on {_needs(scaling)}; on {name} use engine="emulated".')


def _products(recipe: LinearRecipe) -> list[tuple[ScaledFormat | None, ScaledFormat | None]]:
    return [(recipe.input, recipe.weight), (recipe.grad, recipe.weight), (recipe.grad, recipe.input)]


def _multiply(a: ScaledFormat | None, b: ScaledFormat | None) -> bool:
    """Is there a product of the two, on some device?"""
    left, right = scaling_of(a), scaling_of(b)
    if a is None or b is None or left is None or right is None or (a.values == b.values == E5M2):
        return False
    return left == right != ScalingType.BlockWise128x128 or {left, right} == set(BY_128)


def _runs_on(scaling: ScalingType, device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip:
        return device.type == "cpu" and (scaling is ScalingType.TensorWise or (scaling in ANYWHERE and BY_ROW_ON_CPU))
    capability = torch.cuda.get_device_capability(device)
    if scaling in ANYWHERE:
        return capability >= SINCE
    if scaling in BY_128:
        cuda = tuple(int(part) for part in (torch.version.cuda or "0.0").split(".")[:2])
        return capability[0] == HOPPER and cuda >= CUDA_BY_128
    return capability >= SINCE_BLOCKS


def _needs(scaling: ScalingType) -> str:
    if scaling in ANYWHERE:
        return "a CPU (scales by row: from torch 2.13 on) or an NVIDIA GPU of compute capability 8.9 or later"
    if scaling in BY_128:
        return "an NVIDIA GPU of compute capability 9.x with CUDA 12.9 or later"
    return "an NVIDIA GPU of compute capability 10.0 or later"
