"""How good fused tumour labels are against the complete truth.

What Eq. 3 is for, measured on phantoms.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flarekd import console
from flarekd.cohort import read_cohort
from flarekd.imaging.atomic import write_json
from flarekd.imaging.files import list_scans, read_labels
from flarekd.labels import TUMOR

PARTS = ("all", "with_tumor", "masked", "unlabelled")


def fusion_quality(
    cohort: Path, strategies: Mapping[str, Path], truth: Path, out: Path
) -> dict[str, dict[str, float]]:
    """Compare tumour DSC of several folders of fused labels with the truth, and print it.

    Cases without a tumour in truth and label count 1, as FLARE counts them.

    Args:
        cohort: cohort.csv, to tell the cases whose organs hide tumours from the others.
        strategies: Name of a fusion → its folder.
        truth: Folder of complete labels.
        out: JSON file.

    Returns:
        Strategy → mean tumour DSC over ``all`` cases, over those whose truth is ``with_tumor``,
        over those with ``masked`` tumours (organs annotated, tumours not: groups 2, 3, 5, 6, 7)
        and over ``unlabelled`` ones.
    """
    cases = {case.case: case for case in read_cohort(cohort) if case.split == "train"}
    complete = list_scans(truth)
    scores: dict[str, dict[str, float]] = {}
    for name, folder in strategies.items():
        parts: dict[str, list[float]] = {part: [] for part in PARTS}
        for case_name, path in list_scans(folder).items():
            if case_name not in cases:
                continue
            case = cases[case_name]
            fused, whole = (
                read_labels(file).array == TUMOR for file in (path, complete[case_name])
            )
            total = int(fused.sum() + whole.sum())
            dsc = 2 * int((fused & whole).sum()) / total if total else 1.0
            parts["all"].append(dsc)
            if whole.any():
                parts["with_tumor"].append(dsc)
            if not case.has_tumor_label:
                parts["masked" if case.annotated else "unlabelled"].append(dsc)
        scores[name] = {part: float(np.mean(found)) for part, found in parts.items() if found}
    write_json(out, scores)
    rows = [
        [name, *(f"{100 * score[part]:.2f}" if part in score else "–" for part in PARTS)]
        for name, score in scores.items()
    ]
    columns = ["fusion", "all cases", "with a tumour", "organs annotated, tumours not"]
    columns += ["unlabelled"]
    console.table("Tumour DSC (%) of the fused labels against the truth", columns, rows)
    return scores
