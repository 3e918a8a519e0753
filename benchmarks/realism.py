"""How far phantoms are from real scans: HU, noise, edges, volumes and places of organs.

A real scan without contrast and with labels is compared with full-size phantoms of the native
phase, a real contrast scan without labels with those of the portal-venous phase; all are brought to
3 mm voxels, the spacing of the former. Writes ``table.md``, ``measures.json`` and two pictures::

    python -m benchmarks.realism --scan CT --labels ORGANS --contrast CT --out realism
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import realism_measures as measures
from flarekd.imaging.atomic import write_json, write_text
from flarekd.imaging.files import list_scans, read_labels, read_volume
from flarekd.imaging.resampling import resample, resample_labels, target_shape
from flarekd.labels import IDS, NAMES, TUMOR
from flarekd.parallel import cpu_count
from flarekd.report.canvas import new_figure, save_png
from flarekd.report.slices import WINDOW_HU
from flarekd.stages.phantom import SETTINGS_FILE, make_phantoms

GRID = (measures.SPACING,) * 3
SHOWN = (
    "liver",
    "spleen",
    "left_kidney",
    "pancreas",
    "aorta",
    "stomach",
    "gallbladder",
    "duodenum",
)
BINS = np.arange(-200.0, 301.0, 10.0)

BETWEEN_HU = (-60.0, 0.0)
"""More than fat, less than muscle: what is finer than a voxel, and organs with fat in them."""

Row = tuple[str, float, float, float, float]


@dataclass
class Findings:
    """What was measured of one scan.

    Attributes:
        numbers: By the name of the measure.
        curves: Pairs of axis and values, by name.
        image: HU (z, y, x), for pictures.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    curves: dict[str, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)
    image: NDArray[np.float32] | None = None


def examine(scan: Path, labels: Path | None) -> Findings:
    """Measure a scan, with its organs where they are known."""
    volume = read_volume(scan)
    shape = target_shape(volume.array.shape, volume.geometry.spacing_zyx, GRID)
    image = np.maximum(resample(volume.array, shape), -1024)
    body = measures.body_mask(image)
    found = Findings(image=image)
    found.curves["body HU"] = _histogram(image[body])
    between = (image[body] > BETWEEN_HU[0]) & (image[body] < BETWEEN_HU[1])
    found.numbers["body: neither fat nor muscle, %"] = 100 * float(between.mean())
    found.curves["skin"] = measures.edge_profile(image, body)
    found.numbers["skin: edge, mm"] = measures.width_mm(found.curves["skin"][1])
    median, high = measures.steepness(image, body)
    found.numbers["soft tissue: gradient, median HU/mm"] = median
    found.numbers["soft tissue: gradient, 90th percentile HU/mm"] = high
    if labels is not None:
        ids = read_labels(labels).array
        _examine_organs(found, image, resample_labels(ids, shape))
    return found


def _examine_organs(found: Findings, image: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    for organ in sorted(set(np.unique(labels).tolist()) - {0, TUMOR}):
        name = NAMES[organ]
        values = measures.inner_hu(image, labels, organ)
        found.numbers[f"{name}: HU"] = float(values.mean())
        found.numbers[f"{name}: sd of HU"] = float(values.std())
        found.curves[f"{name} HU"] = _histogram(values)
    for name, volume in measures.volumes_ml(labels).items():
        found.numbers[f"{name}: ml"] = volume
    for name, place in measures.places_mm(labels).items():
        for axis, value in zip(("left", "back", "up"), place, strict=True):
            found.numbers[f"{name}: mm {axis}"] = value
    liver = measures.deep(labels == IDS["liver"], 2)
    found.curves["noise"] = measures.noise_power(image, liver)
    in_plane, along = measures.noise_hu(image, liver)
    found.numbers["liver: noise in-plane, HU"] = in_plane
    found.numbers["liver: noise along z, HU"] = along
    kidney = labels == IDS["left_kidney"]
    if kidney.any():
        # towards fat alone: other neighbours have other HU
        fat = (image < 0) | kidney
        found.curves["kidney"] = measures.edge_profile(image, kidney, fat)
        found.numbers["left_kidney: edge to fat, mm"] = measures.width_mm(found.curves["kidney"][1])


def _histogram(values: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    counts, _ = np.histogram(values, BINS)
    return (BINS[:-1] + BINS[1:]) / 2, counts / max(1, len(values))


def phantoms(folder: Path, cases: int, seed: int) -> dict[str, list[Findings]]:
    """Make full-size phantoms, or take those that are there, and measure them, by phase."""
    make_phantoms(folder, cases, "full", seed, cpu_count())
    plans = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["cases"]
    images, labels = (
        {case: path for part in parts for case, path in list_scans(folder / part).items()}
        for parts in (("imagesTr", "imagesUnlabeled", "imagesVal"), ("truth", "labelsVal"))
    )
    found: dict[str, list[Findings]] = {}
    for plan in plans:
        case = plan["case"]
        one = examine(images[case], labels[case])
        if plan["phase"] in found:
            one.image = None  # only one of a phase is shown
        found.setdefault(plan["phase"], []).append(one)
        print(f"{case} ({plan['phase']}): measured")
    return found


def compare(real: Findings, made: list[Findings], names: Iterable[str]) -> list[Row]:
    """Of every measure: the real value, mean and deviation of the phantoms, deviations apart."""
    rows = []
    for name in names:
        values = np.array([one.numbers[name] for one in made if name in one.numbers])
        values = values[np.isfinite(values)]
        if len(values) < 3 or not math.isfinite(real.numbers[name]):
            continue
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        apart = (real.numbers[name] - mean) / deviation if deviation else math.inf
        rows.append((name, real.numbers[name], mean, deviation, apart))
    return rows


def table(rows: list[Row]) -> str:
    """A table in Markdown; what lies more than two deviations off is in bold."""
    lines = ["| measure | real | phantoms: mean (sd) | deviations apart |", "|---|---|---|---|"]
    for name, real, mean, deviation, apart in rows:
        told = f"**{apart:+.1f}**" if abs(apart) > 2 else f"{apart:+.1f}"
        shown = f"{real:.1f} | {mean:.1f} ({deviation:.1f}) | {told}"
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) + "\n"


def draw_curves(real: Findings, made: list[Findings], path: Path) -> None:
    """Histograms, noise power and edges: the real scan in black on the phantoms."""
    names = ["body HU", *(f"{name} HU" for name in SHOWN), "noise", "skin", "kidney"]
    figure = new_figure(14, 9)
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(3, 4, place)
        for one in made:
            if name in one.curves:
                axes.plot(*one.curves[name], color="tab:orange", alpha=0.35, linewidth=1)
        axes.plot(*real.curves[name], color="black", linewidth=1.8)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.tick_params(labelsize=8)
        units = {"noise": "1/mm; HU²·mm²", "skin": "mm outward; HU", "kidney": "mm outward; HU"}
        axes.set_xlabel(units.get(name, "HU; share of the voxels"), fontsize=8)
        if name == "noise":
            axes.set_yscale("log")
    figure.suptitle("real scan (black) and phantoms of its phase (orange), 3 mm voxels")
    figure.tight_layout()
    save_png(figure, path)


def draw_slices(pairs: Mapping[str, NDArray[np.float32] | None], path: Path) -> None:
    """An axial and a coronal slice of each, in the abdomen window."""
    figure = new_figure(3.6 * len(pairs), 7)
    for column, (name, image) in enumerate(pairs.items(), 1):
        assert image is not None  # the first of each phase keeps its own
        z, y, _ = (size // 2 for size in image.shape)
        for row, picture in enumerate((image[z], image[::-1, y])):
            axes = figure.add_subplot(2, len(pairs), row * len(pairs) + column)
            axes.imshow(picture, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            axes.set_axis_off()
            if row == 0:
                axes.set_title(name, fontsize=10)
    figure.tight_layout()
    save_png(figure, path)


def main() -> None:
    """Measure, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, required=True, help="without contrast")
    parser.add_argument("--labels", type=Path, required=True, help="its organs")
    parser.add_argument("--contrast", type=Path, required=True, help="a portal-venous scan")
    parser.add_argument("--out", type=Path, default=Path("realism"))
    parser.add_argument("--cases", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = arguments.out
    made = phantoms(out / "cohort", arguments.cases, arguments.seed)
    every = [one for phase in made.values() for one in phase]
    native, venous = made["native"], made["portal"]
    plain, contrast = examine(arguments.scan, arguments.labels), examine(arguments.contrast, None)
    is_of_phase = [name for name in plain.numbers if name.endswith("HU")]
    others = [name for name in plain.numbers if name not in is_of_phase]
    rows = [*compare(plain, native, is_of_phase), *compare(plain, every, others)]
    told = [
        f"{len(native)} native phantoms for HU, all {len(every)} for the rest\n\n",
        table(rows),
        f"\n{len(venous)} portal-venous phantoms\n\n",
        table(compare(contrast, venous, contrast.numbers)),
    ]
    write_text(out / "table.md", "".join(told))
    write_json(out / "measures.json", {"native": plain.numbers, "contrast": contrast.numbers})
    draw_curves(plain, native, out / "curves.png")
    shown = {"real, native": plain, "phantom, native": native[0]}
    shown |= {"real, contrast": contrast, "phantom, portal-venous": venous[0]}
    draw_slices({name: one.image for name, one in shown.items()}, out / "slices.png")
    print("".join(told))


if __name__ == "__main__":
    main()
