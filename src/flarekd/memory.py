"""How this process keeps its memory."""

from __future__ import annotations

import ctypes
import gc
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""glibc's names for what mallopt sets (malloc.h)."""

_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let tensors reuse the memory of freed ones instead of fetching it anew from the kernel.

    glibc maps every block above a few MiB afresh and unmaps it when it is freed, and the kernel
    clears each of its pages at first touch. A network's activations are such blocks, made and freed
    layer by layer: a training step of the student at its full size so clears 12 GB of pages, which
    takes a third of its time. Kept on the heap they are cleared once. What they hold does not
    change, so results are the same bit for bit; the process keeps what it has had at its peak, and
    holes between blocks make that peak larger (docs/benchmarks/training.md).

    To be called before the first large tensor. Elsewhere than on Linux with glibc it does nothing.

    Returns:
        Whether it did something.
    """
    libc = _glibc()
    return libc is not None and bool(
        libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    )


def give_back_freed_memory() -> None:
    """Hand to the kernel what was freed and is kept for later: what is held then is in use.

    Elsewhere than on Linux with glibc it collects garbage and no more.
    """
    gc.collect()
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    is_there = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
    return ctypes.CDLL(None) if is_there else None
