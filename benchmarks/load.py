"""A thousand small cases in one process, eight processes on two cores, and a limit on memory.

`python -m benchmarks.load --out FOLDER [--cases 1000] [--parts infer fuse parallel memory]`. Scans
are noise of 24 × 24 × 12 voxels and the student has random weights: what is looked at is the
process, not what it finds. Its memory, open files and threads are read from ``/proc`` every 0.2 s
(Linux), and compared between the second and the last tenth of the cases. A command fails where it
ends with a status, memory or open files grow, or a process is left behind; then the exit status
is 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.inference_setup import flarekd_command
from flarekd.cohort import Case, format_cohort
from flarekd.imaging.atomic import write_text
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import NAMES
from flarekd.modelfile import ModelCard, save_model
from flarekd.student.network import StudentUNet

SIZE, SPACING = (24, 24, 12), (1.5, 1.5, 4.0)
INTERVAL_S = 0.2
GROWTH = 1.05
"""Memory may be so much larger in the last tenth of the cases than in the second: noise."""

PARALLEL = 8
LARGE, LIMITS_GB = (320, 320, 120), (0.3, 0.7, 1.0)
"""Of the part ``memory``: a scan beside small ones, and what ``--max-memory`` is given."""


@dataclass(frozen=True)
class Look:
    """A process at a time."""

    done: int
    rss_mib: float
    files: int
    threads: int


@dataclass(frozen=True)
class Outcome:
    """A command at its end.

    Attributes:
        status: As a shell counts.
        seconds: That it took.
        peak_mib: The most memory of its process, as the kernel counts it.
        looks: At it, in order.
        left: Processes of its session that are still there.
    """

    status: int
    seconds: float
    peak_mib: float
    looks: list[Look]
    left: int

    def tenth(self, number: int, cases: int) -> tuple[float, float, float]:
        """Medians of memory, open files and threads in a tenth of the cases, from 0."""
        first, end = number * cases / 10, (number + 1) * cases / 10
        looks = [look for look in self.looks if first <= look.done < end]
        rows = [(look.rss_mib, look.files, look.threads) for look in looks]
        memory, files, threads = (float(statistics.median(row)) for row in zip(*rows, strict=True))
        return memory, files, threads


def make_inputs(out: Path, cases: int) -> None:
    """Scans, labels of every kind, a cohort.csv, a student; made once."""
    if (out / "cohort.csv").exists():
        return
    random, grid, rows = np.random.default_rng(0), Geometry(SIZE, SPACING), []
    for number in range(cases):
        case = f"c{number:04d}"
        scan = out / "scans" / f"{case}_0000.nii.gz"
        write_volume(scan, Volume(random.integers(-500, 500, SIZE[::-1]).astype(np.int16), grid))
        for folder, most in (("labels", 4), ("organs", 14), ("tumor", 1)):
            ids = random.integers(0, most, SIZE[::-1]).astype(np.uint8)
            write_labels(out / folder / f"{case}.nii.gz", LabelMap(ids, grid))
        label, organs = (out / folder / f"{case}.nii.gz" for folder in ("labels", "organs"))
        annotated = frozenset({1, 2, 3})
        rows.append(Case(case, scan, "train", 2, annotated, label, organs, SIZE, SPACING))
    save_student(out / "student.safetensors")
    write_text(out / "cohort.csv", format_cohort(rows, out))


def save_student(path: Path, patch: tuple[int, int, int] = (8, 16, 16)) -> None:
    """A student with random weights."""
    torch.manual_seed(0)
    network = {
        "classes": len(NAMES),
        "channels": (4, 4, 8, 8),
        "strides": ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
    }
    card = ModelCard(
        role="student", network=network, labels=NAMES, label_ids=tuple(range(len(NAMES))),
        spacing=(4.0, 1.5, 1.5), patch=patch, intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 1.0, "windows": "full"},
    )  # fmt: skip
    save_model(path, StudentUNet(**network).state_dict(), card)  # type: ignore[arg-type]  # as JSON has it


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own."""
    with log.open("wb") as file:
        return subprocess.Popen(
            list(command), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def watch(command: Sequence[str], out: Path) -> Outcome:
    """Run a command that writes a label map a case into `out`, and look at it all the while."""
    began, looks = time.monotonic(), []
    process = start(command, out.with_suffix(".txt"))
    seen = psutil.Process(process.pid)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        with suppress(psutil.Error, OSError):  # it has just ended
            done = len(list(out.glob("*.nii.gz")))
            rss_mib = seen.memory_info().rss / 2**20
            looks.append(Look(done, rss_mib, seen.num_fds(), seen.num_threads()))
        time.sleep(INTERVAL_S)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    peak_mib, left = usage.ru_maxrss / 1024, processes_of(process.pid)
    return Outcome(process.returncode, seconds, peak_mib, looks, left)


def processes_of(session: int) -> int:
    """Processes of a session that are there a second after its leader ended."""
    time.sleep(1)
    found = 0
    for pid in psutil.pids():
        try:
            is_running = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            found += is_running and os.getsid(pid) == session
        except (psutil.Error, OSError):
            continue
    return found


def steady(name: str, command: Sequence[str], out: Path, cases: int) -> bool:
    """All cases in one process: print a row of the table; whether nothing grew."""
    found = watch(command, out)
    if found.status:
        print(f"{name} ended with status {found.status}: see {out.with_suffix('.txt')}")
        return False
    early, late = found.tenth(1, cases), found.tenth(9, cases)
    shown = [f"{a:.0f} / {b:.0f}" for a, b in zip(early, late, strict=True)]
    print(
        f"| {name} | {cases:,} | {found.seconds:.0f} | {' | '.join(shown)} | {found.peak_mib:.0f} "
        f"| {found.left} |"
    )
    return late[0] <= GROWTH * early[0] and late[1] <= early[1] and not found.left


def side_by_side(out: Path, command: Sequence[str]) -> bool:
    """`PARALLEL` processes at once; whether all finish, with the same label maps."""
    began = time.monotonic()
    folders = [out / f"parallel-{number}" for number in range(PARALLEL)]
    running = [start([*command, str(one)], one.with_suffix(".txt")) for one in folders]
    statuses = [process.wait() for process in running]
    seconds = time.monotonic() - began
    maps = [{p.name: p.read_bytes() for p in one.glob("*.nii.gz")} for one in folders]
    is_same = all(one == maps[0] for one in maps)
    left = sum(processes_of(process.pid) for process in running)
    print(
        f"{PARALLEL} processes of {len(maps[0])} scans: status {statuses}, {seconds:.0f} s, "
        f"{'the same' if is_same else 'other'} label maps, {left} processes left"
    )
    return not any(statuses) and is_same and bool(maps[0]) and not left


def within_limits(out: Path) -> bool:
    """A large scan among small ones under limits; whether each was kept, or refused beforehand."""
    model = out / "wide.safetensors"
    save_student(model, (32, 128, 128))
    array = np.random.default_rng(0).integers(-500, 500, LARGE[::-1]).astype(np.int16)
    write_volume(out / "mixed" / "large_0000.nii.gz", Volume(array, Geometry(LARGE, SPACING)))
    for number in range(2):
        small = Volume(array[:12, :24, :24], Geometry(SIZE, SPACING))
        write_volume(out / "mixed" / f"small{number}_0000.nii.gz", small)
    kept = True
    print("| --max-memory, GB | status | label maps | peak GB |\n|---|---|---|---|")
    for limit in LIMITS_GB:
        labels = out / f"limit-{1000 * limit:.0f}-mb"
        words = ("infer", out / "mixed", "--model", model, "--out", labels, "--device", "cpu")
        command = flarekd_command(*words, "--max-memory", limit)
        found = watch(command, labels)
        peak_gb, maps = found.peak_mib * 2**20 / 1e9, len(list(labels.glob("*.nii.gz")))
        kept &= found.status == 2 or (peak_gb <= limit and found.status in (0, 4))
        print(f"| {limit} | {found.status} | {maps} | {peak_gb:.2f} |")
    return kept


def main() -> int:
    """Make the inputs, run the parts, print what came out; 1 where something grew or failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=1000)
    parts = ("infer", "fuse", "parallel", "memory")
    parser.add_argument("--parts", nargs="*", choices=parts, default=parts)
    arguments = parser.parse_args()
    out, cases = arguments.out.resolve(), arguments.cases
    make_inputs(out, cases)
    model, fine = out / "student.safetensors", True
    infer = ("infer", out / "scans", "--model", model, "--device", "cpu", "--out")
    if {"infer", "fuse"} & set(arguments.parts):
        columns = (
            "verb",
            "cases",
            "seconds",
            "RSS, MiB",
            "open files",
            "threads",
            "peak MiB",
            "left",
        )
        print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    if "infer" in arguments.parts:
        fine &= steady("infer", flarekd_command(*infer, out / "infer"), out / "infer", cases)
    if "fuse" in arguments.parts:
        words = ("--cohort", out / "cohort.csv", "--tumor", out / "tumor", "--out", out / "fuse")
        # one processor: no workers, the process does all cases itself
        command = ["taskset", "-c", "0", *flarekd_command("fuse", *words)]
        fine &= steady("fuse", command, out / "fuse", cases)
    if "parallel" in arguments.parts:
        few = sorted((out / "scans").iterdir())[:40]
        words = (*infer[:1], *few, *infer[2:])
        fine &= side_by_side(out, flarekd_command(*words))
    if "memory" in arguments.parts:
        fine &= within_limits(out)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
