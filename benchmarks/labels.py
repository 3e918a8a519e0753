"""Logits to labels at native size: the shortcut against interpolating every voxel.

`python -m benchmarks.labels [--repeats 5] [--threads 2] [--noise]`. The logits are shaped like a
student's answer to an abdomen: organs are blobs of a wavy surface whose logits rise within a few
voxels, everything else is background. `--noise` takes white noise instead, where every cell is
mixed. Each way runs in a process of its own, and the ways take turns; memory is the growth of the
process's peak in its first call, its 75 MiB of labels among it. On a machine that others use too,
trust the CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from flarekd import console
from flarekd.inference import slabs

CLASSES, SOURCE, NATIVE = 15, (75, 341, 341), (300, 512, 512)
Labels = NDArray[np.uint8]


def organ_logits(noisy: bool = False) -> Tensor:
    """Float32 (15, 75, 341, 341): two to four wavy blobs a class before a background of 2."""
    generator = torch.Generator().manual_seed(0)
    if noisy:
        return torch.randn(CLASSES, *SOURCE, generator=generator)
    logits = torch.empty(CLASSES, *SOURCE)
    logits[0] = 2.0
    axes = [torch.linspace(0, 1, size) for size in SOURCE]
    for label in range(1, CLASSES):
        nearest = torch.full(SOURCE, 9.0)
        for _ in range(int(torch.randint(2, 5, (), generator=generator))):
            centre = 0.2 + 0.6 * torch.rand(3, generator=generator)
            radius = 0.03 + 0.13 * torch.rand(3, generator=generator)
            z, y, x = (
                ((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radius, strict=True)
            )
            torch.minimum(nearest, (z[:, None, None] + y[:, None] + x).sqrt_(), out=nearest)
        coarse = torch.randn(1, 1, 20, 40, 40, generator=generator)
        waves = functional.interpolate(coarse, SOURCE, mode="trilinear")[0, 0]
        logits[label] = (12 * (1 - nearest) + waves).clamp_(-6, 10)
    return logits


def _whole(logits: Tensor) -> Labels:
    every = functional.interpolate(logits[None], NATIVE, mode="trilinear")[0]
    labels: Labels = every.argmax(0).byte().numpy()
    return labels


def _dense(logits: Tensor) -> Labels:
    """The slabs without the shortcut: every cell is taken for mixed."""
    slabs.MOST_MIXED = -1.0
    return slabs.labels_from_logits(logits, NATIVE)


WAYS: dict[str, Callable[[Tensor], Labels]] = {
    "shortcut": lambda logits: slabs.labels_from_logits(logits, NATIVE),
    "slabs": _dense,
    "nearest": lambda logits: slabs.labels_from_logits(logits, NATIVE, "nearest"),
    "whole": _whole,
}


def main() -> None:
    """Run every way in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--way", choices=WAYS, help="for the processes that this one starts")
    parser.add_argument("--folder", type=Path, help="where they find the logits")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way:
        _run(options)
    else:
        with TemporaryDirectory() as folder:
            _compare(options, Path(folder))


def _run(options: argparse.Namespace) -> None:
    """One call of one way: its labels to a file, seconds and memory to stdout."""
    # made elsewhere: making them takes more memory than what is measured
    logits = torch.from_numpy(np.load(options.folder / "logits.npy"))
    before = peak_kib()
    began, began_cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        labels = WAYS[options.way](logits)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    grown_mib = (peak_kib() - before) / 1024
    np.save(options.folder / f"{options.way}.npy", labels)
    sys.stdout.write(json.dumps({"seconds": seconds, "cpu": cpu, "mib": grown_mib}))


def peak_kib() -> int:
    """This process's own peak (Linux): getrusage's begins with that of the process it came from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0])


def _compare(options: argparse.Namespace, folder: Path) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    np.save(folder / "logits.npy", organ_logits(options.noise).numpy())
    for _ in range(options.repeats):
        for way, runs in found.items():
            command = [sys.executable, "-m", "benchmarks.labels", "--way", way]
            command += ["--threads", str(options.threads), "--folder", str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout))
    truth = np.load(folder / "whole.npy", mmap_mode="r")
    rows = []
    for way, runs in found.items():
        differ = np.count_nonzero(np.load(folder / f"{way}.npy", mmap_mode="r") != truth)
        rows.append(
            [
                way,
                *(spread([run[clock] for run in runs]) for clock in ("seconds", "cpu")),
                f"{max(run['mib'] for run in runs):,.0f}",
                f"{differ:,}",
            ]
        )
    kind = "white noise" if options.noise else "organs"
    title = (
        f"{(CLASSES, *SOURCE)} → {NATIVE}, {kind}, {options.threads} threads; min / median / max"
    )
    console.table(title, ["way", "seconds", "CPU seconds", "MiB", "labels that differ"], rows)


def spread(values: list[float]) -> str:
    """Least, median and greatest."""
    return " / ".join(f"{pick(values):.2f}" for pick in (np.min, np.median, np.max))


if __name__ == "__main__":
    main()
