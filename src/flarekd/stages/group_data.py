"""group-data: folders of scans and labels → cohort.csv (Table 1), with the evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flarekd import console
from flarekd.cohort import Case, format_cohort
from flarekd.decisions import read_unused, tell_strangers, tell_unused
from flarekd.errors import CasesFailedError, InputError, counted
from flarekd.evidence import PSEUDO, Evidence, weigh
from flarekd.groups_file import TABLE_1, Rules, read_rules
from flarekd.hand_edits import edited, hand_edits, tell_edits, was_written_with
from flarekd.imaging.atomic import write_text
from flarekd.imaging.case_files import LABEL, Folders, find_cases
from flarekd.imaging.examine import Files, examine, extents
from flarekd.ledger import Ledger, refuse_foreign
from flarekd.lock import alone
from flarekd.norms import Facts, learn
from flarekd.parallel import map_cases
from flarekd.report.cohort_table import COHORT_COLUMNS, LACKING_COLUMNS, Lacking, cohort_rows
from flarekd.report.grouping_json import Report
from flarekd.vouching import Vouching
from flarekd.workers import plan_workers

__all__ = ["Folders", "group_data"]

BYTES_A_VOXEL, BYTES_A_VOXEL_OF_MASKS = 4, 6
"""What measuring a label map takes: as stored, turned, and in our ids; more where it is made of
masks."""

GROUPING = "grouping.json"

MOST_TOLD = 20
"""Notes told on the screen; all of them stand in cohort.csv."""


@alone(console.warn, lambda out: out.parent)
def group_data(
    folders: Folders,
    out: Path,
    *,
    groups: Path | None = None,
    strict: bool = False,
    review: Path | None = None,
    scheduler: str | None = None,
) -> list[Case]:
    """Find every case, what its label file annotates, the group that makes it, and why.

    What is measured of a case is noted beside cohort.csv (``*.facts.jsonl``) as soon as it is
    known: a run that was killed goes on where it was, and gives the same files.

    Args:
        folders: Where the files are.
        out: cohort.csv; grouping.json comes beside it.
        groups: groups.yaml, Table 1 alone where left out.
        strict: Whether cases that a person should decide on are left out.
        review: What a person decided (``decisions.py``): cases ticked drop or fix are left out.
        scheduler: As ``parallel.map_cases`` takes it.

    Returns:
        The cases written.

    Raises:
        InputError: If there is no case, one id stands in both image folders, `groups` cannot be
            used, `out` lies among label files, files that no run wrote would be replaced, or no
            case can be used and there is a table of an earlier run, which is left as it was.
        CasesFailedError: After writing the rest, if some cases cannot be used.
    """
    rules = read_rules(groups) if groups else TABLE_1
    files, rules = _find(folders, rules, out, review)
    edits = hand_edits(out, out.with_name(GROUPING))
    measured, refused = _measure(files, out, scheduler)
    used = [one for one in files if one.case in measured]
    norms = learn(_facts(one, json.loads(measured[one.case]), rules) for one in used)
    report, lacking, vouching, grouped = Report(), Lacking(), Vouching(), []
    kept_edits: dict[str, dict[str, Any]] = {}
    for one in used:
        found = json.loads(measured[one.case])
        facts = _facts(one, found, rules)
        evidence = weigh(facts, norms, rules.groups)
        computed, is_ambiguous = _case(one, found, evidence)
        case = edited(computed, edits)
        if case != computed:
            kept_edits[case.case] = edits[case.case]
        grouped.append((case, facts.dataset, is_ambiguous))
        report.add(_record(one, found, evidence, is_ambiguous))
        vouching.add(facts)
        if evidence:
            lacking.add(evidence)
    kept = [(case, dataset) for case, dataset, is_open in grouped if not (strict and is_open)]
    kept.sort(key=lambda one: (not one[0].annotated, one[0].case))
    doubtful = [case.case for case, _, is_open in grouped if is_open]
    if kept_edits:
        console.warn(tell_edits(kept_edits))
    for doubt in vouching.doubts():
        console.warn(doubt)
    left_out = _left_out(refused, doubtful if strict else [])
    if not kept and out.exists():
        what = f"no case is left, {str(out)!r} is of an earlier run and stays as it was"
        raise InputError(f"{what}: {left_out}", "mend the files; if they are right, delete it")
    if kept:
        write_text(out, format_cohort((case for case, _ in kept), out.parent))
    # after the table: killed between the two, what was just written would look like a person's edit
    report.write(out.with_name(GROUPING), out.name, norms, refused, strict=strict)
    if kept:
        _show(kept, lacking, rules)
        console.info(f"{out}: {counted(kept, 'case')}, {len(doubtful)} for a person to decide")
    if left_out:
        raise CasesFailedError(left_out, f"{GROUPING} has the evidence")
    return [case for case, _ in kept]


def _find(
    folders: Folders, rules: Rules, out: Path, review: Path | None
) -> tuple[list[Files], Rules]:
    """The files of the cases that no person took out, and what their ids are."""
    found = find_cases(folders, rules, out)
    for told in found.told:
        console.warn(told)
    return _reviewed(found.files, review), found.rules


def _reviewed(files: list[Files], review: Path | None) -> list[Files]:
    """Without the cases that a person took out."""
    unused = read_unused(review, console.warn)
    mine = {one.case: unused[one.case] for one in files if one.case in unused}
    if strangers := tell_strangers(unused, {one.case for one in files}):
        console.warn(strangers)
    if mine:
        console.warn(tell_unused(mine))
    if len(mine) == len(files):
        raise InputError(f"{str(review)!r} leaves out every case", "tick some to keep")
    return [one for one in files if one.case not in mine]


def _measure(
    files: Sequence[Files], out: Path, scheduler: str | None
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """What was measured of each case (JSON), and of those that cannot be used why."""
    path = out.with_suffix(".facts.jsonl")
    # where a person deletes what was measured, grouping.json still knows the table
    if not was_written_with(out, out.with_name(GROUPING)):
        refuse_foreign(path, {one.case: one.written for one in files}, [out])
    ledger = Ledger(path)
    todo = [one for one in files if not ledger.is_done(one.case, one.key, *one.written)]
    ledger.refuse_changed({one.case: one.written for one in todo})
    for one in todo:
        if one.written:
            ledger.begin(one.case)
    measured: dict[str, str] = {}
    refused: dict[str, dict[str, Any]] = {}
    done = len(files) - len(todo)
    has_masks = any(source.masks is not None for one in todo for source in one.sources)
    takes = BYTES_A_VOXEL_OF_MASKS if has_masks else BYTES_A_VOXEL
    jobs = plan_workers((one.image for one in todo), takes, console.info)
    with console.progress("Grouping") as advance:
        for outcome in map_cases(examine, todo, jobs, scheduler):
            one = outcome.item
            if outcome.result is not None:
                # as text: a tenth of the memory that the same takes as objects
                facts, is_usable = json.dumps(outcome.result), "refused" not in outcome.result
                ledger.add(one.case, one.key, *one.written, facts=facts, usable=is_usable)
            else:
                if one.written:
                    ledger.give_up(one.case, *one.written)
                refused[one.case] = {"refused": outcome.error or ""}
            done += 1
            advance(done, len(files), one.case)
    for one in files:
        if one.case not in refused:
            record = ledger.records[one.case]
            if record["usable"]:
                measured[one.case] = record["facts"]
            else:
                refused[one.case] = json.loads(record["facts"])
    return measured, refused


def _facts(files: Files, found: Mapping[str, Any], rules: Rules) -> Facts:
    dataset = rules.dataset_of(files.case)
    drawn, pseudo = (extents(found[k]) if k in found else None for k in (LABEL, PSEUDO))
    vouched = dataset.annotated if dataset and drawn is not None else frozenset()
    name = dataset.name if dataset and vouched else ""
    return Facts(files.case, found["height_mm"], drawn, pseudo, name, vouched)


def _case(files: Files, found: Mapping[str, Any], evidence: Evidence | None) -> tuple[Case, bool]:
    """A row of the cohort, and whether a person should decide on it."""
    label, pseudo = files.source(LABEL), files.source(PSEUDO)
    doubts = [found[one.kind]["doubt"] for one in files.sources]
    read = [*found["notes"], *(note for one in files.sources for note in found[one.kind]["notes"])]
    notes = [evidence.note if evidence else "", *doubts, *read]
    case = Case(
        case=files.case,
        image=files.image,
        organ_pseudo=pseudo.used if pseudo else None,
        size=tuple(found["size"]),
        spacing=tuple(found["spacing"]),
        label=label.used if label else None,
        group=evidence.group if evidence else None,
        annotated=frozenset(evidence.annotated) if evidence else frozenset(),
        note="; ".join(note for note in notes if note),
    )
    return case, any(doubts) or (evidence is not None and evidence.is_ambiguous)


def _record(
    files: Files, found: Mapping[str, Any], evidence: Evidence | None, is_ambiguous: bool
) -> dict[str, Any]:
    """A case of grouping.json."""
    return {
        "case": files.case,
        **(asdict(evidence) if evidence else {}),
        "is_ambiguous": is_ambiguous,
        "height_mm": found["height_mm"],
        "sources": {
            one.kind: {"file": one.path.name, "ids": one.meaning} | dict(found[one.kind])
            for one in files.sources
        },
    }


def _left_out(refused: Mapping[str, Any], doubtful: Sequence[str]) -> str:
    """A sentence about cases that are left out, empty where none is."""
    told = []
    if refused:
        names = "; ".join(f"{case}: {refused[case]['refused']}" for case in sorted(refused))
        told.append(f"{counted(refused, 'case')} left out: {names}")
    if doubtful:
        names = ", ".join(doubtful)
        told.append(f"{counted(doubtful, 'ambiguous case')} left out (--strict): {names}")
    return "; ".join(told)


def _show(cases: Sequence[tuple[Case, str]], lacking: Lacking, rules: Rules) -> None:
    console.table("Cohort (Table 1)", COHORT_COLUMNS, cohort_rows(cases, rules))
    rows = lacking.rows()
    if rows:
        console.table("Organs that label files lack, and why", LACKING_COLUMNS, rows)
    noted = [case for case, _ in cases if case.note]
    for case in noted[:MOST_TOLD]:
        console.warn(f"{case.case}: {case.note}")
    if len(noted) > MOST_TOLD:
        console.warn(f"{len(noted) - MOST_TOLD} more cases have a note in cohort.csv")
