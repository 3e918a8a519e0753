"""What a training needs to speak; it never prints itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int, int, str], None]


class Screen(Protocol):
    """Where a training speaks; `flarekd.console` is one."""

    def progress(self, title: str, /) -> AbstractContextManager[Advance]:
        """Show progress."""

    def info(self, text: str, /) -> None:
        """Say something."""

    def warn(self, text: str, /) -> None:
        """Say something to look at."""


class Silence:
    """The screen of every rank but the first."""

    @contextmanager
    def progress(self, _title: str) -> Iterator[Advance]:
        """Show nothing."""
        yield _nothing

    def info(self, _text: str) -> None:
        """Say nothing."""

    def warn(self, _text: str) -> None:
        """Say nothing."""


def _nothing(_done: int, _total: int, _note: str) -> None:
    """Show nothing."""
