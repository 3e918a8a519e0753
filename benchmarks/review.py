"""Does review put faulty cases first? Phantoms with planted faults, against chance.

`python -m benchmarks.review --out review-benchmark [--cases 240] [--seed 0]`. A cohort of quick
phantoms is fused as the road does it: partial labels, organ pseudo-labels with errors of their own
(borders that wander, organs missed or cut short), and the true tumours in the teacher's place. Into
the fused labels of 40 cases, drawn by the seed, one fault each is planted; `fusion.csv`, which was
written before, gives nothing away:

- sides: kidneys and adrenals exchanged, or the whole map mirrored;
- shift: the whole map 12 to 30 mm off in any direction;
- tumour: a false one, a ball of 8 to 20 mm radius anywhere inside the body;
- missing: one organ that the scan shows whole, taken out.

The rest has what phantoms have anyway: patients without a spleen or a kidney, missed organs, odd
tumours. Printed is the share of planted cases in the first quarter of review's order, by fault; at
chance it is a quarter.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd import console
from flarekd.cohort import read_cohort
from flarekd.extents import measure_extents
from flarekd.imaging.files import read_labels, read_volume, write_labels
from flarekd.imaging.volume import LabelMap, Volume
from flarekd.labels import ORGANS, TUMOR
from flarekd.parallel import cpu_count
from flarekd.stages.fuse import fuse_labels
from flarekd.stages.group_data import Folders, group_data
from flarekd.stages.phantom import make_phantoms
from flarekd.stages.review import TABLE, review

EACH = 10
AIR_HU = -300.0
Labels = NDArray[np.uint8]
Triple = tuple[float, float, float]


def swap(labels: Labels, _: Volume, random: np.random.Generator) -> Labels:
    """Right for left: kidneys and adrenals, or the whole map."""
    if random.random() < 0.5:
        return np.ascontiguousarray(labels[:, :, ::-1])
    table = np.arange(256, dtype=np.uint8)
    table[[2, 13, 7, 8]] = [13, 2, 8, 7]
    return table[labels]


def shift(labels: Labels, scan: Volume, random: np.random.Generator) -> Labels:
    """The whole map 12 to 30 mm off."""
    direction = random.normal(size=3)
    mm = direction / np.linalg.norm(direction) * random.uniform(12, 30)
    moved = labels
    for axis, step in enumerate(np.rint(mm / scan.geometry.spacing_zyx).astype(int)):
        moved = np.roll(moved, step, axis)
        edge = [slice(None)] * 3
        edge[axis] = slice(0, step) if step > 0 else slice(labels.shape[axis] + step, None)
        if step:
            moved[tuple(edge)] = 0
    return moved


def invent(labels: Labels, scan: Volume, random: np.random.Generator) -> Labels:
    """A ball of tumour somewhere inside the body, away from true tumours."""
    body = ndimage.binary_opening(scan.array > AIR_HU, iterations=2)
    body = ndimage.binary_fill_holes(body.any(0))[None] & (scan.array > -2000)
    spacing = scan.geometry.spacing_zyx
    radius = random.uniform(8, 20)
    far = ndimage.distance_transform_edt(labels != TUMOR, sampling=spacing) > 2 * radius
    inner = ndimage.distance_transform_edt(body, sampling=spacing) > radius
    places = np.argwhere(far & inner & (scan.array > AIR_HU))
    centre = places[random.integers(len(places))]
    axes = [(np.arange(n) - c) * mm for n, c, mm in zip(labels.shape, centre, spacing, strict=True)]
    ball = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2 < radius**2
    changed = labels.copy()
    changed[ball] = TUMOR
    return changed


def remove(labels: Labels, scan: Volume, random: np.random.Generator) -> Labels:
    """Take out one organ that no end of the scan cuts."""
    there = measure_extents(labels, scan.geometry.spacing_zyx)
    whole = [label for label in ORGANS if label in there and not there[label].cut_off]
    changed = labels.copy()
    changed[changed == random.choice(whole)] = 0
    return changed


FAULTS: dict[str, Callable[[Labels, Volume, np.random.Generator], Labels]] = {
    "sides": swap,
    "shift": shift,
    "tumour": invent,
    "missing": remove,
}


def make(out: Path, cases: int, seed: int, jobs: int) -> None:
    """The cohort, fused: what a run of the road would give review."""
    source = out / "cohort"
    make_phantoms(source, cases, "quick", seed, jobs)
    folders = Folders(
        source / "imagesTr", source / "labelsTr", source / "imagesUnlabeled", source / "organPseudo"
    )
    if not (out / "cohort.csv").exists():
        group_data(folders, out / "cohort.csv")
    tumor = out / "tumor"
    for path in sorted((source / "truth").glob("*.nii.gz")):
        if not (tumor / path.name).exists():
            truth = read_labels(path)
            only = np.where(truth.array == TUMOR, TUMOR, 0).astype(np.uint8)
            write_labels(tumor / path.name, LabelMap(only, truth.geometry))
    fuse_labels(out / "cohort.csv", tumor, out / "fused", "paper")


def plant(out: Path, seed: int) -> dict[str, str]:
    """Write ``labels``: the fused maps, faults in `EACH` cases a kind. Case to fault."""
    random = np.random.default_rng(seed)
    cases = {case.case: case for case in read_cohort(out / "cohort.csv")}
    names = random.permutation(sorted(cases)).tolist()
    planted = {names.pop(): fault for fault in FAULTS for _ in range(EACH)}
    (out / "labels").mkdir(exist_ok=True)
    for name, case in cases.items():
        fused = read_labels(out / "fused" / f"{name}.nii.gz")
        array = fused.array
        own = np.random.default_rng([seed, int(name.split("_")[1])])
        if name in planted:
            array = FAULTS[planted[name]](array, read_volume(case.image), own)
        write_labels(out / "labels" / f"{name}.nii.gz", LabelMap(array, fused.geometry))
    (out / "planted.json").write_text(json.dumps(planted, indent=1), encoding="utf-8")
    return planted


def first_quarter(out: Path, planted: dict[str, str]) -> list[list[str]]:
    """By fault: how many of its cases are in the first quarter, and their places."""
    text = (out / "review" / TABLE).read_text(encoding="utf-8")
    order = [row["case"] for row in csv.DictReader(io.StringIO(text))]
    quarter = len(order) // 4
    rows = []
    for fault in [*FAULTS, "all"]:
        places = sorted(order.index(c) + 1 for c, f in planted.items() if fault in (f, "all"))
        found = sum(place <= quarter for place in places)
        shown = " ".join(map(str, places)) if fault != "all" else f"quarter: {quarter}"
        rows.append([fault, f"{found} of {len(places)}", f"{found / len(places):.0%}", shown])
    return rows


def main() -> None:
    """Make, plant, review, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make(options.out, options.cases, options.seed, cpu_count())
    planted = plant(options.out, options.seed)
    review(options.out / "cohort.csv", options.out / "labels", options.out / "review")
    rows = first_quarter(options.out, planted)
    columns = ["fault", "in the first quarter", "share", "places in the order"]
    console.table(f"{options.cases} phantoms, 4 × {EACH} planted faults", columns, rows)


if __name__ == "__main__":
    main()
