"""Linear layers below 16 bits: the scaled formats of their three matrix products, by the names of real recipes."""

from dataclasses import dataclass

from mpkit.formats import E5M2
from mpkit.rounding import Rounding
from mpkit.scaled.presets import FP8_BLOCK, FP8_TENSOR, INT8_ROW, MXFP8, NVFP4
from mpkit.scaled.scaled_format import ScaledFormat


@dataclass(frozen=True)
class LinearRecipe:
    """The scaled formats of y = x W^T and of its two backward products, dx = g W and dW = g^T x.

    Each product adds up along another dimension, and a block lies along that dimension. So where scales are shared by
    blocks, an operand is rounded anew, from the source, for each product (Transformer Engine's user guide,
    "Low precision training").

    Args:
        name: of the recipe.
        input: format of x.
        weight: format of W.
        grad: format of g, the gradient of y; None: g stays as it comes, and the backward products use x and W as the
            forward pass rounded them. That is fake quantisation with a straight-through estimator (Jacob et al. 2018,
            arXiv 1712.05877, section 3).
        grad_rounding: how g is rounded.

    Raises:
        TypeError: a format is no ScaledFormat.
    """

    name: str
    input: ScaledFormat
    weight: ScaledFormat
    grad: ScaledFormat | None
    grad_rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        for stage in ("input", "weight", "grad"):
            fmt = getattr(self, stage)
            if not isinstance(fmt, ScaledFormat) and not (stage == "grad" and fmt is None):
                raise TypeError(
                    f"LinearRecipe {self.name!r} asks for a scaled format of its {stage}, but {fmt!r} "
                    f"({type(fmt).__name__}) came; use mpkit.scaled.FP8_TENSOR or its like."
                )

    def __str__(self) -> str:
        return self.name


# E4M3 forward and E5M2 for gradients, one scale a tensor, from its present values: Transformer Engine's
# Float8CurrentScaling with HYBRID formats; the formats are Micikevicius et al. 2022, arXiv 2209.05433, section 3.
FP8_MIXED = LinearRecipe("fp8-mixed", FP8_TENSOR, FP8_TENSOR, ScaledFormat("FP8 gradients, tensor", E5M2))
# DeepSeek-V3, arXiv 2412.19437, section 3.3: E4M3 throughout; Transformer Engine's Float8BlockScaling.
FP8_BLOCKS = LinearRecipe("fp8-block", FP8_BLOCK, FP8_BLOCK.but(name="FP8, 128x128", block=(128, 128)), FP8_BLOCK)
# Mishra et al. 2025, arXiv 2506.08027: E4M3 throughout, scales rounded up; Transformer Engine's MXFP8BlockScaling.
MXFP8_ALL = LinearRecipe("mxfp8", MXFP8, MXFP8, MXFP8)
# NVIDIA 2025, arXiv 2509.25149: weights in blocks of 16 x 16, gradients rounded stochastically. Two of its parts are
# left out: the random Hadamard transform of dW's operands, and the layers that it keeps in BF16, mostly the last ones.
NVFP4_ALL = LinearRecipe("nvfp4", NVFP4, NVFP4.but(name="NVFP4, 16x16", block=(16, 16)), NVFP4, "stochastic")
# All three products in INT8, one scale a row of each operand: torchao's INT8 mixed-precision training, by default.
INT8_MIXED = LinearRecipe("int8-mixed", INT8_ROW, INT8_ROW, INT8_ROW)
# Forward in INT8, gradients as they come. It is no preset: Policy(…, linear=INT8_FORWARD).
INT8_FORWARD = LinearRecipe("int8-forward", INT8_ROW, INT8_ROW, None)
