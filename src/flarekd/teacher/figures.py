"""How far a tumour pseudo-label can be trusted: its scan labelled a second time, earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.cohort import Case
from flarekd.fusion import fuse
from flarekd.imaging.files import read_labels_on
from flarekd.imaging.volume import Volume
from flarekd.inference.predictor import Predictor
from flarekd.labels import IGNORE
from flarekd.quality import Evidence, judge, round_uncertainty
from flarekd.teacher.segment import find_tumors


def judge_label(
    teacher: Predictor,
    second: Predictor | None,
    case: Case,
    volume: Volume,
    *,
    labels: NDArray[np.uint8],
    probability: NDArray[np.uint8],
    rounds: Sequence[Path],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of a pseudo-label and of each of its components, rounded as they are written.

    Args:
        teacher: Who made it.
        second: Who labels the scan again; None lets the teacher label it flipped.
        case: Whose organs are known by its label and organ pseudo-label.
        volume: The scan.
        labels: The pseudo-label, uint8 (z, y, x).
        probability: Of tumour, likewise, 255 for 1.
        rounds: Pseudo-labels of earlier rounds, oldest first.

    Raises:
        InputError: If a label map cannot be read or lies on another grid.
    """
    again = find_tumors(second or teacher, volume, flip=second is None)[1]
    mask = labels != 0
    evidence = Evidence(
        mask, probability, again != 0, _organs(case, volume), volume.array,
        volume.geometry.spacing_zyx,
    )  # fmt: skip
    figures, rows = judge(evidence, teacher.card.fingerprint)
    found: dict[str, Any] = {**figures, "uncertainty": None}
    if rounds and all(path.exists() for path in rounds):
        earlier = [read_labels_on(path, volume.geometry).array != 0 for path in rounds]
        found["uncertainty"] = round_uncertainty([*earlier, mask])
    return _rounded(found), [_rounded(row) for row in rows]


def _organs(case: Case, volume: Volume) -> NDArray[np.uint8] | None:
    """The organs that are known of a case; None where none is."""
    if case.label is None and case.organ_pseudo is None:
        return None
    nothing, grid = np.zeros(volume.array.shape, np.uint8), volume.geometry
    partial = read_labels_on(case.label, grid).array if case.label else nothing
    partial = np.where(partial == IGNORE, np.uint8(0), partial)  # nobody has looked there
    organs = read_labels_on(case.organ_pseudo, grid).array if case.organ_pseudo else nothing
    return fuse(partial, nothing.astype(bool), organs, case.annotated)


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
