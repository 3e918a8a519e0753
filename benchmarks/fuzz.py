"""Files that are broken on purpose, given to every reader: only errors that say so may come back.

    python -m benchmarks.fuzz --inputs 100000 --seed 0 [--seconds 600] [--readers nifti nrrd]

Sound small files are mutated: bits turned, bytes and numbers set to extremes, words replaced by
odd ones, parts cut out, doubled or torn off; before and after they are compressed. The input of a
number is the same wherever it is made. A reader runs in a process of its own: one that dies or
hangs costs one input. What is neither read nor refused by a ``FlarekdError`` is a crash, kept with
its input.
"""

from __future__ import annotations

import argparse
import faulthandler
import math
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.fuzz_inputs import READERS, make, samples
from flarekd.errors import FlarekdError

HANG_S = 300.0
"""A reader that takes longer over one input of a few kilobytes hangs, on a busy machine too."""

MEMORY_BYTES = 24 << 30
"""Address space of a reader's process: what asks for more is told so, and the machine lives."""

MOST_KEPT = 20
"""Crashes kept of a reader."""


@dataclass(frozen=True)
class Crash:
    """An input that a reader neither read nor refused."""

    index: int
    what: str
    where: str = ""


@dataclass
class Outcome:
    """What became of the inputs of a reader."""

    name: str
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    crashes: list[Crash] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.inputs / max(self.seconds, 1e-9)
        return (
            f"{self.name:8} {self.inputs:>8,} inputs  {self.refused:>8,} refused  "
            f"{len(self.crashes):>4} crashes  {self.seconds:7.1f} s  {rate:7.0f} inputs/s  "
            f"slowest {self.slowest_s:.2f} s"
        )


def attempt(name: str, path: Path, index: int) -> tuple[bool, Crash | None]:
    """Give a file to a reader: whether it was refused, and the crash where it was one."""
    refused = False
    for function in READERS[name].functions:
        try:
            function(path)
        except FlarekdError:
            refused = True
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what is looked for)
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "/flarekd/" in frame.filename]
            last = (ours or frames)[-1]
            where = f"{Path(last.filename).name}:{last.lineno} {last.name}"
            return refused, Crash(index, f"{type(error).__name__}: {str(error)[:200]}", where)
    return refused, None


def fuzz(name: str, inputs: int, seed: int, seconds: float = math.inf) -> Outcome:
    """Give a reader inputs until there are enough or time is over, in a process of its own."""
    outcome, began, index = Outcome(name), time.monotonic(), 0
    context = multiprocessing.get_context("spawn")
    while index < inputs and time.monotonic() - began < seconds:
        ours, theirs = context.Pipe(duplex=False)
        left_s = seconds - (time.monotonic() - began)
        work = context.Process(
            target=_work, args=(name, seed, range(index, inputs), left_s, theirs)
        )
        work.start()
        theirs.close()
        index = _follow(work, ours, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


def _follow(work: Any, pipe: Connection, outcome: Outcome) -> int:
    """Hear what a process says until it ends; the number of the next input."""
    index, last = -1, time.monotonic()
    try:
        while True:
            if not pipe.poll(HANG_S):
                work.kill()
                outcome.crashes.append(Crash(index, f"hangs for more than {HANG_S:.0f} s"))
                break
            message = pipe.recv()
            if isinstance(message, int):  # about to be read
                index = message
                outcome.inputs += 1
                last = time.monotonic()
                continue
            refused, crash, is_over = message
            outcome.refused += refused
            outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - last)
            if crash:
                outcome.crashes.append(crash)
            if is_over:
                break
    except EOFError:
        work.join()
        outcome.crashes.append(Crash(index, f"its process died with status {work.exitcode}"))
    work.join()
    return index + 1 if index >= 0 else sys.maxsize  # it cannot even begin


def _work(name: str, seed: int, numbers: range, seconds: float, pipe: Connection) -> None:
    faulthandler.enable()
    warnings.simplefilter("error")  # nothing of ours is to be seen on a user's screen
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="flarekd-fuzz-") as folder:
        path = Path(folder) / f"case{READERS[name].suffix}"
        samples(name)
        for index in numbers:
            pipe.send(index)
            path.write_bytes(make(name, seed, index))
            refused, crash = attempt(name, path, index)
            is_over = index + 1 == numbers.stop or time.monotonic() > until
            pipe.send((refused, crash, is_over))
            if is_over:
                return


def keep(outcome: Outcome, seed: int, folder: Path) -> None:
    """Write the inputs that made a reader crash, one a kind, and say what happened."""
    seen: set[tuple[str, str]] = set()
    for crash in outcome.crashes:
        kind = (crash.what.partition(":")[0], crash.where)
        if kind in seen or len(seen) >= MOST_KEPT:
            continue
        seen.add(kind)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{outcome.name}-{seed}-{crash.index}{READERS[outcome.name].suffix}"
        path.write_bytes(make(outcome.name, seed, crash.index))
        print(f"  {path}: {crash.what} ({crash.where})")


def main() -> int:
    """Fuzz the readers asked for; 1 where one crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="for each reader")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--out", type=Path, default=Path("fuzz-crashes"))
    given = parser.parse_args()
    crashes = 0
    for name in given.readers:
        outcome = fuzz(name, given.inputs, given.seed, given.seconds)
        crashes += len(outcome.crashes)
        print(outcome, flush=True)
        keep(outcome, given.seed, given.out)
    return min(1, crashes)


if __name__ == "__main__":
    sys.exit(main())
