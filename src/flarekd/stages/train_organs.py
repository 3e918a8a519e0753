"""train-teacher --task organs: cohort.csv → a network for 13 organs, from partial labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flarekd import config, console, device
from flarekd.cohort import Case, read_cohort
from flarekd.errors import InputError
from flarekd.labels import NAMES, ORGANS
from flarekd.memory import keep_freed_memory
from flarekd.report.curves import draw_curves
from flarekd.student.plan import student_plan
from flarekd.training.initial import open_initial
from flarekd.training.prepare import Source
from flarekd.training.resume import Resume
from flarekd.training.session import run


def train_organs(
    cohort: Path,
    out: Path,
    settings: config.Config,
    device_name: str,
    resume: Resume,
    *,
    tensorboard: bool = False,
    init: Path | None = None,
) -> Path:
    """Train a network of the student's shape on the organs that people annotated (groups 2 to 7).

    Of each case only what it has annotated counts (``training/marginal.py``); tumours are left
    open.

    Args:
        cohort: cohort.csv.
        out: Run folder.
        settings: The configuration; the section `student` says how.
        device_name: As `device.choose` takes it.
        resume: What to do with a checkpoint in `out`.
        tensorboard: Whether TensorBoard's event files are written too.
        init: Model file to start from.

    Returns:
        The model file, a student of 14 outputs: `infer` runs it too.

    Raises:
        InputError: If no training case has an annotated organ.
    """
    keep_freed_memory()
    initial = open_initial(init) if init else None
    cases = [case for case in read_cohort(cohort) if case.split == "train" and case.known_organs]
    if not cases:
        raise InputError(
            f"no training case of {str(cohort)!r} has annotated organs",
            "cases with ids of 1 to 13 in their column 'annotated' are needed (groups 2 to 7)",
        )
    console.info("organs: a network of the student's shape, by the section 'student'")
    _tell_unknown(cases)
    sources = [Source(c.case, c.image, c.label, c.known_organs) for c in cases if c.label]
    return run(
        student_plan(settings, len(ORGANS) + 1, initial=initial),
        sources,
        out,
        device.choose(device_name),
        resume=resume,
        screen=console,
        draw=draw_curves,
        tensorboard=tensorboard,
    )


def _tell_unknown(cases: Sequence[Case]) -> None:
    known = {organ for case in cases for organ in case.known_organs}
    unknown = [NAMES[organ] for organ in ORGANS if organ not in known]
    if unknown:
        console.warn(
            f"no training case has {', '.join(unknown)} annotated: the network will label none"
        )
