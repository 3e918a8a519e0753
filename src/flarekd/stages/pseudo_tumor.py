"""pseudo-tumor: cohort.csv + teacher → tumour pseudo-labels where no person annotated tumours.

Under torchrun each process takes its share of the cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flarekd import __version__, console, fusion_table
from flarekd.cohort import Case, read_cohort
from flarekd.errors import FAILURES, CasesFailedError, NoRoomError, UsageError, counted, reason
from flarekd.imaging import checks
from flarekd.imaging.atomic import update_text, write_json
from flarekd.imaging.files import read_volume, write_labels
from flarekd.imaging.volume import LabelMap
from flarekd.inference import predictor
from flarekd.inference.predictor import Predictor
from flarekd.inference.runtimes import Runtime
from flarekd.ledger import DONE, Ledger, forget_figures, refuse_foreign, stamp
from flarekd.pseudo_labels import refuse_gone, with_organs
from flarekd.tables import format_table
from flarekd.teacher.figures import judge_label
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

    def refuse_idle(self) -> None:
        """Refuse what only the figures take where none are asked for.

        Raises:
            UsageError: If something is.
        """
        given = {"--against": self.against, "--previous": self.previous, "--organs": self.organs}
        idle = [option for option, value in given.items() if value]
        if idle and not self.quality:
            what = f"{' and '.join(idle)} would do nothing: only figures take that"
            raise UsageError(what, "add --quality, or leave that out")


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
        UsageError: If device or runtime are not there, another run writes to `out`, or something is
            given for figures that are not asked for.
    """
    extras = extras or Extras()
    extras.refuse_idle()
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
        crew.after_first(lambda: _refuse_changed(work, cases))
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
            except FAILURES as error:
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
    case.refuse_own([target, probability])
    key, judged = _keys(work, case)
    if _is_done(work, case, key, judged):
        return
    work.labels.begin(case.case)
    forget_figures(_tables(work.out), console.info)
    for path in (target, probability):
        path.unlink(missing_ok=True)  # of another teacher: if this fails, none
    try:
        facts = _label(work, case, judged)
    except FAILURES:
        work.labels.give_up(case.case, target, probability)
        raise
    work.labels.add(case.case, key, target, probability, **facts)


def _label(work: _Work, case: Case, judged: str) -> dict[str, Any]:
    """Label one case, and judge it where `judged` is not empty."""
    target, probability = _targets(work.out, case)
    volume = read_volume(case.image)
    for note in (*volume.notes, *checks.of_scan(volume.array)):
        console.warn(f"{case.image}: {note}")
    beside = work.extras.probability
    chances = np.zeros(volume.array.shape, np.uint8) if beside or judged else None
    found, labels, dropped = find_tumors(work.teacher, volume, probability=chances)
    if judged and chances is not None:
        figures, rows = judge_label(
            work.teacher,
            work.second,
            case,
            volume,
            labels=labels,
            probability=chances,
            rounds=_rounds(work, case),
        )
        work.figures.add(case.case, judged, figures=figures, components=rows)
    if beside and chances is not None:
        write_labels(probability, LabelMap(chances, volume.geometry))
    write_labels(target, LabelMap(labels, volume.geometry))
    return {
        "tumor_ml": round(float((labels > 0).sum()) * voxel_ml(volume), 3),
        "dropped": dropped,
        "windows_run": found.windows_run,
        "windows_total": found.windows_total,
    }


def _keys(work: _Work, case: Case) -> tuple[str, str]:
    """What a case's label, and its figures, are known by; empty where no figures are wanted."""
    key = stamp(work.teacher.sha256, work.teacher.runtime, case.image)
    return key, stamp(key, *_judged_by(work, case)) if work.extras.quality else ""


def _is_done(work: _Work, case: Case, key: str, judged: str) -> bool:
    target, probability = _targets(work.out, case)
    beside = [probability] if work.extras.probability else []
    is_judged = not judged or work.figures.is_done(case.case, judged)
    return is_judged and work.labels.is_done(case.case, key, target, *beside)


def _refuse_changed(work: _Work, cases: Sequence[Case]) -> None:
    """Refuse to make labels anew that a person changed."""
    replaced = {}
    for case in cases:
        with suppress(OSError):  # told when it is done
            if not _is_done(work, case, *_keys(work, case)):
                replaced[case.case] = _targets(work.out, case)
    work.labels.refuse_changed(replaced)


def _judged_by(work: _Work, case: Case) -> list[Any]:
    """All that the figures depend on, beside teacher and scan."""
    second = work.second.sha256 if work.second else "flipped"
    rounds = [path for path in _rounds(work, case) if path.exists()]
    sources = [path for path in (case.label, case.organ_pseudo) if path]
    return [second, sorted(case.annotated), len(rounds), *rounds, *sources]


def _rounds(work: _Work, case: Case) -> list[Path]:
    return [folder / f"{case.case}.nii.gz" for folder in work.extras.previous]


def _report(work: _Work, model: Path, cases: Sequence[Case], failed: Mapping[str, str]) -> None:
    records = [work.labels.facts(case.case) for case in cases]
    report = {
        "flarekd": __version__,
        "model": model.name,
        "model_sha256": work.teacher.sha256,
        "runtime": work.teacher.runtime,
        "cases": records,
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
