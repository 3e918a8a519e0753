"""Which processor runs the network."""

from __future__ import annotations

import torch

from flarekd.errors import UsageError


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
    except RuntimeError:
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
