"""Synthetic scans with complete labels, as both sides of a comparison train on them."""

from __future__ import annotations

from pathlib import Path

from flarekd.imaging.files import list_scans
from flarekd.imaging.store import StoredCase
from flarekd.parallel import cpu_count
from flarekd.stages.phantom import make_phantoms
from flarekd.training.prepare import Grid, Source, prepare


def training_sources(cohort: Path, cases: int, preset: str, seed: int) -> list[Source]:
    """Make a cohort, or take the one that is there: all training cases with their whole truth."""
    make_phantoms(cohort, cases, preset, seed, jobs=cpu_count())
    truth = list_scans(cohort / "truth")
    images = list_scans(cohort / "imagesTr") | list_scans(cohort / "imagesUnlabeled")
    return [Source(case, images[case], truth[case]) for case in sorted(truth)]


def make_store(sources: list[Source], folder: Path, grid: Grid) -> list[StoredCase]:
    """The sources at the network's spacing.

    Raises:
        RuntimeError: If one could not be made.
    """
    cases, failed = prepare(sources, folder, grid, cpu_count(), lambda *_: None)
    if failed:
        message = f"not stored: {failed}"
        raise RuntimeError(message)
    return cases
