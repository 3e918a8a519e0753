"""Memory in use on a whole NVIDIA device, by NVML (extra ``gpu``)."""

from __future__ import annotations

from typing import Any

from flarekd.errors import UsageError


class GpuMemory:
    """One device, kept open.

    Args:
        index: NVML's, which knows nothing of CUDA_VISIBLE_DEVICES.

    Raises:
        UsageError: If NVML or the device is not there; says why.
    """

    def __init__(self, index: int) -> None:
        try:
            import pynvml
        except ImportError:
            raise UsageError(
                "GPU memory needs nvidia-ml-py", "install the extra: flarekd[gpu]"
            ) from None
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            count = int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            raise UsageError(
                f"NVML finds no NVIDIA driver: {error}", "leave --gpu out to measure without"
            ) from None
        if index >= count:
            raise UsageError(f"GPU {index} asked for, {count} found", "they are counted from 0")
        self._device = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = pynvml.nvmlDeviceGetName(self._device)
        self.name = name.decode() if isinstance(name, bytes) else str(name)

    def used_mb(self) -> float:
        """Total - free, in 2^20 bytes: every process on the device counts, and the driver."""
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._device)
        return float(memory.total - memory.free) / 2**20
