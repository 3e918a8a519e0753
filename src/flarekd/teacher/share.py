"""One process's share of the cases through a teacher: tumour pseudo-labels and their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flarekd import fusion_table
from flarekd.cohort import Case
from flarekd.errors import FlarekdError, NoRoomError, reason
from flarekd.fusion import fuse
from flarekd.imaging import checks
from flarekd.imaging.files import read_labels_on, read_volume, write_labels
from flarekd.imaging.volume import LabelMap, Volume
from flarekd.inference.predictor import Predictor
from flarekd.inference.runtimes import Runtime
from flarekd.labels import IGNORE
from flarekd.ledger import DONE, Ledger, stamp
from flarekd.quality import Evidence, judge, round_uncertainty
from flarekd.teacher.segment import find_tumors, load, voxel_ml

PROBABILITY = "probability"
"""Folder of the tumour probabilities, below the pseudo-labels."""


@dataclass(frozen=True)
class Extras:
    """What is written beside the pseudo-labels.

    Attributes:
        probability: Whether the tumour probability is, as uint8.
        quality: Whether the figures of ``quality.py`` are; the teacher then runs twice.
        against: Model file of another teacher that labels the second time; the same one on the scan
            flipped left to right where left out.
        previous: Folders of pseudo-labels of earlier rounds, oldest first.
        organs: Folder of organ pseudo-labels, for the figures; a case that it has none of keeps
            the one of cohort.csv.
    """

    probability: bool = False
    quality: bool = False
    against: Path | None = None
    previous: tuple[Path, ...] = ()
    organs: Path | None = None


@dataclass(frozen=True)
class Share:
    """What all cases of a process share.

    Attributes:
        teacher: The network.
        second: That of ``extras.against``.
        out: Gets the pseudo-labels.
        extras: What is written beside.
        labels: What is labelled.
        figures: What is judged.
        warn: Told what to look at.
    """

    teacher: Predictor
    second: Predictor | None
    out: Path
    extras: Extras
    labels: Ledger
    figures: Ledger
    warn: Callable[[str], None]

    @classmethod
    def open(
        cls,
        model: Path,
        where: torch.device,
        runtime: Runtime,
        out: Path,
        *,
        extras: Extras,
        warn: Callable[[str], None],
    ) -> Share:
        """Make the networks ready.

        Raises:
            InputError: If a model is no teacher of tumours.
            UsageError: If the runtime is not there.
        """
        teacher = load(model, where, runtime)
        second = load(extras.against, where, runtime) if extras.against is not None else None
        return cls(teacher, second, out, extras, *ledgers(out), warn)

    def label(self, case: Case) -> str | None:
        """Label one case, where that or something beside it is missing or out of date.

        Returns:
            Why it failed, None where it did not.

        Raises:
            NoRoomError: If the disk is full.
        """
        try:
            _label(self, case)
        except NoRoomError:
            raise
        except (FlarekdError, OSError, ValueError, MemoryError, RuntimeError) as error:
            return reason(error)
        return None


def ledgers(out: Path) -> tuple[Ledger, Ledger]:
    """What is labelled, and what is judged."""
    return Ledger(out / DONE), Ledger(out / "quality.jsonl")


def targets(out: Path, case: Case) -> list[Path]:
    """The pseudo-label and the probability of a case."""
    name = f"{case.case}.nii.gz"
    return [out / name, out / PROBABILITY / name]


def tables(out: Path) -> list[Path]:
    """The tables of figures of all cases."""
    return [out / fusion_table.QUALITY, out / fusion_table.COMPONENTS]


def _label(work: Share, case: Case) -> None:
    target, probability = targets(work.out, case)
    beside = [probability] if work.extras.probability else []
    case.refuse_own([target, probability])
    key = stamp(work.teacher.sha256, work.teacher.runtime, case.image)
    judged = stamp(key, *_judged_by(work, case)) if work.extras.quality else ""
    is_judged = not judged or work.figures.is_done(case.case, judged)
    if is_judged and work.labels.is_done(case.case, key, target, *beside):
        return
    work.labels.begin(case.case)
    for path in (target, probability, *tables(work.out)):
        path.unlink(missing_ok=True)  # of another teacher: if this fails, none
    volume = read_volume(case.image)
    for note in (*volume.notes, *checks.of_scan(volume.array)):
        work.warn(f"{case.image}: {note}")
    chances = np.zeros(volume.array.shape, np.uint8) if beside or judged else None
    found, labels, dropped = find_tumors(work.teacher, volume, probability=chances)
    if judged and chances is not None:
        figures, rows = _judge(work, case, volume, labels, chances)
        work.figures.add(case.case, judged, figures=figures, components=rows)
    if beside and chances is not None:
        write_labels(probability, LabelMap(chances, volume.geometry))
    write_labels(target, LabelMap(labels, volume.geometry))
    facts = {
        "tumor_ml": round(float((labels > 0).sum()) * voxel_ml(volume), 3),
        "dropped": dropped,
        "windows_run": found.windows_run,
        "windows_total": found.windows_total,
    }
    work.labels.add(case.case, key, **facts)


def _judged_by(work: Share, case: Case) -> list[Any]:
    """All that the figures depend on, beside teacher and scan."""
    second = work.second.sha256 if work.second else "flipped"
    rounds = [path for path in _rounds(work, case) if path.exists()]
    sources = [path for path in (case.label, case.organ_pseudo) if path]
    return [second, sorted(case.annotated), len(rounds), *rounds, *sources]


def _rounds(work: Share, case: Case) -> list[Path]:
    return [folder / f"{case.case}.nii.gz" for folder in work.extras.previous]


def _judge(
    work: Share,
    case: Case,
    volume: Volume,
    labels: NDArray[np.uint8],
    probability: NDArray[np.uint8],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of a pseudo-label, rounded as they are written."""
    again = find_tumors(work.second or work.teacher, volume, flip=work.second is None)[1]
    mask = labels != 0
    evidence = Evidence(
        mask, probability, again != 0, _organs(case, volume), volume.array,
        volume.geometry.spacing_zyx,
    )  # fmt: skip
    figures, rows = judge(evidence, work.teacher.card.fingerprint)
    paths = _rounds(work, case)
    figures["uncertainty"] = None
    if paths and all(path.exists() for path in paths):
        earlier = [read_labels_on(path, volume.geometry).array != 0 for path in paths]
        figures["uncertainty"] = round_uncertainty([*earlier, mask])
    return _rounded(figures), [_rounded(row) for row in rows]


def _organs(case: Case, volume: Volume) -> NDArray[np.uint8] | None:
    """The organs that are known of a case; None where none is."""
    if case.label is None and case.organ_pseudo is None:
        return None
    nothing, grid = np.zeros(volume.array.shape, np.uint8), volume.geometry
    partial = read_labels_on(case.label, grid).array if case.label else nothing
    partial = np.where(partial == IGNORE, np.uint8(0), partial)  # nobody has looked there
    organs = read_labels_on(case.organ_pseudo, grid).array if case.organ_pseudo else nothing
    return fuse(partial, nothing.astype(bool), organs, case.annotated)


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
