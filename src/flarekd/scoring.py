"""One case scored, from its files: what `evaluate` does for each, in processes side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flarekd.errors import FlarekdError, InputError
from flarekd.imaging.checks import present
from flarekd.imaging.files import read_labels, read_volume
from flarekd.imaging.volume import LabelMap, Volume
from flarekd.labels import BY_ID, LABELS, TUMOR
from flarekd.metrics.lesions import Lesion, find_lesions
from flarekd.metrics.protocols import ClassScore, score_case
from flarekd.report.overlay import overlay


@dataclass(frozen=True)
class Task:
    """One case to score; picklable, for other processes."""

    case: str
    prediction: Path | None
    reference: Path
    image: Path | None
    picture: Path | None
    protocol: str


@dataclass(frozen=True)
class Scored:
    """What `score` found in a case, and what there is to say of it."""

    scores: list[ClassScore]
    lesions: list[Lesion]
    note: str = ""


def score(task: Task) -> Scored:
    """Read, score and draw one case (in a worker).

    Without a prediction every class scores 0, and every lesion is missed.

    Raises:
        InputError: If a label map cannot be read, or prediction and reference lie on other grids.
    """
    reference = read_labels(task.reference)
    spacing = reference.geometry.spacing_zyx
    if task.prediction is None:
        nothing = np.zeros_like(reference.array)
        zeros = [ClassScore(label.id, 0.0, 0.0) for label in LABELS]
        return Scored(zeros, find_lesions(nothing, reference.array, spacing))
    prediction = read_labels(task.prediction)
    mismatch = reference.geometry.mismatch(prediction.geometry)
    if mismatch:
        what = f"prediction and reference do not match: {task.prediction.name} is {mismatch}"
        if "voxels" not in mismatch:
            what = f"prediction and reference do not match: {mismatch} ({task.prediction.name})"
        raise InputError(what, "predict on the scan the reference was drawn on")
    strange = [label for label in present(prediction.array) if label not in BY_ID]
    note = f"ids {strange} are no class, and count as background" if strange else ""
    # slices as they are stored: the official scorer leaves out the last of some
    step = -1 if reference.geometry.flips[2] else 1
    scores = score_case(prediction.array[::step], reference.array[::step], spacing, task.protocol)
    lesions = find_lesions(prediction.array, reference.array, spacing)
    if task.picture is None:
        return Scored(scores, lesions, note)
    image, more = _image(task, reference)
    # a tumour that nobody has scores 1, which is nothing to boast of in a title
    dsc = {score.label: score.dsc for score in scores if score.label != TUMOR or lesions}
    overlay(image, prediction, reference, task.picture, dsc)
    return Scored(scores, lesions, "; ".join(filter(None, (note, more))))


def _image(task: Task, reference: LabelMap) -> tuple[Volume | None, str]:
    """The scan to draw on; a scan that does not fit costs the background, not the score."""
    if task.image is None:
        return None, ""
    try:
        image = read_volume(task.image)
    except FlarekdError as error:
        return None, f"labels are drawn on black: {error}"
    mismatch = reference.geometry.mismatch(image.geometry)
    if mismatch:
        return None, f"labels are drawn on black: {task.image.name} does not match, {mismatch}"
    return image, ""
