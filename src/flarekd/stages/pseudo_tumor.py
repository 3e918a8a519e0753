"""pseudo-tumor: cohort.csv + teacher → tumour pseudo-labels where no person annotated tumours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd import __version__, console, device
from flarekd.cohort import Case, read_cohort
from flarekd.errors import CasesFailedError, FlarekdError, InputError
from flarekd.imaging import checks
from flarekd.imaging.atomic import write_json
from flarekd.imaging.files import read_volume, write_labels
from flarekd.imaging.volume import LabelMap
from flarekd.inference import predictor
from flarekd.inference.predictor import Predictor
from flarekd.ledger import Ledger, stamp
from flarekd.teacher.network import TeacherUNet
from flarekd.teacher.windows import Probe, segment_slices

SLICES = 8
"""Slices a group: enough to fill a GPU, few enough for any memory."""


def pseudo_tumor(cohort: Path, model: Path, out: Path, device_name: str) -> None:
    """Label the tumours of every training case whose own label does not vouch for them.

    Args:
        cohort: cohort.csv.
        model: Teacher model file.
        out: Gets <case>.nii.gz (uint8, 14 where tumour) and report.json.
        device_name: As `device.choose` takes it.

    Raises:
        CasesFailedError: After the rest is written, if some cases failed.
    """
    cases = [c for c in read_cohort(cohort) if c.split == "train" and not c.has_tumor_label]
    teacher = predictor.load(model, "teacher", TeacherUNet, device.choose(device_name))
    ledger = Ledger(out / "done.jsonl")
    failed: dict[str, str] = {}
    with console.progress("Tumour pseudo-labels") as advance:
        for done, case in enumerate(cases):
            advance(done, len(cases), case.case)
            target = out / f"{case.case}.nii.gz"
            try:
                _refuse_own_file(case, target)
                key = stamp(teacher.sha256, case.image)
                if not ledger.is_done(case.case, key, target):
                    target.unlink(missing_ok=True)  # of another teacher: if this fails, none
                    ledger.add(case.case, key, **_label(teacher, case, target))
            except (FlarekdError, OSError, ValueError, MemoryError, RuntimeError) as error:
                failed[case.case] = str(error)
                console.error(f"{case.case}: {error}")
        advance(len(cases), len(cases), "")
    records = [ledger.records[case.case] for case in cases if case.case not in failed]
    report = {
        "flarekd": __version__,
        "model": model.name,
        "model_sha256": teacher.sha256,
        "cases": [{k: v for k, v in record.items() if k != "key"} for record in records],
        "failed": failed,
    }
    write_json(out / "report.json", report)
    found = sum(record["tumor_ml"] > 0 for record in records)
    console.info(f"{out}: tumour found in {found} of {len(records)} cases")
    if failed:
        raise CasesFailedError(f"{len(failed)} cases were not labelled: {', '.join(failed)}")


def _refuse_own_file(case: Case, target: Path) -> None:
    own = [path.resolve() for path in (case.image, case.label, case.organ_pseudo) if path]
    if target.resolve() in own:
        raise InputError(f"the pseudo-label would replace {str(target)!r}", "choose another --out")


def _label(teacher: Predictor, case: Case, target: Path) -> dict[str, Any]:
    volume = read_volume(case.image)
    for note in (*volume.notes, *checks.of_scan(volume.array)):
        console.warn(f"{case.image}: {note}")
    tensor = teacher.network_input(volume)
    settings = teacher.card.inference
    found = segment_slices(
        teacher.network,
        tensor,
        teacher.card.patch[1:],
        volume.array.shape[1:],
        probe=Probe(settings["probe"], settings["min_foreground"]),
        threshold=settings.get("threshold", 0.5),
        batch=SLICES,
        half=teacher.device.type == "cuda",
    )
    voxel_ml = float(np.prod(volume.geometry.spacing_xyz)) / 1000
    tumors, dropped = without_small(found.labels, settings.get("min_ml", 0.0) / voxel_ml)
    labels = np.asarray(teacher.card.label_ids, np.uint8)[tumors]
    write_labels(target, LabelMap(labels, volume.geometry))
    return {
        "tumor_ml": round(float((labels > 0).sum()) * voxel_ml, 3),
        "dropped": dropped,
        "windows_run": found.windows_run,
        "windows_total": found.windows_total,
    }


def without_small(mask: NDArray[np.uint8], least_voxels: float) -> tuple[NDArray[np.uint8], int]:
    """Leave out the components of a mask that have too few voxels.

    Args:
        mask: uint8 (z, y, x), 0 or 1; voxels that share a corner are of one component.
        least_voxels: Smaller components go.

    Returns:
        A new mask, and how many components were left out.
    """
    components, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    keeps = sizes >= least_voxels
    keeps[0] = False
    return keeps[components].astype(np.uint8), count - int(keeps.sum())
