"""Where one process's share of the work speaks: on the screen, or to be told elsewhere."""

from __future__ import annotations

from typing import Protocol


class Voice(Protocol):
    """Where a share speaks; `flarekd.console` is one."""

    def info(self, text: str, /) -> None:
        """Say something."""

    def warn(self, text: str, /) -> None:
        """Say something to look at."""

    def error(self, text: str, /) -> None:
        """Say what failed."""


class Notes:
    """What a share says on a worker, to be told where the verb was called."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def info(self, text: str, /) -> None:
        """Note it."""
        self._said.append(text)

    def warn(self, text: str, /) -> None:
        """Note it."""
        self._said.append(text)

    def error(self, text: str, /) -> None:
        """Say nothing: what failed is told by itself."""

    def take(self) -> list[str]:
        """What was said since this was asked last."""
        said, self._said = self._said, []
        return said
