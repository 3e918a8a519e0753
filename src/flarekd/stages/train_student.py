"""train-student: cohort.csv and fused labels → student."""

from __future__ import annotations

from pathlib import Path

from flarekd import config, console, device
from flarekd.cohort import read_cohort
from flarekd.errors import InputError
from flarekd.fusion_table import dropped_cases
from flarekd.imaging.files import list_scans
from flarekd.labels import NAMES
from flarekd.memory import keep_freed_memory
from flarekd.report.curves import draw_curves
from flarekd.student.plan import student_plan
from flarekd.training.initial import open_initial
from flarekd.training.prepare import Source
from flarekd.training.resume import Resume
from flarekd.training.session import run


def train_student(
    cohort: Path,
    labels: Path,
    out: Path,
    settings: config.Config,
    *,
    device_name: str,
    resume: Resume,
    tensorboard: bool = False,
    init: Path | None = None,
) -> Path:
    """Train the small 3D student on all training cases that have fused labels.

    Args:
        cohort: cohort.csv.
        labels: Folder of fused labels, one file a case.
        out: Run folder.
        settings: The configuration.
        device_name: As `device.choose` takes it.
        resume: What to do with a checkpoint in `out`.
        tensorboard: Whether TensorBoard's event files are written too.
        init: Model file to start from.

    Returns:
        The model file.
    """
    keep_freed_memory()
    initial = open_initial(init) if init else None
    fused = list_scans(labels)
    cases = [case for case in read_cohort(cohort) if case.split == "train"]
    dropped = dropped_cases(labels)
    lacking = [case.case for case in cases if case.case not in fused.keys() | dropped]
    sources = [Source(c.case, c.image, fused[c.case]) for c in cases if c.case in fused]
    if not sources:
        raise InputError(
            f"no training case of {str(cohort)!r} has a label in {str(labels)!r}",
            "run `flarekd fuse`",
        )
    missing = dict.fromkeys(lacking, f"no label in {labels}; run `flarekd fuse`")
    return run(
        student_plan(settings, len(NAMES), initial=initial, missing=missing),
        sources,
        out,
        device.choose(device_name),
        resume=resume,
        screen=console,
        draw=draw_curves,
        tensorboard=tensorboard,
    )
