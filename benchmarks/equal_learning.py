"""Equal learning: flarekd's student against nnU-Net v2's trainer, the same steps on the same data.

One phantom cohort, one split, one network shape, one optimizer with one schedule, one number of
steps, several seeds. Each side brings its own loader, sampling, augmentation and loss (`nnunet`
says how nnU-Net's are used); weights of both go through the same sliding windows and the same
scoring at native resolution. Grid and width are reduced, because a full-size step takes seconds.

Install: ``pip install --editable . nnunetv2==2.8.1``. Run, from the repository's root::

    python -m benchmarks.equal_learning --out equal-learning --optimizer adamw

A run that is interrupted goes on with the first seed and side that has no result yet. Budget of
the defaults: 6 trainings of 600 steps, each 0.35 s on one core, with cohort, store and scoring half
an hour. Writes ``<side>-<optimizer>-<seed>.json`` a training, ``results.json`` and ``results.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import nnunet
from benchmarks.phantoms import make_store, training_sources
from flarekd import config
from flarekd.imaging.files import list_scans, read_labels, read_volume
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.resampling import resample, target_shape
from flarekd.imaging.store import StoredCase
from flarekd.inference.accumulate import Network
from flarekd.inference.slabs import labels_from_logits
from flarekd.labels import NAMES, TUMOR
from flarekd.metrics import score_case, summarize
from flarekd.protocol import Optimizer, Student
from flarekd.student.network import StudentUNet
from flarekd.student.windows import predict_logits
from flarekd.training.batches import Batches
from flarekd.training.fingerprint import intensity_statistics
from flarekd.training.loop import Trainer
from flarekd.training.prepare import Grid
from flarekd.training.schedule import make_optimizer, poly_lr, warmup

CASES, COHORT_SEED = 80, 11
EPOCHS = 25
SIDES = ("flarekd", "nnunet")
GRID = [
    "student.spacing=[8, 6, 6]",
    "student.patch=[16, 32, 56]",
    "student.oversize=[16, 72, 72]",
    "student.channels=[16, 32, 64, 96]",
    "student.strides=[[1, 2, 2], [2, 2, 2], [2, 2, 2]]",
    "student.deep_supervision=[0.5714, 0.2857, 0.1429]",
]
OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.01, "momentum": 0.99, "weight_decay": 3e-5, "warmup": 0},
    "adamw": {"name": "adamw", "lr": 0.003, "weight_decay": 0.01, "warmup": 40},
}
"""``sgd`` is the recipe of both, made for 250,000 steps; ``adamw`` learns in hundreds."""


def student_settings(optimizer: str, iterations: int) -> Student:
    """The paper's protocol on a coarse grid: its sampling, augmentation and loss as they are."""
    student = config.load(config.builtin("flare23"), GRID).student
    facts: dict[str, Any] = {**OPTIMIZERS[optimizer], "clip": 12.0}
    changes = {"epochs": EPOCHS, "iterations": iterations // EPOCHS}
    return student.model_copy(update={**changes, "optimizer": Optimizer(**facts)})


def train_flarekd(
    settings: Student,
    cases: list[StoredCase],
    statistics_: IntensityStatistics,
    seed: int,
    folder: Path,
) -> Network:
    """Train by flarekd's own loop from first to last step; ready to predict."""
    torch.manual_seed(seed)
    network = StudentUNet(len(NAMES), settings.channels, settings.strides)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(network, settings, folder, seed, "benchmark", torch.device("cpu"))
    batches = Batches(cases, settings, statistics_, seed)
    network.load_state_dict(trainer.train(batches, lambda *_: None, lambda _: None))
    return network.eval()


def train_nnunet(settings: Student, seed: int) -> Network:
    """nnU-Net's training steps with the settings' optimizer and schedule."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002, TID251 (nnU-Net draws from numpy's global generator)
    trainer = nnunet.make_trainer(settings, len(NAMES), torch.device("cpu"))
    optimizer = settings.optimizer
    trainer.optimizer = make_optimizer(trainer.network, optimizer)
    for iteration in range(settings.epochs * settings.iterations):
        rate = poly_lr(optimizer.lr, iteration // settings.iterations, settings.epochs)
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate * warmup(iteration, optimizer.warmup)
        trainer.train_step(next(trainer.dataloader_train))
    trainer.set_deep_supervision_enabled(False)
    network: Network = trainer.network.eval()
    return network


def score(
    network: Network, settings: Student, statistics_: IntensityStatistics, cohort: Path
) -> dict[str, Any]:
    """Mean scores over the held-out phantoms, at native resolution (protocol flare23).

    The tumour's mean is that of the cases that have one: elsewhere finding nothing would score 1,
    and a network that has learned nothing of tumours would do best.
    """
    references = list_scans(cohort / "labelsVal")
    records, tumors = [], []
    for case, path in list_scans(cohort / "imagesVal").items():
        volume, reference = read_volume(path), read_labels(references[case])
        spacing = volume.geometry.spacing_zyx
        hu = resample(volume.array, target_shape(volume.array.shape, spacing, settings.spacing))
        tensor = torch.from_numpy(statistics_.normalize(hu))
        logits = predict_logits(network, tensor, settings.patch, step=settings.step).logits
        labels = labels_from_logits(logits, volume.array.shape)
        scores = score_case(labels, reference.array, spacing, "flare23")
        records += scores
        if (reference.array == TUMOR).any():
            tumors += [score for score in scores if score.label == TUMOR]
    return summarize(records, "flare23") | {"tumor": summarize(tumors, "flare23")["tumor"]}


def worker(arguments: argparse.Namespace) -> None:
    """One training and its score, as the last line of stdout."""
    settings = student_settings(arguments.optimizer, arguments.iterations)
    cases, statistics_ = load_data(arguments.out, settings)
    began = time.monotonic()
    if arguments.worker == "flarekd":
        folder = arguments.out / f"run-{arguments.optimizer}-{arguments.seed}"
        network = train_flarekd(settings, cases, statistics_, arguments.seed, folder)
    else:
        network = train_nnunet(settings, arguments.seed)
    seconds = time.monotonic() - began
    scores = score(network, settings, statistics_, arguments.out / "cohort")
    facts = {"side": arguments.worker, "seed": arguments.seed, "optimizer": arguments.optimizer}
    facts |= {"iterations": settings.epochs * settings.iterations, "seconds": round(seconds, 1)}
    print(json.dumps({**facts, "scores": scores}))


def load_data(out: Path, settings: Student) -> tuple[list[StoredCase], IntensityStatistics]:
    """Cohort, store and statistics, made where they are missing."""
    sources = training_sources(out / "cohort", CASES, "quick", COHORT_SEED)
    grid = Grid(settings.spacing, settings.patch, tumor_only=False)
    cases = make_store(sources, out / "store", grid)
    return cases, intensity_statistics(cases)


def table(results: list[dict[str, Any]]) -> str:
    """Mean, least and most of each side over the seeds, in percent."""
    lines = ["| side | optimizer | seeds | organs DSC % | tumour DSC % | training s |"]
    lines.append("|---|---|---|---|---|---|")
    for optimizer in OPTIMIZERS:
        for side in SIDES:
            runs = [r for r in results if (r["side"], r["optimizer"]) == (side, optimizer)]
            if runs:
                cells = [_spread([100 * r["scores"][k]["dsc"] for r in runs]) for k in SCORES]
                seconds = statistics.median(r["seconds"] for r in runs)
                lines.append(
                    f"| {side} | {optimizer} | {len(runs)} | {' | '.join(cells)} | {seconds:.0f} |"
                )
    return "\n".join(lines) + "\n"


SCORES = ("organs", "tumor")


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    """Run what has no result yet, then say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("equal-learning"))
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="sgd")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return
    settings = student_settings(arguments.optimizer, arguments.iterations)
    cases, statistics_ = load_data(arguments.out, settings)
    nnunet.write_dataset(cases, statistics_, arguments.out, settings, len(NAMES))
    for seed in range(arguments.seeds):
        for side in SIDES:
            path = arguments.out / f"{side}-{arguments.optimizer}-{seed}.json"
            if not path.exists():
                words = ["--out", str(arguments.out), "--optimizer", arguments.optimizer]
                words += ["--iterations", str(arguments.iterations)]
                words += ["--worker", side, "--seed", str(seed)]
                result = nnunet.run_worker("benchmarks.equal_learning", arguments.out, words)
                path.write_text(json.dumps(result), encoding="utf-8")
            paths = sorted(arguments.out.glob("*-*-[0-9].json"))
            results = [json.loads(each.read_text(encoding="utf-8")) for each in paths]
            (arguments.out / "results.json").write_text(json.dumps(results), encoding="utf-8")
            (arguments.out / "results.md").write_text(table(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
