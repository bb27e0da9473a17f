"""The energy that a GPU has used, from the counter that its driver keeps."""

import ctypes


def joules() -> float | None:
    """Energy that the first GPU has used since its driver was loaded; None where there is no such counter.

    NVML's nvmlDeviceGetTotalEnergyConsumption, in millijoules (Volta and later). It moves about every 100 ms, so take
    differences over seconds.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    device, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
    done = nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == 0
    if not done or nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy)) != 0:
        return None
    return energy.value / 1000
