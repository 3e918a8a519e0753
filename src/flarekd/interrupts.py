"""Asked to stop: Ctrl-C and SIGTERM by one mechanism.

Either becomes an exception in the main thread, so that whatever is open is closed on the way out;
where something must be whole, it is put off to the end of that. Two places cannot pass an exception
on: compiled modules that begin (they make an ImportError of it, or crash), and what Python calls by
itself, destructors and callbacks of weak references (it drops it); there it is asked for again a
moment later. What has not left after `GRACE_S`, for it sits in one long call of a library, is ended
by force: a container gets 10 s from its engine.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

GRACE_S = 8.0

AGAIN_S = 0.01
"""So long after a moment that could not pass an exception on it is asked for again."""

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Exit status by signal, as a shell counts."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: a container engine, a scheduler or a person wants this process gone."""


class _Leaving(SystemExit):
    """SIGTERM in a worker."""


class _Asked:
    """What was asked of this process; signals are the whole process's too."""

    holds = 0
    waiting: signal.Signals | None = None
    is_leaving = False
    is_asked_again = False
    writer: socket.socket | None = None  # of a worker: it lives as long as the process


def status(error: KeyboardInterrupt) -> int:
    """The exit status that an interruption ends with."""
    return STATUS[signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT]


@contextmanager
def handled(abandon: Callable[[], None]) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C and `Terminated` on SIGTERM for the length of a ``with``.

    A signal that is ignored stays so (``nohup``), and one that somebody else handles is theirs. A
    second signal changes nothing.

    Args:
        abandon: Called before the process is ended by force.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in STATUS}
    taken = [number for number, handler in before.items() if handler in ours]
    writer, old = _watch(abandon)
    hook = _hook_in()
    for number in taken:
        signal.signal(number, _take)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
        sys.unraisablehook = hook
        signal.set_wakeup_fd(old)
        writer.close()
        _Asked.waiting, _Asked.is_leaving, _Asked.is_asked_again = None, False, False


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Put an interruption off to the end of a ``with``: what is inside is whole or not begun.

    Yields:
        Says whether one is waiting.
    """
    _Asked.holds += 1
    try:
        yield lambda: _Asked.waiting is not None
    finally:
        _Asked.holds -= 1
    waiting = _Asked.waiting
    if waiting is not None and not _Asked.holds:
        _Asked.waiting = None
        raise _interruption(waiting)


@contextmanager
def passed_on() -> Iterator[None]:
    """No limit for the length of a ``with``: signals are somebody else's, who knows when to end."""
    old = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)


def leave_quietly() -> None:
    """Make a worker's main thread leave on SIGTERM; Ctrl-C is for its parent, who tells it."""
    _Asked.writer, _ = _watch(lambda: None)
    _hook_in()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    if _is_now(frame):
        raise _Leaving(STATUS[signal.Signals(number)])


def _take(number: int, frame: FrameType | None) -> None:
    if not _is_now(frame):
        return
    if _Asked.holds:
        _Asked.waiting = signal.Signals(number)
    else:
        raise _interruption(signal.Signals(number))


def _is_now(frame: FrameType | None) -> bool:
    """Whether to leave from this frame: not twice, and not in an import."""
    if _Asked.is_leaving:
        return False
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    _Asked.is_asked_again = frame is not None
    _Asked.is_leaving = frame is None
    return _Asked.is_leaving


def _hook_in() -> Callable[[Any], object]:
    """Have signals asked for again whose exceptions are dropped; the hook that was there before."""
    before = sys.unraisablehook
    sys.unraisablehook = partial(_when_dropped, before)
    return before


def _when_dropped(before: Callable[[Any], object], dropped: Any) -> None:
    if isinstance(dropped.exc_value, KeyboardInterrupt | _Leaving):
        _Asked.is_leaving, _Asked.is_asked_again = False, True
    else:
        before(dropped)


def _interruption(number: signal.Signals) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


def _watch(abandon: Callable[[], None]) -> tuple[socket.socket, int]:
    """Start the limit; where the system writes signals' numbers, and where it did before."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # before the main thread comes to it, which may be long: the system writes the number here
    old = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_limit, args=(reader, abandon), daemon=True).start()
    return writer, old


def _limit(reader: socket.socket, abandon: Callable[[], None]) -> None:
    with reader:
        while number := reader.recv(1):  # nothing once the other end is closed
            if number[0] in list(STATUS):
                until = time.monotonic() + GRACE_S
                while time.monotonic() < until:
                    time.sleep(AGAIN_S)
                    if _Asked.is_asked_again:
                        _Asked.is_asked_again = False
                        os.kill(os.getpid(), number[0])
                abandon()
                os._exit(STATUS[signal.Signals(number[0])])
