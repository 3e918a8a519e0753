"""Does review put faulty cases first? Phantoms with planted faults, against chance.

`python -m benchmarks.review --out COHORT [--cases 240] [--seed 0] [--faults 0]`. Quick phantoms are
fused as the road does it: partial labels, organ pseudo-labels with errors of their own (borders
that wander, organs missed or cut short), and the true tumours in the teacher's place. Into the
fused maps of 40 cases, drawn by a seed, one fault each is planted:

- sides: kidneys and adrenals exchanged, or the whole map mirrored;
- shift: the whole map 12 to 30 mm off in any direction;
- tumour: a false one, a ball of 8 to 20 mm radius anywhere inside the body;
- missing: one organ that the scan shows whole, taken out.

The rest has what phantoms have anyway: patients without a spleen or a kidney, missed organs, odd
tumours. All are measured and judged by the functions of the verb, which draws pictures too. Nothing
is known of fusion (`fusion.csv`), which would give some faults away. Printed is the share of
planted cases in the first quarter of review's order, by fault; at chance it is a quarter.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd import console
from flarekd.appearance import look
from flarekd.extents import measure_extents
from flarekd.fusion import fuse
from flarekd.imaging.files import read_labels, read_volume
from flarekd.imaging.volume import Volume
from flarekd.labels import GROUPS, ORGANS, TUMOR
from flarekd.parallel import cpu_count
from flarekd.phantom.patient import CasePlan
from flarekd.phantom.plan import plan_cohort
from flarekd.stages.phantom import case_files, make_phantoms
from flarekd.suspicion import Reason, judge, rank_key
from flarekd.usuals import Subject

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


def fuse_phantom(cohort: Path, plan: CasePlan) -> tuple[Labels, Volume]:
    """The label map that the road would make of a phantom, and its scan."""
    image, *rest = case_files(cohort, plan)
    maps = {path.parent.name: read_labels(path).array for path in rest}
    truth, organs = maps["truth"], maps["organPseudo"]
    annotated = GROUPS.get(plan.group, frozenset())
    partial = maps.get("labelsTr", np.zeros_like(truth))
    return fuse(partial, truth == TUMOR, organs, annotated), read_volume(image)


def judge_cohort(
    cohort: Path, plans: Sequence[CasePlan], seed: int
) -> tuple[dict[str, list[Reason]], dict[str, str]]:
    """Plant, measure and judge as the verb does; case to reasons, and planted case to fault."""
    order = np.random.default_rng(seed).permutation([plan.case for plan in plans]).tolist()
    planted = {order.pop(): fault for fault in FAULTS for _ in range(EACH)}
    subjects = {}
    with console.progress("Measuring") as advance:
        for done, plan in enumerate(plans, 1):
            labels, scan = fuse_phantom(cohort, plan)
            if plan.case in planted:
                own = np.random.default_rng([seed, plan.index])
                labels = FAULTS[planted[plan.case]](labels, scan, own)
            measured = look(labels, scan.array, scan.geometry.spacing_zyx)
            has_drawn = TUMOR in GROUPS.get(plan.group, ())
            subjects[plan.case] = Subject(measured, None, has_drawn)
            advance(done, len(plans), plan.case)
    return judge(subjects), planted


def first_quarter(
    reasons: Mapping[str, list[Reason]], planted: Mapping[str, str]
) -> list[list[str]]:
    """By fault: how many of its cases are in the first quarter, and their places."""
    order = sorted(reasons, key=lambda case: rank_key(case, reasons[case]))
    quarter = len(order) // 4
    rows = []
    for fault in [*FAULTS, "all"]:
        places = sorted(order.index(c) + 1 for c, f in planted.items() if fault in (f, "all"))
        found = sum(place <= quarter for place in places)
        shown = " ".join(map(str, places)) if fault != "all" else f"the first {quarter}"
        rows.append([fault, f"{found} of {len(places)}", f"{found / len(places):.0%}", shown])
    return rows


def main() -> None:
    """Make, plant, judge, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0, help="of the phantoms")
    parser.add_argument("--faults", type=int, default=0, help="seed of what is planted where")
    options = parser.parse_args()
    make_phantoms(options.out, options.cases, "quick", options.seed, cpu_count())
    plans = [p for p in plan_cohort(options.cases, "quick", options.seed) if p.role != "val"]
    rows = first_quarter(*judge_cohort(options.out, plans, options.faults))
    columns = ["fault", "in the first quarter", "share", "places in the order"]
    console.table(f"{len(plans)} cases, 4 × {EACH} planted faults", columns, rows)


if __name__ == "__main__":
    main()
