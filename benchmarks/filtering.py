"""What leaving out pseudo-tumours by their figures does to them, against the truth.

`python -m benchmarks.filtering --tumor TUMOR --truth TRUTH "component confidence < 0.99" ...`, with
a folder that `flarekd pseudo-tumor --quality` wrote and one of complete labels (a phantom cohort's
`truth`). Every rule is taken alone; beside them stand all pseudo-tumours as they are, and none of
them: as FLARE counts, a case without a tumour scores 1 where none was labelled, so leaving out
everything is a baseline that a rule must beat.
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
from flarekd.selection import Rule, parse_rule

Keeps = Callable[[Figures, Figures], bool]
"""Whether a component is kept, by the figures of its case and its own."""

Found = tuple[int, int, Figures]
"""Voxels of a component, how many of them are tumour, and its figures."""


def measure(tumor: Path, truth: Path) -> list[tuple[int, Figures, list[Found]]]:
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


def scores(measured: Sequence[tuple[int, Figures, list[Found]]], keeps: Keeps) -> list[str]:
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tumor", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("rules", nargs="*")
    options = parser.parse_args()
    measured = measure(options.tumor, options.truth)
    ways: dict[str, Keeps] = {"all kept": lambda *_: True, "none kept": lambda *_: False}
    ways |= {text: by(parse_rule(text)) for text in options.rules}
    columns = ["dropped", "DSC, all", "DSC, with a tumour", "precision", "recall", "components"]
    rows = [[name, *scores(measured, keeps)] for name, keeps in ways.items()]
    console.table(f"Pseudo-tumours of {len(measured)} cases (%)", columns, rows)


if __name__ == "__main__":
    main()
