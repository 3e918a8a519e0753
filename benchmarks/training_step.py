"""One training step, everything counted: flarekd against nnU-Net v2 on the same CPU cores.

A step is what a user waits for: read patches, augment, forward, loss, backward, clip, update.
flarekd runs its own `Trainer` and `Batches` with ``configs/flare23.yaml``; its steps are the times
between two calls of ``on_iteration``. nnU-Net runs its own ``train_step`` on its own loader (see
`nnunet` for what is and is not its own). Both train the same shape of network, counted to the last
parameter, on the same phantoms at the same spacing:

- ``student``: 3D, 32×128×192, batch 2, 15 outputs, 5,644,256 parameters;
- ``plain``: the 2D U-Net of Table 7, 512×512, batch 4, 2 outputs, 41,262,432 parameters;
- ``teacher``: the attention teacher, which nnU-Net does not have: flarekd alone, for information.

Sides alternate, each time in a new process of one warm-up step and ``--steps`` measured ones, so
that a machine that slows down slows both. nnU-Net's augmenter runs in one process beside the
training (its ``NonDetMultiThreadedAugmenter``); ``--workers 0 1 2`` also tries it in the training
process and in two, and the ratio is to the best of them.

Install: ``pip install --editable . nnunetv2==2.8.1``. Run, from the repository's root, on a machine
that does nothing else::

    python -m benchmarks.training_step --network student    # 6 minutes on two cores
    python -m benchmarks.training_step --network plain      # 9 minutes
    python -m benchmarks.training_step --network teacher --rounds 1 --steps 5    # 4 minutes

On a GPU the same commands with ``--device cuda --rounds 5 --steps 50`` also tell the peak of GPU
memory that torch took, and of flarekd's time the share spent waiting for data.

Prints and writes (``<out>/<network>.json`` and ``.md``) least, median and most seconds a step, peak
memory of the training process, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import nnunet
from benchmarks.phantoms import make_store, training_sources
from flarekd import config
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.labels import NAMES
from flarekd.memory import keep_freed_memory
from flarekd.protocol import Student, Teacher
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet
from flarekd.training.batches import Batches
from flarekd.training.fingerprint import intensity_statistics
from flarekd.training.log import LOG, read_log
from flarekd.training.loop import Trainer
from flarekd.training.prepare import Grid

NETWORKS = ("student", "plain", "teacher")
CASES, COHORT_SEED = 6, 3


def settings_of(name: str, changes: list[str]) -> Student | Teacher:
    """The section of ``configs/flare23.yaml`` that trains the network."""
    whole = config.load(config.builtin("flare23"), changes)
    if name == "student":
        return whole.student
    attention = "none" if name == "plain" else whole.teacher.attention
    return whole.teacher.model_copy(update={"attention": attention})


def classes_of(name: str) -> int:
    """Outputs: all of FLARE for the student, tumour or not for the teacher."""
    return len(NAMES) if name == "student" else 2


def load_data(
    name: str, settings: Student | Teacher, out: Path, preset: str
) -> tuple[list[StoredCase], IntensityStatistics]:
    """Cohort, store and statistics, made where they are missing."""
    sources = training_sources(out / "cohort", CASES, preset, COHORT_SEED)
    spacing = settings.spacing if isinstance(settings, Student) else (0.0, *settings.spacing)
    grid = Grid(spacing, settings.patch, tumor_only=name != "student")
    cases = make_store(sources, out / f"store-{grid.tumor_only}", grid)
    return cases, intensity_statistics(cases)


def flarekd_steps(
    settings: Student | Teacher,
    data: tuple[list[StoredCase], IntensityStatistics],
    classes: int,
    steps: int,
    *,
    folder: Path,
    device: torch.device,
) -> list[float]:
    """Seconds of each step of flarekd's loop, the first one included."""
    keep_freed_memory()
    torch.manual_seed(0)
    network: torch.nn.Module
    if isinstance(settings, Student):
        network = StudentUNet(classes, settings.channels, settings.strides)
    else:
        network = TeacherUNet(classes, settings.channels, settings.attention)
    settings = settings.model_copy(update={"epochs": 1, "iterations": steps})
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(network.to(device), settings, folder, 0, "benchmark", device)
    marks = [now(device)]
    batches = Batches(data[0], settings, data[1], 0, device=device)
    trainer.train(batches, lambda *_: marks.append(now(device)), lambda _: None)
    return [after - before for before, after in zip(marks, marks[1:], strict=False)]


def now(device: torch.device) -> float:
    """The time, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def nnunet_steps(
    settings: Student | Teacher, classes: int, steps: int, device: torch.device
) -> list[float]:
    """Seconds of each of nnU-Net's steps, the first one included."""
    torch.manual_seed(0)
    trainer = nnunet.make_trainer(settings, classes, device)
    trainer.lr_scheduler.step(0)
    marks = [now(device)]
    for _ in range(steps):
        trainer.train_step(next(trainer.dataloader_train))
        marks.append(now(device))
    nnunet.stop_loaders(trainer)
    return [after - before for before, after in zip(marks, marks[1:], strict=False)]


def worker(arguments: argparse.Namespace) -> None:
    """One process of one side; its last line is JSON."""
    name, out = arguments.network, arguments.out
    settings = settings_of(name, arguments.set)
    steps, device = 1 + arguments.steps, torch.device(arguments.device)
    told: dict[str, Any] = {}
    if arguments.worker == "flarekd":
        data = load_data(name, settings, out, arguments.preset)
        seconds = flarekd_steps(
            settings, data, classes_of(name), steps, folder=out / "run", device=device
        )
        told["data_wait_share"] = read_log(out / "run" / LOG)[-1]["data_wait_share"]
    else:
        seconds = nnunet_steps(settings, classes_of(name), steps, device)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        told["gpu"] = torch.cuda.get_device_name(device)
        told["peak_gpu_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    told |= {"seconds": seconds[1:], "peak_mib": peak_mib, "threads": torch.get_num_threads()}
    print(json.dumps(told))


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Least, median and most of all measured steps of each side; ratio to nnU-Net's best."""
    medians = {side: statistics.median(_seconds(found)) for side, found in runs.items()}
    peers = [median for side, median in medians.items() if side != "flarekd"]
    lines = ["| side | steps | s a step min / median / max | peak MiB | of nnU-Net's best |"]
    lines.append("|---|---|---|---|---|")
    for side, found in runs.items():
        seconds = _seconds(found)
        spread = f"{min(seconds):.2f} / {medians[side]:.2f} / {max(seconds):.2f}"
        ratio = f"{medians[side] / min(peers):.2f}" if peers else "–"
        peak = max(run["peak_mib"] for run in found)
        lines.append(f"| {side} | {len(seconds)} | {spread} | {peak:.0f} | {ratio} |")
    for side, found in runs.items():
        for name in ("gpu", "peak_gpu_mib", "data_wait_share"):
            values = sorted({run[name] for run in found if name in run})
            lines += [f"\n{side}: {name} {', '.join(map(str, values))}"] if values else []
    return "\n".join(lines) + "\n"


def _seconds(runs: list[dict[str, Any]]) -> list[float]:
    return [second for run in runs for second in run["seconds"]]


def main() -> None:
    """Make the data, alternate the sides, say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--out", type=Path, default=Path("training-step"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="measured steps a process")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="nnU-Net's")
    parser.add_argument("--preset", choices=("full", "quick"), default="full", help="phantoms")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for a trial")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--worker", choices=("flarekd", "nnunet"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return
    name, out = arguments.network, arguments.out
    settings = settings_of(name, arguments.set)
    cases, statistics_ = load_data(name, settings, out, arguments.preset)
    sides = {"flarekd": ("flarekd", 0)}
    if name != "teacher":
        nnunet.write_dataset(cases, statistics_, out, settings, classes_of(name))
        sides |= {f"nnU-Net, {n} workers": ("nnunet", n) for n in arguments.workers}
    words = ["--network", name, "--out", str(out), "--steps", str(arguments.steps)]
    words += ["--device", arguments.device, "--preset", arguments.preset, "--set", *arguments.set]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side, (program, workers) in sides.items():
            call = ["--worker", program, *words]
            runs[side].append(nnunet.run_worker("benchmarks.training_step", out, call, workers))
            (out / f"{name}.json").write_text(json.dumps(runs), encoding="utf-8")
    (out / f"{name}.md").write_text(table(runs), encoding="utf-8")
    print(table(runs))


if __name__ == "__main__":
    main()
