"""train-teacher: cohort.csv → teacher, on the cases with annotated tumours (groups 1 and 4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from flarekd import config, console, device
from flarekd.cohort import read_cohort
from flarekd.errors import InputError
from flarekd.labels import NAMES, TUMOR
from flarekd.memory import keep_freed_memory
from flarekd.protocol import Teacher
from flarekd.report.curves import draw_curves
from flarekd.teacher.network import TeacherUNet
from flarekd.teacher.windows import Probe, segment_slices
from flarekd.training.initial import open_initial
from flarekd.training.plan import Plan
from flarekd.training.prepare import Grid, Source
from flarekd.training.resume import Resume
from flarekd.training.session import run
from flarekd.training.validation import Segment


def train_teacher(
    cohort: Path,
    out: Path,
    settings: config.Config,
    device_name: str,
    resume: Resume,
    *,
    tensorboard: bool = False,
    init: Path | None = None,
) -> Path:
    """Train the 2D tumour teacher.

    Args:
        cohort: cohort.csv.
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
    cases = [case for case in read_cohort(cohort) if case.split == "train" and case.has_tumor_label]
    if not cases:
        raise InputError(
            f"no training case of {str(cohort)!r} has annotated tumours",
            "the teacher needs cases with 14 in their column 'annotated' (groups 1 and 4)",
        )
    sources = [Source(case.case, case.image, case.label) for case in cases if case.label]
    teacher = settings.teacher
    plan = Plan(
        role="teacher",
        network={"classes": 2, "channels": teacher.channels, "attention": teacher.attention},
        build=TeacherUNet,
        settings=teacher,
        grid=Grid((0.0, *teacher.spacing), teacher.patch, tumor_only=True),
        segment=_segmenter(teacher),
        labels=(NAMES[0], NAMES[TUMOR]),
        label_ids=(0, TUMOR),
        inference=teacher.model_dump(include={"probe", "min_foreground", "threshold", "min_ml"}),
        seed=settings.seed,
        config=config.dump(settings),
        initial=initial,
    )
    return run(
        plan,
        sources,
        out,
        device.choose(device_name),
        resume=resume,
        screen=console,
        draw=draw_curves,
        tensorboard=tensorboard,
    )


def _segmenter(teacher: Teacher) -> Segment:
    """Labels of whole volumes, for validation: the windows of inference."""

    def segment(network: nn.Module, volume: Tensor) -> NDArray[np.uint8]:
        probe = Probe(teacher.probe, teacher.min_foreground)
        shape = volume.shape[1:]
        return segment_slices(
            network,
            volume,
            teacher.patch[1:],
            shape,
            probe=probe,
            threshold=teacher.threshold,
        ).labels

    return segment
