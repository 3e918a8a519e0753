"""Scoring against the published implementation, PyPI's ``surface-distance``: numbers, time, memory.

`python -m benchmarks.evaluation [--repeats 5] [--shift]`. Two tasks: a corpus of 300 small random
pairs of masks, for the numbers, and one patient of 512×512×300 voxels with 14 organ-sized classes,
for time and memory. flarekd's ``score_case`` measures HD95 and volumes beside DSC and NSD; the
published code is asked for DSC and NSD only. CPU seconds of one thread, both ways in turn in one
process; memory is the growth of the peak of a process of its own that holds the label maps already.
`--shift` moves the prediction 17 mm off, where HD95 needs distances far beyond the tolerances.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.labels import peak_kib, spread
from flarekd import console
from flarekd.labels import LABELS
from flarekd.metrics import TUBES, dice, score_case, surface_dice, surfel_areas

PAIRS = 300
KINDS = ("alike", "alike", "unlike", "one empty", "both empty", "single slice", "border", "blocks")
SPACINGS_MM = (0.5, 0.7, 0.8, 1.0, 2.5, 5.0)
TOLERANCES_MM = (0.0, 1.0, 2.0, 3.0, 5.0, 7.0)

Triple = tuple[float, float, float]
Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """Two masks to score."""

    kind: str
    prediction: Mask
    reference: Mask
    spacing_zyx: Triple
    tolerance_mm: float


def corpus(count: int = PAIRS) -> Iterator[Pair]:
    """Random pairs of masks of up to 24 voxels a side, anisotropic, every kind in turn."""
    for number in range(count):
        generator = np.random.default_rng(number)
        kind = KINDS[number % len(KINDS)]
        shape = tuple(int(n) for n in generator.integers(1, 25, 3))
        smooth = 0.0 if kind == "blocks" else generator.uniform(0, 3)
        white = generator.normal(size=(2, *shape))
        noise = ndimage.gaussian_filter(white, (0, smooth, smooth, smooth))
        noise /= noise.std() + 1e-9
        likeness = 0.0 if kind == "unlike" else generator.uniform(0.3, 1)
        level = generator.uniform(-1, 2)
        one, two = noise[0] > level, likeness * noise[0] + (1 - likeness) * noise[1] > level
        if kind == "one empty":
            (one, two)[generator.integers(2)][:] = False
        elif kind == "both empty":
            one[:] = two[:] = False
        elif kind == "single slice":
            one[np.arange(shape[0]) != generator.integers(shape[0])] = False
        elif kind == "border":
            one[:, 0] = two[..., -1] = two[:, 0] = True
        z, y, x = generator.choice(SPACINGS_MM, 3).tolist()
        yield Pair(kind, one, two, (z, y, x), float(generator.choice(TOLERANCES_MM)))


def patient() -> tuple[Labels, Labels, Triple]:
    """A 300×512×512 label map of 14 organ-sized ellipsoids, and a prediction about 2 voxels off."""
    generator = np.random.default_rng(0)
    spacing = (1.0, 0.75, 0.75)
    centers = [(190, 200, 150), (130, 300, 170), (200, 300, 400), (150, 240, 270), (150, 300, 270)]
    centers += [(150, 290, 230), (190, 290, 200), (190, 290, 320), (140, 200, 180), (230, 290, 260)]
    centers += [(190, 200, 340), (130, 240, 210), (130, 300, 360), (190, 180, 120)]
    radii_mm = [(85, 70, 90), (50, 28, 28), (55, 35, 30), (20, 18, 60), (130, 11, 11)]
    radii_mm += [(130, 12, 12), (12, 5, 10), (12, 5, 10), (25, 15, 15), (60, 9, 9)]
    radii_mm += [(60, 40, 45), (35, 25, 25), (50, 28, 28), (20, 20, 20)]
    maps = np.zeros((2, 300, 512, 512), np.uint8)
    for label, (center, radius_mm) in enumerate(zip(centers, radii_mm, strict=True), start=1):
        radius = np.divide(radius_mm, spacing)
        low = np.maximum(np.subtract(center, radius + 8).astype(int), 0)
        high = np.minimum(np.add(center, radius + 8).astype(int), maps.shape[1:])
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        z, y, x = ((g - c) / r for g, c, r in zip(np.ogrid[box], center, radius, strict=True))
        for one, amplitude in zip(maps, (0.05, 0.1), strict=True):
            coarse = generator.normal(size=[max(2, n // 12) for n in high - low])
            noise = ndimage.zoom(coarse, np.divide(high - low, coarse.shape), order=1)
            one[box][z**2 + y**2 + x**2 + amplitude * noise < 1] = label
    return maps[1], maps[0], spacing


def published(
    prediction: Mask, reference: Mask, spacing: Triple, tolerance_mm: float
) -> tuple[float, float]:
    """DSC and NSD of two masks by ``surface-distance``; NaN where both are empty."""
    import surface_distance

    if not (prediction.any() or reference.any()):
        return math.nan, math.nan
    if not (prediction.any() and reference.any()):
        return 0.0, 0.0  # every distance is infinite; 0.1 says so by a name numpy 2 took away
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
    return (
        surface_distance.compute_dice_coefficient(reference, prediction),
        surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm),
    )


def published_case(
    prediction: Labels, reference: Labels, spacing: Triple
) -> list[tuple[float, float]]:
    """DSC and NSD of the 14 classes by the same; tubes are cut to the slices of the reference."""
    scores = []
    for label in LABELS:
        ours, theirs = prediction == label.id, reference == label.id
        if label.id in TUBES and theirs.any():
            slices = np.flatnonzero(theirs.any(axis=(1, 2)))
            ours, theirs = (mask[slices[0] : slices[-1] + 1] for mask in (ours, theirs))
        scores.append(published(ours, theirs, spacing, label.tolerance_mm))
    return scores


def _ours(prediction: Labels, reference: Labels, spacing: Triple) -> list[tuple[float, float]]:
    scores = score_case(prediction, reference, spacing, "corrected")
    return [(score.dsc, score.nsd) for score in scores]


WAYS = {"flarekd": _ours, "surface-distance": published_case}


def main() -> None:
    """Run both tasks and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shift", action="store_true")
    parser.add_argument("--way", choices=WAYS, help="for the processes that this one starts")
    parser.add_argument("--folder", type=Path, help="where they find the label maps")
    options = parser.parse_args()
    # the published code imports scipy by an old name
    warnings.filterwarnings("ignore", "Please import", DeprecationWarning)
    import surface_distance  # noqa: F401 - loaded before anything is timed

    surfel_areas((1.0, 1.0, 1.0))  # the table is made once a process
    if options.way:
        sys.stdout.write(json.dumps(_grown_mib(options.way, options.folder)))
        return
    _corpus()
    _patient(options.repeats, options.shift)


def _corpus() -> None:
    pairs = list(corpus())
    took = dict.fromkeys(WAYS, 0.0)
    scores = {}
    for name, score in (("flarekd", _pair), ("surface-distance", _published_pair)):
        began = time.process_time()
        scores[name] = np.asarray([score(pair) for pair in pairs])
        took[name] = time.process_time() - began
    ours, theirs = scores.values()
    same = np.array_equal(np.isnan(ours), np.isnan(theirs))
    off = np.nanmax(np.abs(ours - theirs), axis=0)
    console.result(
        f"{len(pairs)} pairs: undefined in the same cases: {same}; DSC at most {off[0]:.1g} apart, "
        f"NSD {off[1]:.1g}; {took['flarekd']:.2f} s against {took['surface-distance']:.2f} s"
    )


def _pair(pair: Pair) -> tuple[float, float]:
    masks = pair.prediction, pair.reference
    return dice(*masks), surface_dice(*masks, pair.spacing_zyx, pair.tolerance_mm)


def _published_pair(pair: Pair) -> tuple[float, float]:
    return published(pair.prediction, pair.reference, pair.spacing_zyx, pair.tolerance_mm)


def _patient(repeats: int, is_shifted: bool) -> None:
    prediction, reference, spacing = patient()
    if is_shifted:
        prediction = np.roll(prediction, (9, 13, 13), (0, 1, 2))
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    scores: dict[str, Any] = {}
    for _ in range(repeats):
        for way, score in WAYS.items():
            began = time.process_time()
            scores[way] = score(prediction, reference, spacing)
            seconds[way].append(time.process_time() - began)
    off = np.abs(np.subtract(*scores.values())).max()
    with TemporaryDirectory() as folder:
        np.save(Path(folder, "maps.npy"), np.stack([prediction, reference]))
        mib = {way: _process(way, folder) for way in WAYS}
    rows = [[way, spread(seconds[way]), f"{mib[way]:.0f}"] for way in WAYS]
    columns = ["way", "CPU s, min / median / max", "MiB above the label maps"]
    console.table("512×512×300, 14 classes, one thread", columns, rows)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    console.result(f"ratio of time, min / median / max: {spread(ratios)}; scores {off:.1g} apart")


def _process(way: str, folder: str) -> float:
    command = [sys.executable, "-m", "benchmarks.evaluation", "--way", way, "--folder", folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def _grown_mib(way: str, folder: Path) -> float:
    prediction, reference = np.load(folder / "maps.npy")
    before = peak_kib()
    WAYS[way](prediction, reference, (1.0, 0.75, 0.75))
    return (peak_kib() - before) / 1024


if __name__ == "__main__":
    main()
