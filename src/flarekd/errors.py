"""What went wrong, how to mend it, and the exit status it ends with.

An error is raised where the fact is known and shown once, by ``failures.py``.
"""

from __future__ import annotations

from typing import ClassVar


class FlarekdError(Exception):
    """A failure a person can understand: what and where, then how to mend it.

    Args:
        what: What is wrong and where, values by repr and numbers with units.
        mend: What to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what} · {self.mend}" if self.mend else self.what


class UsageError(FlarekdError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class InputError(FlarekdError):
    """A file, folder or configuration cannot be used."""

    exit_code = 3


class CasesFailedError(FlarekdError):
    """The verb finished, but some cases failed; each was named and the rest written."""

    exit_code = 4
