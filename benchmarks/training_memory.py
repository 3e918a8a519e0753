"""Memory of a training process over 2,000 steps: is it flat?

A narrow student is trained by flarekd's own `Trainer` and `Batches`, with the whole augmentation of
``configs/flare23.yaml``, elastic deformation at every other patch included. Resident memory is read
from the kernel after each step.

Run, from the repository's root, with flarekd installed (Linux)::

    python -m benchmarks.training_memory --out training-memory    # 5 minutes on one core

Prints the memory at some steps and the slope of a line through the second half, in KiB a step;
writes all of it to ``<out>/memory.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path

import numpy as np
import torch

from benchmarks.phantoms import make_store, training_sources
from flarekd import config
from flarekd.labels import NAMES
from flarekd.memory import keep_freed_memory
from flarekd.protocol import Student
from flarekd.student.network import StudentUNet
from flarekd.training.batches import Batches
from flarekd.training.fingerprint import intensity_statistics
from flarekd.training.loop import Trainer
from flarekd.training.prepare import Grid

CASES, COHORT_SEED = 12, 5
EPOCHS = 20
SETTINGS = [
    "student.spacing=[8, 6, 6]",
    "student.patch=[16, 32, 48]",
    "student.oversize=[16, 58, 58]",
    "student.channels=[8, 16, 32]",
    "student.strides=[[1, 2, 2], [2, 2, 2]]",
    "student.deep_supervision=[0.6667, 0.3333]",
    "student.augmentation.elastic=0.5",
]


def resident_kib() -> int:
    """What of this process lies in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024


def train(settings: Student, out: Path) -> list[int]:
    """Train; resident memory after each step, KiB."""
    sources = training_sources(out / "cohort", CASES, "quick", COHORT_SEED)
    grid = Grid(settings.spacing, settings.patch, tumor_only=False)
    cases = make_store(sources, out / "store", grid)
    torch.manual_seed(0)
    network = StudentUNet(len(NAMES), settings.channels, settings.strides)
    trainer = Trainer(network, settings, out, 0, "benchmark", torch.device("cpu"))
    batches = Batches(cases, settings, intensity_statistics(cases), 0)
    kib: list[int] = []
    trainer.train(batches, lambda *_: kib.append(resident_kib()), lambda _: None)
    return kib


def main() -> None:
    """Train, and say whether memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("training-memory"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--give-back", action="store_true", help="leave the allocator as it is")
    arguments = parser.parse_args()
    if not arguments.give_back:
        keep_freed_memory()
    changes = {"epochs": EPOCHS, "iterations": arguments.steps // EPOCHS}
    settings = config.load(config.builtin("flare23"), SETTINGS).student.model_copy(update=changes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    kib = train(settings, arguments.out)
    late = np.arange(len(kib) // 2, len(kib))
    slope = float(np.polyfit(late, np.asarray(kib)[late], 1)[0])
    text = json.dumps({"slope_kib_a_step": slope, "resident_kib": kib})
    (arguments.out / "memory.json").write_text(text, encoding="utf-8")
    for step in np.linspace(0, len(kib) - 1, 9).astype(int):
        print(f"step {step + 1}: {kib[step] / 1024:.1f} MiB")
    print(f"slope of the second half: {slope:+.3f} KiB a step")


if __name__ == "__main__":
    main()
