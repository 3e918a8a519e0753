"""The pseudo-labels of a cohort: where those of organs lie, and what rules leave out of fusion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flarekd import fusion_table
from flarekd.cohort import Case
from flarekd.errors import InputError, UsageError
from flarekd.fusion_table import Figures
from flarekd.labels import ORGANS
from flarekd.selection import Dropped, Rule, parse_rule, select


def with_organs(cases: Sequence[Case], folder: Path | None) -> list[Case]:
    """Cases with their organ pseudo-labels of another folder; one that it lacks keeps its own.

    Args:
        cases: Of the cohort.
        folder: Of ``<case>.nii.gz``; None leaves all as they are.

    Raises:
        InputError: If there is no such folder.
    """
    if folder is None:
        return list(cases)
    if not folder.is_dir():
        raise InputError(f"no folder {str(folder)!r}", "run `flarekd pseudo-organs`")
    found = {case.case: folder / f"{case.case}.nii.gz" for case in cases}
    return [
        replace(case, organ_pseudo=found[case.case]) if found[case.case].exists() else case
        for case in cases
    ]


def refuse_gone(rounds: Iterable[Path]) -> None:
    """Refuse folders of earlier rounds that are not there: figures would lack them in silence.

    Raises:
        InputError: Naming the first.
    """
    for folder in rounds:
        if not folder.is_dir():
            raise InputError(f"no folder {str(folder)!r} of an earlier round", "check the path")


def drop(
    cases: Sequence[Case], tumor: Path, texts: Sequence[str]
) -> tuple[dict[str, list[Dropped]], dict[str, dict[int, float | None]]]:
    """What rules drop of each case.

    Nothing of a person is dropped: rules on tumours pass over cases with annotated tumours, rules
    on organs those with all organs annotated.

    Args:
        cases: Of the cohort, with the organ pseudo-labels that are going to be fused.
        tumor: Folder of tumour pseudo-labels.
        texts: The rules.

    Returns:
        Case to what is dropped of it, and to the voxels of each of its components.

    Raises:
        InputError: If the figures that a rule asks for are not there.
        UsageError: If a rule is none.
    """
    try:
        rules = [parse_rule(text) for text in texts]
    except ValueError as error:
        raise UsageError(f"--drop {error}", "see docs/fusion.md") from None
    figures: dict[str, Figures] = {}
    components: dict[str, dict[int, Figures]] = {}
    if any(rule.subject != "organs" for rule in rules):
        figures, components = fusion_table.read_quality(tumor)
    organs = _organ_figures(cases) if any(rule.subject == "organs" for rule in rules) else {}
    dropped, sizes = {}, {}
    for case in cases:
        mine, parts = _concerning(case, rules), components.get(case.case, {})
        known = figures.get(case.case, {}), parts, organs.get(case.case, {})
        if found := select(case.case, mine, *known):
            dropped[case.case] = found
            sizes[case.case] = {number: part["voxels"] for number, part in parts.items()}
    return dropped, sizes


def _concerning(case: Case, rules: Sequence[Rule]) -> list[Rule]:
    labelled = case.label is not None
    is_drawn = {True: _lacks_no_organ(case), False: case.has_tumor_label}
    return [
        rule
        for rule in rules
        if rule.concerns(case.case, case.group, is_labelled=labelled)
        and not is_drawn[rule.subject == "organs"]
    ]


def _organ_figures(cases: Sequence[Case]) -> Mapping[str, Figures]:
    """Figures of the organ pseudo-labels that are asked, where they have any."""
    asked = {c.case: c.organ_pseudo for c in cases if c.organ_pseudo and not _lacks_no_organ(c)}
    folders = {path.parent for path in asked.values()}
    tables = {
        folder: fusion_table.read_organ_quality(folder)
        for folder in sorted(folders)
        if (folder / fusion_table.QUALITY).exists()
    }
    if not tables:
        where = f" in {', '.join(repr(str(one)) for one in sorted(folders))}" if folders else ""
        raise InputError(
            f"there are no figures of organ pseudo-labels{where}",
            "make them with `flarekd pseudo-organs --quality`, and name its folder: --organs",
        )
    return {case: tables.get(path.parent, {}).get(case, {}) for case, path in asked.items()}


def _lacks_no_organ(case: Case) -> bool:
    return len(case.known_organs) == len(ORGANS)
