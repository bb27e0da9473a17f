"""What only the driver of a GPU can tell: the energy that it has used, and the driver's own version."""

import ctypes
from typing import Any

import torch


def joules() -> float | None:
    """Energy that torch's current GPU has used since its driver was loaded; None where there is no such counter.

    NVML's nvmlDeviceGetTotalEnergyConsumption, in millijoules (Volta and later). It moves about every 100 ms, so take
    differences over seconds.
    """
    nvml, device, energy = _nvml(), ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml is None or not torch.cuda.is_available():
        return None
    # By its UUID: NVML counts all GPUs of the machine, torch only those that CUDA_VISIBLE_DEVICES leaves.
    uuid = "GPU-" + str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid).removeprefix("GPU-")
    done = nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device)) == 0
    if not done or nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy)) != 0:
        return None
    return energy.value / 1000


def driver() -> str:
    """Version of NVIDIA's driver, such as "570.86.15"; "" where it cannot be read."""
    nvml, words = _nvml(), ctypes.create_string_buffer(80)
    if nvml is None or nvml.nvmlSystemGetDriverVersion(words, 80) != 0:
        return ""
    return words.value.decode()


def _nvml() -> Any:
    """The driver's library, ready for questions; None where there is none."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return nvml if nvml.nvmlInit_v2() == 0 else None
