"""Scaled formats by the names that people use, each with its source."""

from mpkit.formats import E2M1, E2M3, E4M3
from mpkit.scaled.integers import INT8
from mpkit.scaled.scaled_format import ScaledFormat

# One FP32 scale for the tensor: Micikevicius et al. 2022, arXiv 2209.05433, section 3.2.
FP8_TENSOR = ScaledFormat("FP8, tensor", E4M3)
# One FP32 scale for each row: torchao's "rowwise" recipe for Float8 training.
FP8_ROW = ScaledFormat("FP8, row", E4M3, (1, None))
# 1 x 128 for inputs and gradients, 128 x 128 for weights: DeepSeek-V3, arXiv 2412.19437, section 3.3.2. The report asks
# for powers of two only in some activations that it keeps (3.3.3). Here all are, as Transformer Engine's
# Float8BlockScaling has them by default, but in FP32, as cuBLAS reads them.
FP8_BLOCK = ScaledFormat("FP8, 1x128", E4M3, (1, 128), "up", wide_scales=True)
# OCP Microscaling Formats v1.0, table 1: 32 values share an E8M0 scale. The rule is NVIDIA's; OCP's is
# .but(rule="floor").
MXFP8 = ScaledFormat("MXFP8", E4M3, (1, 32), "up")
MXFP6 = ScaledFormat("MXFP6", E2M3, (1, 32), "up")
MXFP4 = ScaledFormat("MXFP4", E2M1, (1, 32), "up")
# 16 values share an E4M3 scale, all of them one FP32 scale: NVIDIA 2025, arXiv 2509.25149, section 2.
NVFP4 = ScaledFormat("NVFP4", E2M1, (1, 16), two_level=True)
# One FP32 scale for each token and for each output channel: torchao's INT8 mixed-precision training, row-wise.
INT8_ROW = ScaledFormat("INT8, row", INT8, (1, None))

SCALED_FORMATS = {fmt.name: fmt for fmt in (FP8_TENSOR, FP8_BLOCK, MXFP8, MXFP6, MXFP4, NVFP4, INT8_ROW)}
