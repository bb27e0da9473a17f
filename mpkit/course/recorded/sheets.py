"""What the vendor promises for a GPU: its data sheet's peak of dense products, in TFLOP/s, and of its memory, in GB/s.

Data sheets print most tensor-core figures "with sparsity", that is doubled; here they are halved again. FP32 is without
tensor cores. None: the card has no such format.
"""

from typing import Any

# Sources, by NVIDIA: "H100 Tensor Core GPU" and "H200 Tensor Core GPU" data sheets (FP16: 1,979 and 1,671 with sparsity
# for SXM and NVL, 1,513 for PCIe), "A100 Tensor Core GPU" data sheet, "L4" and "L40S" data sheets, "Tesla T4" data
# sheet, "V100" data sheet. A name stands before those that it begins with.
_HOPPER = {"FP32": 67.0, "TF32": 494.7, "FP16": 989.4, "BF16": 989.4, "FP8": 1978.9}
_NVL = {"FP32": 60.0, "TF32": 417.5, "FP16": 835.5, "BF16": 835.5, "FP8": 1670.5}
_AMPERE = {"FP32": 19.5, "TF32": 156.0, "FP16": 312.0, "BF16": 312.0, "FP8": None}
SHEETS: dict[str, dict[str, float | None]] = {
    "NVIDIA H200 NVL": {**_NVL, "memory": 4800.0},
    "NVIDIA H200": {**_HOPPER, "memory": 4800.0},
    "NVIDIA H100 NVL": {**_NVL, "memory": 3900.0},
    "NVIDIA H100 PCIe": {"FP32": 51.0, "TF32": 378.0, "FP16": 756.5, "BF16": 756.5, "FP8": 1513.0, "memory": 2000.0},
    "NVIDIA H100 80GB HBM3": {**_HOPPER, "memory": 3350.0},
    "NVIDIA A100-SXM4-80GB": {**_AMPERE, "memory": 2039.0},
    "NVIDIA A100 80GB PCIe": {**_AMPERE, "memory": 1935.0},
    "NVIDIA A100-SXM4-40GB": {**_AMPERE, "memory": 1555.0},
    "NVIDIA A100-PCIE-40GB": {**_AMPERE, "memory": 1555.0},
    "NVIDIA L40S": {"FP32": 91.6, "TF32": 183.0, "FP16": 362.0, "BF16": 362.0, "FP8": 733.0, "memory": 864.0},
    "NVIDIA L4": {"FP32": 30.3, "TF32": 60.0, "FP16": 121.0, "BF16": 121.0, "FP8": 242.0, "memory": 300.0},
    "Tesla V100-SXM2": {"FP32": 15.7, "TF32": None, "FP16": 125.0, "BF16": None, "FP8": None, "memory": 900.0},
    "Tesla T4": {"FP32": 8.1, "TF32": None, "FP16": 65.0, "BF16": None, "FP8": None, "memory": 320.0},
}  # fmt: skip


def sheet(gpu: str) -> dict[str, Any] | None:
    """The data sheet of a GPU, by the name that torch gives it; None if it is not known here."""
    return next((dict(one) for name, one in SHEETS.items() if gpu.startswith(name)), None)
