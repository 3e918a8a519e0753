"""The questions of the paper's Tables 6 and 7, asked of phantoms with several seeds.

Every seed has a cohort of its own. On it two tumour teachers are trained, with attention and
without, and scored with all windows and with either probe; the attention teacher's pseudo-labels go
into both fusions, and four networks for all 14 classes learn from the fused labels: the 2D
attention network from simple and from the paper's fusion of the labelled cases, the small 3D one
from the labelled and from all cases. Held-out phantoms are scored against their whole truth at
native resolution::

    python -m benchmarks.ablation --out ablation                  # CPU size
    python -m benchmarks.ablation --out ablation-gpu --preset full --config flare23 --cases 1000

A run that is interrupted goes on with the training it was in. Budget of the defaults on two cores:
30 to 40 minutes a seed, two hours in all. On a GPU, where small networks leave most of it idle,
seeds and steps that need not wait for each other run side by side, a process each (``--seeds 0
--steps teacher-plain``), into one folder. Writes ``seed-<n>/scores/<run>.json``, and after every
run ``results.md`` of all seeds in the folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation_table import MEASURES, table
from flarekd import config, console, device
from flarekd.cohort import Case, read_cohort
from flarekd.config import dump
from flarekd.imaging.atomic import write_json, write_text
from flarekd.imaging.files import list_scans, read_labels, read_volume, write_labels
from flarekd.imaging.volume import LabelMap
from flarekd.inference import predictor
from flarekd.labels import NAMES
from flarekd.ledger import stamp
from flarekd.metrics.protocols import ClassScore, score_case
from flarekd.metrics.summary import summary_of
from flarekd.parallel import cpu_count
from flarekd.report.curves import draw_curves
from flarekd.road import phantom_folders
from flarekd.stages.fuse import fuse_labels
from flarekd.stages.group_data import group_data
from flarekd.stages.infer import infer
from flarekd.stages.phantom import make_phantoms
from flarekd.stages.pseudo_tumor import pseudo_tumor
from flarekd.stages.train_teacher import train_teacher
from flarekd.student.plan import student_plan
from flarekd.teacher.network import TeacherUNet
from flarekd.teacher.windows import Probe, segment_slices
from flarekd.training.plan import Plan
from flarekd.training.prepare import Grid, Source
from flarekd.training.session import run as run_training

MODEL = "model.safetensors"
SETTINGS = "settings"
"""In a file of scores: the stamp of the configuration that they are of."""

PROBES = {
    "full": Probe("center", 0),
    "top-left": Probe("top-left", 1),
    "center": Probe("center", 1),
}
NETWORKS = {
    "2d-simple": ("2d", "simple", False),
    "2d-paper": ("2d", "paper", False),
    "3d-paper": ("3d", "paper", False),
    "3d-paper-all": ("3d", "paper", True),
}
"""Run to its network, the fusion of its labels, and whether it learns from unlabelled cases too."""


@dataclass(frozen=True)
class Lab:
    """One seed's folder, configuration, and what phantoms it has how many of."""

    out: Path
    settings: config.Config
    preset: str
    size: int

    @property
    def cohort(self) -> Path:
        """Where the phantoms lie."""
        return self.out / "cohort"

    @property
    def cases(self) -> list[Case]:
        """Those to train on."""
        return [c for c in read_cohort(self.out / "cohort.csv") if c.split == "train"]

    def teacher(self, attention: str) -> Path:
        """The model file of a tumour teacher, trained unless it is there."""
        teacher = self.settings.teacher.model_copy(
            update={"attention": "published" if attention == "attention" else "none"}
        )
        settings = self.settings.model_copy(update={"teacher": teacher})
        return train_teacher(
            self.out / "cohort.csv", self.out / f"teacher-{attention}", settings, "auto", "may"
        )

    def network(self, run: str) -> Path:
        """The model file of a network for all classes, trained unless it is there."""
        kind, fusion, is_all = NETWORKS[run]
        fused = list_scans(self.out / f"fused-{fusion}")
        sources = [
            Source(c.case, c.image, fused[c.case]) for c in self.cases if is_all or c.annotated
        ]
        plan = student_plan(self.settings, len(NAMES))
        return run_training(
            _slices_plan(plan, self.settings) if kind == "2d" else plan,
            sources,
            self.out / run,
            device.choose("auto"),
            resume="may",
            screen=console,
            draw=draw_curves,
        )

    def note(self, run: str, segment: Callable[[Path], None], measures: Sequence[str]) -> None:
        """Score a run unless it has been, and write the table."""
        path, key = self.out / "scores" / f"{run}.json", stamp(dump(self.settings))
        done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if done.get(SETTINGS) != key:  # of other settings, whose networks were trained anew
            found = self.score(run, segment)
            write_json(path, {SETTINGS: key, **{measure: found[measure] for measure in measures}})
        write_text(self.out.parent / "results.md", table(_scores(self.out.parent)))

    def score(self, run: str, segment: Callable[[Path], None]) -> dict[str, float]:
        """DSC over the held-out phantoms of the label maps that `segment` writes to a folder."""
        predictions = self.out / "predictions" / run
        segment(predictions)
        truth = list_scans(self.cohort / "labelsVal")
        protocol = self.settings.protocol
        tasks = [(predictions / f"{case}.nii.gz", path, protocol) for case, path in truth.items()]
        with ThreadPoolExecutor(cpu_count()) as pool:
            scores = dict(zip(truth, pool.map(_score_case, tasks), strict=True))
        summary = summary_of(scores, {}, {}, protocol, {})
        return {measure: summary[measure]["dsc"] for measure in MEASURES}

    def segment_slices(self, model: Path, probe: Probe, out: Path) -> None:
        """Label the held-out phantoms by a 2D network."""
        ready = predictor.load(model, "teacher", TeacherUNet, device.choose("auto"), "auto")
        ids = np.asarray(ready.card.label_ids, np.uint8)
        threshold = ready.card.looking.threshold
        for case, path in list_scans(self.cohort / "imagesVal").items():
            volume = read_volume(path)
            found = segment_slices(
                ready.network,
                ready.network_input(volume),
                ready.card.patch[1:],
                volume.array.shape[1:],
                probe=probe,
                threshold=threshold,
                batch=16,
            )
            write_labels(out / f"{case}.nii.gz", LabelMap(ids[found.labels], volume.geometry))


def _score_case(task: tuple[Path, Path, str]) -> list[ClassScore]:
    prediction, truth, protocol = task
    reference = read_labels(truth)
    spacing = reference.geometry.spacing_zyx
    return score_case(read_labels(prediction).array, reference.array, spacing, protocol)


def _slices_plan(student: Plan, settings: config.Config) -> Plan:
    """The teacher's network and protocol with the student's task, and as many steps as that has."""
    equal = {"epochs": settings.student.epochs, "iterations": settings.student.iterations}
    teacher = settings.teacher.model_copy(update=equal)
    return replace(
        student,
        role="teacher",
        network={"classes": len(NAMES), "channels": teacher.channels, "attention": "published"},
        build=TeacherUNet,
        settings=teacher,
        grid=Grid((0.0, *teacher.spacing), teacher.patch, tumor_only=False),
        inference={},
    )


def _scores(out: Path) -> dict[int, Any]:
    """The scores of all seeds in a folder, as far as there are any: seed, run, measure."""
    found: dict[int, Any] = {}
    for path in sorted(out.glob("seed-*/scores/*.json")):
        seed = int(path.parents[1].name.split("-")[1])
        scores = json.loads(path.read_text(encoding="utf-8"))
        scores.pop(SETTINGS, None)
        found.setdefault(seed, {})[path.stem] = scores
    return {seed: found[seed] for seed in sorted(found)}


def _cohort(lab: Lab) -> None:
    make_phantoms(lab.cohort, lab.size, lab.preset, lab.settings.seed, cpu_count())
    group_data(phantom_folders(lab.cohort), lab.out / "cohort.csv")


def _teacher(attention: str, lab: Lab) -> None:
    model = lab.teacher(attention)
    for name, probe in PROBES.items():
        run = f"teacher-{attention}-{name}"
        lab.note(run, partial(lab.segment_slices, model, probe), ("tumor",))


def _fusion(lab: Lab) -> None:
    tumor = lab.out / "tumor"
    pseudo_tumor(lab.out / "cohort.csv", lab.out / "teacher-attention" / MODEL, tumor, "auto")
    for fusion in ("simple", "paper"):
        fuse_labels(lab.out / "cohort.csv", tumor, lab.out / f"fused-{fusion}", fusion)


def _network(run: str, lab: Lab) -> None:
    model = lab.network(run)
    if NETWORKS[run][0] == "2d":
        segment = partial(lab.segment_slices, model, PROBES["full"])
    else:
        segment = partial(infer, [lab.cohort / "imagesVal"], model)
    lab.note(run, segment, MEASURES)


STEPS: dict[str, Callable[[Lab], None]] = {
    "cohort": _cohort,
    "teacher-attention": partial(_teacher, "attention"),
    "teacher-plain": partial(_teacher, "plain"),
    "fusion": _fusion,
    **{run: partial(_network, run) for run in NETWORKS},
}


def main() -> None:
    """Seed by seed; the table is written after every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--preset", choices=("quick", "full"), default="quick")
    parser.add_argument("--cases", type=int, default=256)
    parser.add_argument("--config", default="quick", help="quick or flare23")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    print(f"{len(arguments.seeds)} seeds, some 40 minutes each on two cores at the quick size")
    for seed in arguments.seeds:
        settings = config.load(config.builtin(arguments.config), [*arguments.set, f"seed={seed}"])
        lab = Lab(arguments.out / f"seed-{seed}", settings, arguments.preset, arguments.cases)
        for step in arguments.steps:
            began = time.monotonic()
            STEPS[step](lab)
            print(f"seed {seed}, {step}: {time.monotonic() - began:.0f} s", flush=True)
    print(table(_scores(arguments.out)))


if __name__ == "__main__":
    main()
