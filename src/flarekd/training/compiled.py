"""torch.compile where it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Compiled:
    """A network through torch.compile, and without it from the moment that fails."""

    def __init__(self, network: nn.Module, warn: Callable[[str], None]) -> None:
        self._plain, self._warn = network, warn
        self._network: Callable[[Tensor], Any] = network
        try:
            self._network = torch.compile(network)
        except Exception as error:  # noqa: BLE001 (whatever compilers raise)
            self._give_up(error)

    def __call__(self, images: Tensor) -> Any:
        """What the network returns for `images`."""
        try:
            return self._network(images)
        except Exception as error:
            if self._network is self._plain:
                raise
            # an error of the network itself the plain one raises again
            self._give_up(error)
            return self._plain(images)

    def _give_up(self, error: Exception) -> None:
        self._network = self._plain
        first = (str(error).splitlines() or [type(error).__name__])[0]
        self._warn(f"torch.compile failed, training goes on without it: {first}")
