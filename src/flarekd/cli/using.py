"""Verbs that use a model: segment, score, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flarekd import options
from flarekd.cli.loading import loading
from flarekd.options import (
    Command,
    Device,
    DicomSeg,
    Gpu,
    Interpolation,
    Labels,
    MaxMemory,
    Model,
    Out,
    Preview,
    Protocol,
    Runtime,
    RuntimeName,
    Scans,
    Statistics,
    Step,
    Windows,
)


def infer(
    inputs: Scans,
    model: Model,
    out: Out,
    device: Device = "auto",
    runtime: Runtime = RuntimeName.auto,
    max_memory: MaxMemory = None,
    windows: Windows = None,
    step: Step = None,
    labels: Labels = Interpolation.linear,
    statistics: Statistics = False,
    preview: Preview = False,
    dicom_seg: DicomSeg = False,
    scheduler: options.Scheduler = None,
) -> None:
    """Segment scans; each label map lies exactly on its scan."""
    with loading():
        from flarekd.report.beside import Beside
        from flarekd.segmenting import Options
        from flarekd.stages.infer import infer as stage
        from flarekd.student.segment import WindowSettings

    how = WindowSettings(windows.value if windows else None, step, labels.value)
    beside = Beside(statistics, preview, dicom_seg)
    stage(inputs, model, out, Options(device, runtime.value, how, max_memory, beside, scheduler))


def evaluate(
    predictions: options.Predictions,
    references: options.References,
    out: Out,
    protocol: options.Scoring = Protocol.flare23,
    images: options.Images = None,
    cohort: options.Traits = None,
    compare: options.Other = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Score label maps as FLARE does: DSC and NSD; also HD95, volumes, tumours one by one."""
    from flarekd.stages.evaluate import Extras
    from flarekd.stages.evaluate import evaluate as stage

    extras = Extras(images, cohort, compare)
    how = protocol.value
    stage(predictions, references, out, how, jobs=None, extras=extras, scheduler=scheduler)


def rank(models: options.Ranked, out: Out = Path("flarekd-rank")) -> None:
    """Rank models as FLARE does: each metric in each case, then averaged."""
    from flarekd.stages.rank import rank as stage

    stage(models, out)


def bench(
    command: Command,
    out: Out = Path("flarekd-bench"),
    interval: Annotated[float, typer.Option(min=0.01, help="Seconds between samples.")] = 0.1,
    repeat: Annotated[int, typer.Option(min=1, help="Runs; least, median, greatest.")] = 1,
    gpu: Gpu = None,
) -> None:
    """Measure any command as FLARE does: time, RAM, CPU, GPU memory. Ends as the command ends."""
    from flarekd.stages.bench import bench as stage

    raise typer.Exit(stage(command, out, interval, repeat, gpu))
