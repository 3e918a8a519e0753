"""torch.compile where it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Compiled:
    """A network through torch.compile, and without it from the moment that fails."""

    def __init__(self, network: nn.Module, warn: Callable[[str], None]) -> None:
        self._network: Callable[[Tensor], Any] = torch.compile(network)
        self._plain, self._warn = network, warn

    def __call__(self, images: Tensor) -> Any:
        """What the network returns for `images`."""
        try:
            return self._network(images)
        except Exception as error:
            # whatever compilers raise; an error of the network itself the plain one raises again
            if self._network is self._plain:
                raise
            self._network = self._plain
            first = (str(error).splitlines() or [type(error).__name__])[0]
            self._warn(f"torch.compile failed, training goes on without it: {first}")
            return self._plain(images)
