"""pseudo-tumor: cohort.csv + teacher → tumour pseudo-labels where no person annotated tumours.

Under torchrun each process takes its share of the cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd import __version__, console, fusion_table
from flarekd.cohort import Case, read_cohort
from flarekd.errors import CasesFailedError, FlarekdError, NoRoomError, counted, reason
from flarekd.fusion import fuse
from flarekd.imaging import checks
from flarekd.imaging.atomic import update_text, write_json
from flarekd.imaging.files import read_labels_on, read_volume, write_labels
from flarekd.imaging.volume import LabelMap, Volume
from flarekd.inference import predictor
from flarekd.inference.predictor import Predictor
from flarekd.inference.runtimes import Runtime
from flarekd.labels import IGNORE
from flarekd.ledger import DONE, Ledger, refuse_foreign, stamp
from flarekd.pseudo_labels import refuse_gone, with_organs
from flarekd.quality import Evidence, judge, round_uncertainty
from flarekd.tables import format_table
from flarekd.teacher.segment import find_tumors, load, voxel_ml
from flarekd.training import ranks

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
class _Work:
    """What all cases share."""

    teacher: Predictor
    second: Predictor | None
    out: Path
    extras: Extras
    labels: Ledger
    figures: Ledger


def pseudo_tumor(
    cohort: Path,
    model: Path,
    out: Path,
    device_name: str,
    extras: Extras | None = None,
    *,
    runtime: Runtime = "auto",
) -> None:
    """Label the tumours of every training case whose own label does not vouch for them.

    Args:
        cohort: cohort.csv.
        model: Teacher model file.
        out: Gets <case>.nii.gz (uint8, 14 where tumour) and report.json.
        device_name: As `predictor.device_for` takes it.
        extras: What is written beside.
        runtime: What runs the network; `runtimes.choose` takes it.

    Raises:
        InputError: If a model or the cohort cannot be used, a folder in `extras` is not there, or a
            file that no run wrote would be replaced.
        CasesFailedError: After the rest is written, if some cases failed.
        UsageError: If device or runtime are not there, or another run writes to `out`.
    """
    extras = extras or Extras()
    cases = [c for c in read_cohort(cohort) if c.split == "train" and not c.has_tumor_label]
    cases = with_organs(cases, extras.organs)
    refuse_foreign(out / DONE, {c.case: _targets(out, c) for c in cases}, _tables(out))
    refuse_gone(extras.previous)
    with (
        ranks.joined(predictor.device_for(model, device_name)) as (crew, where),
        ranks.holding(out, crew, console.warn),
    ):
        teacher = load(model, where, runtime)
        second = load(extras.against, where, runtime) if extras.against is not None else None
        work = _Work(teacher, second, out, extras, *_ledgers(out))
        failed = _label_all(work, cases[crew.rank :: crew.size])
        failed = {case: why for part in crew.gather(failed) for case, why in part.items()}
        if crew.is_first:
            _finish(work, model, cases, failed)


def _ledgers(out: Path) -> tuple[Ledger, Ledger]:
    """What is labelled, and what is judged."""
    return Ledger(out / DONE), Ledger(out / "quality.jsonl")


def _label_all(work: _Work, cases: Sequence[Case]) -> dict[str, str]:
    """One process's share of the cases; those that failed, and why."""
    failed: dict[str, str] = {}
    with console.progress("Tumour pseudo-labels") as advance:
        for done, case in enumerate(cases):
            advance(done, len(cases), case.case)
            try:
                _do(work, case)
            except NoRoomError:
                raise
            except (FlarekdError, OSError, ValueError, MemoryError, RuntimeError) as error:
                failed[case.case] = reason(error)
                console.error(f"{case.case}: {failed[case.case]}")
        advance(len(cases), len(cases), "")
    return failed


def _finish(work: _Work, model: Path, cases: Sequence[Case], failed: Mapping[str, str]) -> None:
    """Report what all processes did."""
    labels, figures = _ledgers(work.out)
    labels.claim()
    whole = [case for case in cases if case.case not in failed]
    _report(replace(work, labels=labels), model, whole, failed)
    if work.extras.quality:
        _write_quality(work.out, whole, figures)
    if failed:
        raise CasesFailedError(f"{counted(failed, 'case')} not labelled: {', '.join(failed)}")


def _targets(out: Path, case: Case) -> list[Path]:
    """The pseudo-label and the probability of a case."""
    name = f"{case.case}.nii.gz"
    return [out / name, out / PROBABILITY / name]


def _tables(out: Path) -> list[Path]:
    return [out / fusion_table.QUALITY, out / fusion_table.COMPONENTS]


def _do(work: _Work, case: Case) -> None:
    """Label one case, where that or something beside it is missing or out of date."""
    target, probability = _targets(work.out, case)
    beside = [probability] if work.extras.probability else []
    case.refuse_own([target, probability])
    key = stamp(work.teacher.sha256, work.teacher.runtime, case.image)
    judged = stamp(key, *_judged_by(work, case)) if work.extras.quality else ""
    is_judged = not judged or work.figures.is_done(case.case, judged)
    if is_judged and work.labels.is_done(case.case, key, target, *beside):
        return
    work.labels.begin(case.case)
    for path in (target, probability, *_tables(work.out)):
        path.unlink(missing_ok=True)  # of another teacher: if this fails, none
    volume = read_volume(case.image)
    for note in (*volume.notes, *checks.of_scan(volume.array)):
        console.warn(f"{case.image}: {note}")
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


def _judged_by(work: _Work, case: Case) -> list[Any]:
    """All that the figures depend on, beside teacher and scan."""
    second = work.second.sha256 if work.second else "flipped"
    rounds = [path for path in _rounds(work, case) if path.exists()]
    sources = [path for path in (case.label, case.organ_pseudo) if path]
    return [second, sorted(case.annotated), len(rounds), *rounds, *sources]


def _rounds(work: _Work, case: Case) -> list[Path]:
    return [folder / f"{case.case}.nii.gz" for folder in work.extras.previous]


def _judge(
    work: _Work,
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


def _report(work: _Work, model: Path, cases: Sequence[Case], failed: Mapping[str, str]) -> None:
    records = [work.labels.records[case.case] for case in cases]
    report = {
        "flarekd": __version__,
        "model": str(model),
        "model_sha256": work.teacher.sha256,
        "runtime": work.teacher.runtime,
        "cases": [{k: v for k, v in record.items() if k != "key"} for record in records],
        "failed": failed,
    }
    write_json(work.out / "report.json", report)
    found = sum(record["tumor_ml"] > 0 for record in records)
    console.info(f"{work.out}: tumour found in {found} of {len(records)} cases")


def _write_quality(out: Path, cases: Sequence[Case], figures: Ledger) -> None:
    """quality.csv and components.csv, in the order of the cohort."""
    rows, parts = [], []
    for case in cases:
        record = figures.records[case.case]
        rows.append({"case": case.case, "group": case.group, **record["figures"]})
        parts += [{"case": case.case, **part} for part in record["components"]]
    for name, columns, content in (
        (fusion_table.QUALITY, fusion_table.QUALITY_COLUMNS, rows),
        (fusion_table.COMPONENTS, fusion_table.COMPONENT_COLUMNS, parts),
    ):
        update_text(out / name, format_table(columns, content))
    console.info(f"{out / fusion_table.QUALITY}: figures of {len(rows)} pseudo-labels")
