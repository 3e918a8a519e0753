"""What leaving out pseudo-tumours by their figures does to them, against the truth.

`python -m benchmarks.filtering --tumor TUMOR --truth TRUTH "component confidence < 0.99" ...`, with
a folder that `flarekd pseudo-tumor --quality` wrote and one of complete labels (a phantom cohort's
`truth`). Every rule is taken alone; beside them stand all pseudo-tumours as they are, and none of
them: as FLARE counts, a case without a tumour scores 1 where none was labelled, so leaving out
everything is a baseline that a rule must beat. `--halves` chooses the best limit of each figure of
a component on every second case and tries it on the others, and the other way round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from flarekd import console
from flarekd.components import find_components
from flarekd.fusion_table import Figures, read_quality
from flarekd.imaging.files import read_labels
from flarekd.labels import TUMOR
from flarekd.selection import COMPONENT_FIGURES, Rule, parse_rule

Keeps = Callable[[Figures, Figures], bool]
"""Whether a component is kept, by the figures of its case and its own."""

Found = tuple[int, int, Figures]
"""Voxels of a component, how many of them are tumour, and its figures."""

Case = tuple[int, Figures, list[Found]]
"""Voxels of tumour in truth, the figures of the case, and its components."""


def measure(tumor: Path, truth: Path) -> list[Case]:
    """For each case: voxels of tumour in truth, the figures, and the components."""
    cases, components = read_quality(tumor)
    measured = []
    for case, figures in cases.items():
        real, labelled = (
            read_labels(folder / f"{case}.nii.gz").array == TUMOR for folder in (truth, tumor)
        )
        z, y, x = (slice(0, size) for size in labelled.shape)
        parts = find_components(labelled.view(np.uint8), 1, (z, y, x))
        rows = [components[case][number] for number in sorted(components[case])]
        found = [
            (part.voxels, int((real[part.box] & part.mask()).sum()), row)
            for part, row in zip(parts, rows, strict=True)
        ]
        measured.append((int(real.sum()), figures, found))
    return measured


def scores(measured: Sequence[Case], keeps: Keeps) -> list[str]:
    """The row of one way to choose."""
    dsc, with_tumor, kept, hit, total = [], [], 0, 0, 0
    number = 0
    for real, figures, found in measured:
        chosen = [one for one in found if keeps(figures, one[2])]
        voxels, right = sum(one[0] for one in chosen), sum(one[1] for one in chosen)
        dsc.append(2 * right / (real + voxels) if real + voxels else 1.0)
        if real:
            with_tumor.append(dsc[-1])
        kept, hit, total, number = kept + voxels, hit + right, total + real, number + len(chosen)
    precision = f"{100 * hit / kept:.1f}" if kept else "–"
    means = [f"{100 * float(np.mean(values)):.1f}" for values in (dsc, with_tumor)]
    return [*means, precision, f"{100 * hit / total:.1f}", str(number)]


def by(rule: Rule) -> Keeps:
    """Keep what a rule does not hit."""
    if rule.subject == "case":
        return lambda case, _: not rule.hits(case)
    return lambda _, component: not rule.hits(component)


def mean_dsc(measured: Sequence[Case], keeps: Keeps) -> float:
    """Mean DSC over all cases, as FLARE counts."""
    dsc = []
    for real, figures, found in measured:
        chosen = [one for one in found if keeps(figures, one[2])]
        total = real + sum(one[0] for one in chosen)
        dsc.append(2 * sum(one[1] for one in chosen) / total if total else 1.0)
    return float(np.mean(dsc))


def halves(measured: Sequence[Case]) -> list[list[str]]:
    """For each figure: the limit chosen on one half and what it gains on the other, both ways."""
    rows = []
    for figure in COMPONENT_FIGURES:
        sign = ">" if figure in {"entropy", "intensity_distance"} else "<"
        values = {one[2][figure] for _, _, found in measured for one in found}
        rules = [parse_rule(f"component {figure} {sign} {v}") for v in values if v is not None]
        row = [f"{figure} {sign}"]
        for first in (0, 1):
            chosen_on, tried_on = measured[first::2], measured[1 - first :: 2]
            best = max(rules, key=lambda rule: mean_dsc(chosen_on, by(rule)))
            gain = mean_dsc(tried_on, by(best)) - mean_dsc(tried_on, lambda *_: True)
            row += [f"{best.limit:.4g}", f"{100 * gain:+.1f}"]
        rows.append(row)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tumor", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--halves", action="store_true")
    parser.add_argument("rules", nargs="*")
    options = parser.parse_args()
    measured = measure(options.tumor, options.truth)
    ways: dict[str, Keeps] = {"all kept": lambda *_: True, "none kept": lambda *_: False}
    ways |= {text: by(parse_rule(text)) for text in options.rules}
    columns = ["dropped", "DSC, all", "DSC, with a tumour", "precision", "recall", "components"]
    rows = [[name, *scores(measured, keeps)] for name, keeps in ways.items()]
    console.table(f"Pseudo-tumours of {len(measured)} cases (%)", columns, rows)
    if options.halves:
        columns = ["dropped", "limit of half 1", "gain on 2", "limit of half 2", "gain on 1"]
        console.table("DSC, all, gained on the other half (points)", columns, halves(measured))


if __name__ == "__main__":
    main()
