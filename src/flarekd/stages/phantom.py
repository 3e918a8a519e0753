"""``flarekd phantom``: write a synthetic cohort in FLARE's own layout."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from flarekd import console, plain_json
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.atomic import write_json, write_text
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.lock import alone
from flarekd.parallel import map_cases
from flarekd.phantom.annotate import Labels, organ_pseudo_labels, partial_labels
from flarekd.phantom.case import make_case
from flarekd.phantom.patient import CasePlan
from flarekd.phantom.plan import VERSION, plan_cohort
from flarekd.workers import BASE, share_memory

SETTINGS_FILE, TABLE_FILE = "phantom.json", "phantoms.csv"
IMAGE_FOLDERS = {"labelled": "imagesTr", "unlabelled": "imagesUnlabeled", "val": "imagesVal"}


WORK, BYTES_A_VOXEL = 200 << 20, 6
"""What drawing a patient takes, and then a scan of it."""


@dataclass(frozen=True)
class _Task:
    """One case to write; picklable."""

    plan: CasePlan
    out: Path


@alone(console.warn)
def make_phantoms(
    out: Path, cases: int, preset: str, seed: int, jobs: int | None, *, scheduler: str | None = None
) -> None:
    """Write a synthetic cohort: FLARE's folders, complete truth beside them, and what was planned.

    That is ``phantom.json``, and in ``phantoms.csv`` what scores are broken down by.

    The same settings give the same bytes whatever `jobs`. Cases whose files are all there are
    skipped; every file is whole or absent.

    Args:
        out: Folder of the cohort; made if need be.
        cases: Number of cases, training and validation together.
        preset: ``quick`` (coarse and small) or ``full`` (512 × 512).
        seed: Of the whole cohort.
        jobs: Processes, one case each at a time; None for as many as there are processors and
            memory for.
        scheduler: As ``parallel.map_cases`` takes it.

    Raises:
        InputError: If the settings make no cohort, or `out` holds a cohort of other settings.
        CasesFailedError: If a case could not be written; the others are.
    """
    try:
        plans = plan_cohort(cases, preset, seed)
    except ValueError as error:
        raise InputError(f"no such cohort: {error}", "see flarekd phantom --help") from error
    settings = {"version": VERSION, "preset": preset, "seed": seed, "cases": cases}
    _claim(out, settings, plans)
    if not (out / TABLE_FILE).exists():
        rows = [f"{plan.case},{plan.role},{plan.phase},{plan.region}\n" for plan in plans]
        write_text(out / TABLE_FILE, "".join(["case,role,phase,region\n", *rows]))
    todo = [
        _Task(plan, out)
        for plan in plans
        if not all(path.exists() for path in case_files(out, plan))
    ]
    if jobs is None and todo:
        most = max(prod(task.plan.grid().shape) for task in todo)
        jobs = share_memory(len(todo), BASE + WORK + BYTES_A_VOXEL * most, console.info)
    failed = []
    with console.progress("phantoms") as advance:
        done = len(plans) - len(todo)
        for outcome in map_cases(_write_case, todo, jobs or 1, scheduler):
            done += 1
            advance(done, len(plans), outcome.item.plan.case)
            if outcome.error is not None:
                failed.append(outcome.item.plan.case)
                console.warn(f"{outcome.item.plan.case}: {outcome.error}")
    if failed:
        what = f"{len(failed)} of {len(plans)} phantoms were not written: {', '.join(failed)}"
        raise CasesFailedError(what, "mend the cause named above and run it again")


def case_files(out: Path, plan: CasePlan) -> list[Path]:
    """The files a case consists of, its image first."""
    image = out / IMAGE_FOLDERS[plan.role] / f"{plan.case}_0000.nii.gz"
    folders = {
        "labelled": ("labelsTr", "organPseudo", "truth"),
        "unlabelled": ("organPseudo", "truth"),
        "val": ("labelsVal",),
    }[plan.role]
    return [image, *(out / folder / f"{plan.case}.nii.gz" for folder in folders)]


def _claim(out: Path, settings: dict[str, Any], plans: list[CasePlan]) -> None:
    """Note the settings in the folder, or make sure that the ones noted there are the same."""
    path = out / SETTINGS_FILE
    if path.exists():
        try:
            found = plain_json.read(path)["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a cohort's settings", "use an empty folder") from error
        if found != settings:
            what = f"{out} holds a cohort made with {found}, not {settings}"
            raise InputError(what, "choose another --out, or delete that folder")
        return
    taken = [
        folder
        for folder in (*IMAGE_FOLDERS.values(), "labelsTr", "labelsVal", "organPseudo", "truth")
        if (out / folder).exists()
    ]
    if taken:
        what = f"{out} holds {', '.join(taken)} but no {SETTINGS_FILE}: not a synthetic cohort"
        raise InputError(what, "choose another --out")
    write_json(path, {"settings": settings, "cases": [asdict(plan) for plan in plans]})


def _write_case(task: _Task) -> None:
    plan = task.plan
    case = make_case(plan)
    truth, organs = case.rendering.labels, case.rendering.organs
    image_path, *label_paths = case_files(task.out, plan)
    for path in label_paths:
        _write_map(path, _label_map(path.parent.name, plan, (truth, organs)), case.geometry)
    write_volume(image_path, Volume(case.rendering.image, case.geometry))


def _label_map(folder: str, plan: CasePlan, maps: tuple[Labels, Labels]) -> Labels:
    truth, organs = maps
    if folder == "labelsTr":
        return partial_labels(truth, organs, plan.group)
    if folder == "organPseudo":
        return organ_pseudo_labels(organs, plan.grid().spacing, plan.random(60), plan.factor)
    return truth


def _write_map(path: Path, labels: Labels, geometry: Geometry) -> None:
    write_labels(path, LabelMap(labels, geometry))
