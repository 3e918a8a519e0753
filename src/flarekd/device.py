"""Which processor runs the network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from flarekd.errors import UsageError

if TYPE_CHECKING:
    from flarekd.protocol import Precision


_CPU_FACTS = Path("/proc/cpuinfo")


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """What a network's forward pass is lowered to on a device; None for float32.

    CUDA does as it is asked. CPUs take bf16 where it is asked for and they multiply it natively:
    without such instructions it is many times slower there, and fp16 always is.
    """
    if device.type == "cuda":
        return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    if device.type == "cpu" and precision == "bf16" and cpu_multiplies_bf16():
        return torch.bfloat16
    return None


@cache
def cpu_multiplies_bf16() -> bool:
    """Whether the processor has AVX512-BF16, and not AMX, whose kernels were not tried.

    Linux alone can tell.
    """
    try:
        facts = _CPU_FACTS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    line = next((line for line in facts.splitlines() if line.startswith("flags")), "")
    flags = line.split()
    return "avx512_bf16" in flags and "amx_bf16" not in flags


def lay_out(network: nn.Module, device: torch.device, lower: torch.dtype | None) -> None:
    """Put the channels of 3D kernels last in memory where a network trains faster so.

    It does in float32 on processors with AVX2 and no AVX-512: oneDNN has no kernel of its own for
    the gradients of 3D weights there, and what it does instead takes half the time (torch 2.13).

    Args:
        network: Changed in place.
        device: Where it trains.
        lower: What `autocast_dtype` says.
    """
    is_avx2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
    if device.type != "cpu" or lower is not None or not is_avx2:
        return
    for part in network.modules():
        if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
            part.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's gap


def choose(name: str) -> torch.device:
    """The device called `name`: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    ``auto`` takes CUDA where there is some, else the CPU; anything else is taken at its word.

    Raises:
        UsageError: If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):  # no such name, no name at all
        raise UsageError(
            f"no device is called {name!r}", "use auto, cpu, cuda, cuda:N or mps"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise UsageError(
            f"device {name!r} asked for, {found} CUDA devices found", "use --device auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' asked for, none found", "use --device auto")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {name!r} is not supported", "use auto, cpu, cuda, cuda:N or mps")
    return device
