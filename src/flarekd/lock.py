"""One run at a time in a folder: a lock that the system takes away with its process.

The lock is an advisory one (``flock``) on the dot-file ``.flarekd-lock``, which lists of scans pass
over and which is gone when the run ends; one that a kill left behind locks nothing. Where no lock
can be had, a run goes on without one: on Windows, on a network disk that knows none (it is said
then), and where the file cannot be made, since what cannot be written fails by itself. Who holds a
folder deletes the temporary files that killed runs left there.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from flarekd.errors import InputError, UsageError
from flarekd.leftovers import sweep

NAME = ".flarekd-lock"

Say = Callable[[str], None]
Given = ParamSpec("Given")
Result = TypeVar("Result")

_held: set[Path] = set()
"""Locks that this process holds."""


@contextmanager
def locked(folder: Path, warn: Say, name: str = NAME) -> Iterator[None]:
    """Hold a folder for the length of a ``with``; it is made if need be, and removed if left empty.

    A process may take a folder again that it holds: the road holds the folder its stages write to.

    Args:
        folder: Where files are going to be written.
        warn: Told where the disk knows no locks, and what a killed run had left.
        name: Of the lock; another name holds the folder against runs that take that name only.

    Raises:
        UsageError: If another process holds it.
        InputError: If it is no folder, or cannot be made.
    """
    place = folder.resolve()
    lock = place / name
    if lock in _held:
        yield
        return
    new = [path for path in (place, *place.parents) if not path.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{str(folder)!r} is no folder", "choose another --out") from error
    except FileNotFoundError as error:  # where the system alone makes folders, as in /proc
        raise InputError(f"{str(folder)!r} cannot be made", "choose another --out") from error
    file = _take(folder, lock, warn)
    _held.add(lock)
    try:
        if file is not None and name == NAME:
            for path in sweep(place):
                warn(f"{path}: deleted, a run that was killed had not finished it")
        yield
    finally:
        _held.discard(lock)
        if file is not None:
            lock.unlink(missing_ok=True)  # while it is held: never another's
            os.close(file)
        _remove_empty(new)


def alone(
    warn: Say,
    folder: Callable[[Any], Path] = lambda out: out,
    name: Callable[[Any], str] = lambda _: NAME,
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Make a function hold the folder of its argument ``out`` while it runs.

    Args:
        warn: As `locked` takes it.
        folder: From the argument to the folder.
        name: From the argument to the name of the lock.
    """

    def around(function: Callable[Given, Result]) -> Callable[Given, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def held(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            out = signature.bind(*args, **kwargs).arguments["out"]
            with locked(folder(out), warn, name(out)):
                return function(*args, **kwargs)

        return held

    return around


def alone_on_file(warn: Say) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """The same where ``out`` is a file, so that others may be written beside it."""
    return alone(warn, lambda out: out.parent, lambda out: f"{NAME}-{out.name}")


def abandon() -> None:
    """Delete the files of all locks: this process is about to be ended by force."""
    for lock in list(_held):
        with suppress(OSError):
            lock.unlink(missing_ok=True)


def _take(folder: Path, path: Path, warn: Say) -> int | None:
    """The open, locked file, or None where there can be none."""
    if sys.platform == "win32":
        return None
    import fcntl

    while True:
        try:
            # no link: it may come with somebody's data, and what it leads to would be written over
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UsageError(
                    f"{path} is a link", "remove it, or choose another --out"
                ) from None
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 200, 0).decode("utf-8", "replace")
            os.close(file)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise _taken(folder, holder) from None
            path.unlink(missing_ok=True)
            warn(f"{folder} cannot be locked ({error.strerror}): start no second run in it")
            return None
        if _is_still_at(path, file):
            with suppress(OSError):  # a full disk: it is held, though nobody is told by whom
                os.ftruncate(file, 0)
                os.pwrite(file, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
            return file
        os.close(file)  # the run before removed it between our two steps


def _is_still_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _taken(folder: Path, holder: str) -> UsageError:
    pid, _, host = holder.partition(" ")
    who = f"process {pid} on {host}" if host else "another process"
    return UsageError(
        f"{who} is writing to {str(folder)!r}",
        "wait until it is done, or end it and run this again, or choose another --out",
    )


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, the deepest first, as far as nothing is in them."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
