"""What went wrong, how to mend it, and the exit status it ends with.

An error is raised where the fact is known and shown once, by ``failures.py``.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What a system says where a disk is full, or a person's share of it."""

MAKE_ROOM = "make room on that disk and run the same command again, a training with --resume"

_MENDS = {
    **dict.fromkeys(NO_ROOM, MAKE_ROOM),
    errno.ENOENT: "check the path; was it moved or deleted meanwhile?",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "write to a disk that is not read-only",
    errno.ELOOP: "remove that link, or put the file itself there",
    errno.ENAMETOOLONG: "shorten the path",
    errno.EIO: "look whether its disk or network drive fails, and copy what is there",
}


LESS_MEMORY = (
    "let fewer cases be worked on at a time: `taskset -c 0 flarekd …`, --jobs of phantom, "
    "--max-memory of infer; a training takes less with a smaller batch"
)

_NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|bad_alloc|fail\w* to allocate", re.IGNORECASE
)
"""How a RuntimeError of torch, ITK, OpenVINO or ONNX Runtime says it."""


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


class NoRoomError(InputError):
    """A disk is full. No case is to blame, and each that follows would fail too: it ends a run."""


class CasesFailedError(FlarekdError):
    """The verb finished, but some cases failed; each was named and the rest written."""

    exit_code = 4


FAILURES = (FlarekdError, OSError, ValueError, MemoryError, RuntimeError)
"""What ends a case and not the run; torch says RuntimeError where memory is short."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make what a system refuses within a ``with`` say which file it is of: a write does not.

    Raises:
        NoRoomError: If the disk is full.
        OSError: Whatever else there is; its ``filename`` is set.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            what = f"{path}: cannot be written: {error.strerror}"
            raise NoRoomError(what, MAKE_ROOM) from error
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def counted(things: int | Sized, name: str) -> str:
    """How many there are, for a sentence.

    Examples:
        >>> counted(1, "case"), counted(["a", "b"], "label map"), counted({}, "scan")
        ('1 case', '2 label maps', '0 scans')
    """
    number = things if isinstance(things, int) else len(things)
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def listed(names: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """The first of many names, and how many more there are.

    Examples:
        >>> listed(["a", "b"]), listed(["a", "b", "c", "d"], most=2)
        ('a, b', 'a, b and 2 more')
    """
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + rest


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: a MemoryError, or what libraries say in its place."""
    is_said = isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))
    return is_said or isinstance(error, MemoryError)


def said(error: BaseException) -> str:
    """What an error says; of the system's the word alone, where a sentence names the file.

    Examples:
        >>> said(PermissionError(13, "Permission denied", "a.nii")), said(ValueError("odd"))
        ('Permission denied', 'odd')
    """
    word = error.strerror if isinstance(error, OSError) else None
    return word or str(error) or type(error).__name__


def mend_of(error: OSError) -> str:
    """What a person can do about what a system refuses."""
    return _MENDS.get(error.errno or 0, "mend that and run the same command again")


def reason(error: BaseException) -> str:
    """What a person is told of an error that costs a case: what, where, and what helps.

    Examples:
        >>> reason(PermissionError(13, "Permission denied", "a.nii"))
        'a.nii: Permission denied · check its permissions'
    """
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return f"{where}{error.strerror} · {mend_of(error)}"
    return f"{said(error)} · {LESS_MEMORY}" if is_out_of_memory(error) else said(error)
