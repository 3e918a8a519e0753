"""infer: scans + student → label maps on the scans' own grids, and report.json."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flarekd import __version__, console, device
from flarekd.errors import CasesFailedError, FlarekdError, InputError
from flarekd.imaging.atomic import write_json
from flarekd.imaging.files import case_id, list_scans, read_volume, write_labels
from flarekd.imaging.intensity import not_ct_reason
from flarekd.imaging.volume import LabelMap
from flarekd.inference import predictor
from flarekd.inference.predictor import Predictor
from flarekd.inference.slabs import labels_from_logits
from flarekd.ledger import Ledger, stamp
from flarekd.student.network import StudentUNet
from flarekd.student.windows import SkipRules, predict_logits


def infer(inputs: Sequence[Path], model: Path, out: Path, device_name: str) -> None:
    """Segment scans; a re-run does those that are missing or out of date.

    Args:
        inputs: Files, DICOM folders, or folders of such.
        model: Student model file.
        out: Gets <case>.nii.gz and report.json.
        device_name: As `device.choose` takes it.

    Raises:
        InputError: If there is no scan, the model cannot be used, or a label map would replace a
            scan.
        CasesFailedError: After the rest is written, if some scans failed.
    """
    scans = find_scans(inputs)
    for case, path in scans.items():
        if path.resolve() == (out / f"{case}.nii.gz").resolve():
            raise InputError(f"the label map would replace {str(path)!r}", "choose another --out")
    student = predictor.load(model, "student", StudentUNet, device.choose(device_name))
    ledger = Ledger(out / "done.jsonl")
    failed: dict[str, str] = {}
    with console.progress("Segmenting") as advance:
        for done, (case, path) in enumerate(scans.items()):
            advance(done, len(scans), case)
            target = out / f"{case}.nii.gz"
            try:
                key = stamp(student.sha256, str(path), path)
                if not ledger.is_done(case, key, target):
                    target.unlink(missing_ok=True)  # of another model: if this fails, none

                    def tell(window: int, windows: int, done: int = done, case: str = case) -> None:
                        advance(done, len(scans), f"{case} · window {window} of {windows}")

                    ledger.add(case, key, **_segment(student, path, target, tell))
            except (FlarekdError, OSError, ValueError, MemoryError, RuntimeError) as error:
                failed[case] = str(error)
                console.error(f"{case}: {error}")
        advance(len(scans), len(scans), "")
    records = [ledger.records[case] for case in scans if case not in failed]
    write_json(out / "report.json", _report(model, student, records, failed))
    console.info(f"{out}: {len(records)} label maps, {len(failed)} scans failed")
    if failed:
        raise CasesFailedError(f"{len(failed)} of {len(scans)} scans failed: {', '.join(failed)}")


def find_scans(inputs: Sequence[Path]) -> dict[str, Path]:
    """Every scan that `inputs` name, by case id.

    Raises:
        InputError: If one is missing, holds no scan, or two scans share an id.
    """
    scans: dict[str, Path] = {}
    for entry in inputs:
        if not entry.exists():
            raise InputError(f"no such file or folder: {str(entry)!r}")
        found = list_scans(entry) if entry.is_dir() else {case_id(entry): entry}
        if not found:
            raise InputError(
                f"no scan in {str(entry)!r}", "give .nii.gz, .mha, .nrrd or DICOM folders"
            )
        both = sorted(scans.keys() & found.keys())
        if both:
            raise InputError(
                f"two scans are called {both[0]!r}: {scans[both[0]]} and {found[both[0]]}",
                "rename one of them, or give separate --out folders",
            )
        scans |= found
    return scans


def _segment(
    student: Predictor, path: Path, target: Path, on_window: Callable[[int, int], None]
) -> dict[str, Any]:
    """Segment one scan and write its label map; the facts for the report."""
    clock = _Clock()
    volume = read_volume(path)
    reason = not_ct_reason(volume.array)
    if reason:
        # told loudly but not refused: the test is a guess, and a person may know better
        console.warn(f"{path}: does not look like CT in Hounsfield units: {reason}")
    clock.lap("read")
    tensor = student.network_input(volume)
    clock.lap("resample")
    settings = student.card.inference
    rules = SkipRules(air=student.air) if settings.get("windows") == "efficient" else None
    prediction = predict_logits(
        student.network,
        tensor,
        student.card.patch,
        step=float(settings.get("step", 0.5)),
        skip=rules,
        half=student.device.type == "cuda",
        on_window=on_window,
    )
    clock.lap("network")
    outputs = labels_from_logits(prediction.logits, volume.array.shape)
    labels = np.asarray(student.card.label_ids, np.uint8)[outputs]
    clock.lap("labels")
    write_labels(target, LabelMap(labels, volume.geometry))
    clock.lap("write")
    counts = np.bincount(outputs.ravel(), minlength=len(student.card.labels))
    voxel_ml = float(np.prod(volume.geometry.spacing_xyz)) / 1000
    return {
        "input": str(path),
        "not_ct": reason,
        "output": target.name,
        "size": list(volume.geometry.size_xyz),
        "spacing_mm": list(volume.geometry.spacing_xyz),
        "windows_run": prediction.windows_run,
        "windows_total": prediction.windows_total,
        "volume_ml": {
            name: round(float(count) * voxel_ml, 2)
            for name, count in zip(student.card.labels[1:], counts[1:], strict=True)
        },
        "seconds": clock.seconds,
    }


class _Clock:
    """Seconds of each part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def lap(self, name: str) -> None:
        """Book the time since the last lap under `name`."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._began, 3)
        self._began = now


def _report(
    model: Path, student: Predictor, records: list[dict[str, Any]], failed: dict[str, str]
) -> dict[str, Any]:
    return {
        "flarekd": __version__,
        "model": model.name,
        "model_sha256": student.sha256,
        "device": str(student.device),
        "cases": [{k: v for k, v in record.items() if k != "key"} for record in records],
        "failed": failed,
    }
