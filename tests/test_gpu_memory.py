"""GPU memory: the real device where there is one, else what is said."""

from __future__ import annotations

import pytest

from flarekd.errors import UsageError
from flarekd.gpu_memory import GpuMemory


def has_device():
    try:
        return bool(GpuMemory(0))
    except UsageError:
        return False


@pytest.mark.skipif(has_device(), reason="this machine has an NVIDIA GPU")
def test_without_a_driver_or_the_library_it_says_which_is_missing():
    with pytest.raises(UsageError, match=r"NVML finds no NVIDIA driver|needs nvidia-ml-py"):
        GpuMemory(0)


@pytest.mark.gpu
@pytest.mark.skipif(not has_device(), reason="needs an NVIDIA GPU and the extra 'gpu'")
def test_a_tensor_shows_in_the_devices_memory():
    import torch

    gpu = GpuMemory(0)
    torch.zeros(1, device="cuda:0")
    before = gpu.used_mb()
    block = torch.ones(256 << 20, dtype=torch.uint8, device="cuda:0")
    assert gpu.used_mb() - before == pytest.approx(256, abs=32)
    del block


@pytest.mark.gpu
@pytest.mark.skipif(not has_device(), reason="needs an NVIDIA GPU and the extra 'gpu'")
def test_a_device_that_is_not_there_is_wrong_usage():
    with pytest.raises(UsageError, match="GPU 99 asked for"):
        GpuMemory(99)
