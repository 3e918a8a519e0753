"""Verbs from the cohort to the student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flarekd import options
from flarekd.options import (
    Cohort,
    ConfigFile,
    Device,
    Extend,
    FusionStrategy,
    Init,
    Model,
    Out,
    Resume,
    RuntimeName,
    Settings,
    TaskName,
    TensorBoard,
)


def _resume(resume: bool, extend: bool) -> Literal["never", "must", "extend"]:
    return "extend" if extend else "must" if resume else "never"


def train_teacher(
    cohort: Cohort,
    out: Out,
    config_file: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    extend: Extend = False,
    tensorboard: TensorBoard = False,
    device: Device = "auto",
    init: Init = None,
    task: options.Task = TaskName.tumor,
) -> None:
    """Train the 2D attention U-Net on the cases with annotated tumours, or a network of organs."""
    from flarekd import config

    if task is TaskName.organs:
        from flarekd.stages.train_organs import train_organs as stage
    else:
        from flarekd.stages.train_teacher import train_teacher as stage
    resolved = config.load(config_file or config.builtin("flare23"), settings or [])
    how = _resume(resume, extend)
    stage(cohort, out, resolved, device, how, tensorboard=tensorboard, init=init)


def pseudo_tumor(
    cohort: Cohort,
    model: Model,
    out: Out,
    device: Device = "auto",
    runtime: options.Runtime = RuntimeName.auto,
    probability: options.Probability = False,
    quality: options.Quality = False,
    against: options.Against = None,
    previous: options.Previous = None,
    organs: options.Organs = None,
    scheduler: options.Scheduler = None,
    probe: options.Probe = None,
    min_foreground: options.MinForeground = None,
    threshold: options.Threshold = None,
    min_ml: options.MinMl = None,
) -> None:
    """Label tumours with the teacher where no person did."""
    from flarekd.stages.pseudo_tumor import Extras, SliceSettings
    from flarekd.stages.pseudo_tumor import pseudo_tumor as stage

    beside = Extras(probability, quality, against, tuple(previous or ()), organs)
    looking = SliceSettings(probe.value if probe else None, min_foreground, threshold, min_ml)
    stage(
        cohort,
        model,
        out,
        device,
        beside,
        runtime=runtime.value,
        scheduler=scheduler,
        settings=looking,
    )


def pseudo_organs(
    cohort: Cohort,
    model: Model,
    out: Out,
    device: Device = "auto",
    runtime: options.Runtime = RuntimeName.auto,
    quality: options.OrganQuality = False,
    scheduler: options.Scheduler = None,
) -> None:
    """Label organs where no person drew all of them."""
    from flarekd.segmenting import Options
    from flarekd.stages.pseudo_organs import pseudo_organs as stage

    how = Options(device, runtime.value, scheduler=scheduler)
    stage(cohort, model, out, how, quality=quality)


def fuse(
    cohort: Cohort,
    tumor: Annotated[Path, typer.Option(help="Folder of tumour pseudo-labels.")],
    out: Out,
    strategy: options.Strategy = FusionStrategy.paper,
    provenance: options.Provenance = False,
    ignore: options.Ignore = None,
    drop: options.Drop = None,
    organs: options.Organs = None,
    review: options.Review = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Fuse partial labels, organ and tumour pseudo-labels into one label map a case."""
    from flarekd.stages.fuse import Extras, fuse_labels

    extras = Extras(provenance, ignore, tuple(drop or ()), review)
    fuse_labels(cohort, tumor, out, strategy.value, extras, organs=organs, scheduler=scheduler)


def train_student(
    cohort: Cohort,
    labels: Annotated[Path, typer.Option(help="Folder of fused labels.")],
    out: Out,
    config_file: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    extend: Extend = False,
    tensorboard: TensorBoard = False,
    device: Device = "auto",
    init: Init = None,
) -> None:
    """Train the small 3D U-Net on the fused labels."""
    from flarekd import config
    from flarekd.stages.train_student import train_student as stage

    resolved = config.load(config_file or config.builtin("flare23"), settings or [])
    stage(
        cohort,
        labels,
        out,
        resolved,
        device_name=device,
        resume=_resume(resume, extend),
        tensorboard=tensorboard,
        init=init,
    )
