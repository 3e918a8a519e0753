"""How the modules of `infer` are loaded: of its start torch's take most of the time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import without garbage collection, for the length of a ``with``.

    Among what torch makes while it is imported nothing is free, and it would be searched again and
    again; nor is it searched later (0.2 s of 1.7 to the first window:
    docs/benchmarks/inference.md).
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
