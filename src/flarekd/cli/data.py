"""Verbs that make and look at data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flarekd import options
from flarekd.options import (
    Jobs,
    Out,
    Preset,
    Seed,
)


def phantom(
    out: Out,
    cases: options.Cases = 48,
    preset: Annotated[Preset, typer.Option(help="quick: coarse and small.")] = Preset.quick,
    seed: Seed = 0,
    jobs: Jobs = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Make a synthetic FLARE cohort: scans, partial labels, pseudo-labels and the truth."""
    from flarekd.stages.phantom import make_phantoms

    make_phantoms(out, cases, preset.value, seed, jobs, scheduler=scheduler)


def check(
    paths: Annotated[
        list[Path], typer.Argument(help="Scans, DICOM folders, cohort.csv, or folders of them.")
    ],
    labels: Annotated[Path | None, typer.Option(help="Folder of their label maps.")] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Folder for repaired copies, where that is safe.")
    ] = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Open every file; say what is wrong, where, and how to mend it."""
    from flarekd.stages.check import check as stage

    stage(paths, labels=labels, fix=fix, scheduler=scheduler)


def group_data(
    images: Annotated[Path, typer.Option(help="Folder of scans.")],
    out: Annotated[Path, typer.Option(help="cohort.csv to write.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of partial label maps.")] = None,
    unlabeled: Annotated[
        list[Path] | None, typer.Option(help="Folder of scans without labels. Repeatable.")
    ] = None,
    organ_pseudo: options.OrganPseudo = None,
    groups: options.Groups = None,
    strict: options.Strict = False,
    review: options.Review = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Find out which classes each case has annotated (Table 1), and say why."""
    from flarekd.stages import group_data as stage

    folders = stage.Folders(images, labels, organ_pseudo, tuple(unlabeled or ()))
    stage.group_data(folders, out, groups=groups, strict=strict, review=review, scheduler=scheduler)


def review(
    cohort: Annotated[Path, typer.Argument(help="cohort.csv, as group-data makes it.")],
    labels: Annotated[Path, typer.Option(help="Folder of label maps to review, such as fused.")],
    out: Out,
    scheduler: options.Scheduler = None,
) -> None:
    """A page of all cases, the most suspicious first, with pictures and a list to tick."""
    from flarekd.stages.review import review as stage

    stage(cohort, labels, out, scheduler=scheduler)
