"""The whole road: every stage in order, each doing only what is not done yet."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from flarekd import config, console
from flarekd.cohort import read_cohort
from flarekd.decisions import read_unused
from flarekd.errors import CasesFailedError, InputError, counted, listed
from flarekd.fusion_table import read_organ_quality
from flarekd.hand_edits import left_out
from flarekd.imaging.files import list_scans
from flarekd.labels import ORGANS
from flarekd.lock import alone, locked
from flarekd.modelfile import read_card
from flarekd.pseudo_labels import refuse_gone
from flarekd.report.run_charts import BENCH_FOLDER
from flarekd.segmenting import Options
from flarekd.selection import parse_rule
from flarekd.stages.bench import bench
from flarekd.stages.evaluate import Extras, evaluate
from flarekd.stages.fuse import Extras as Fused
from flarekd.stages.fuse import fuse_labels
from flarekd.stages.fusion_quality import fusion_quality
from flarekd.stages.group_data import Folders, group_data
from flarekd.stages.infer import infer
from flarekd.stages.phantom import TABLE_FILE, make_phantoms
from flarekd.stages.pseudo_organs import pseudo_organs
from flarekd.stages.pseudo_tumor import Extras as Judged
from flarekd.stages.pseudo_tumor import pseudo_tumor
from flarekd.stages.train_organs import train_organs
from flarekd.stages.train_student import train_student
from flarekd.stages.train_teacher import train_teacher

TEACHER = "teacher/model.safetensors"
ORGAN_TEACHER = "organ-teacher/model.safetensors"
STUDENT = "student/model.safetensors"


class Problems:
    """Cases that failed in any stage, told once at the end."""

    def __init__(self) -> None:
        self._found: list[str] = []

    @contextmanager
    def of_cases(self) -> Iterator[None]:
        """Let a stage's failed cases pass: it has named them and written the rest."""
        try:
            yield
        except CasesFailedError as error:
            console.error(str(error))
            self._found.append(error.what)

    def tell(self) -> None:
        """Raise what was found.

        Raises:
            CasesFailedError: If a case failed anywhere.
        """
        if self._found:
            raise CasesFailedError("; ".join(self._found))


@alone(console.warn)
def demo(out: Path, preset: Literal["quick", "full"], settings: config.Config) -> None:
    """Make a synthetic cohort and take it down the whole road, to scores on held-out cases.

    Args:
        out: Everything goes below it.
        preset: Size of the phantoms.
        settings: The configuration, with its section `phantoms`.
    """
    if settings.phantoms is None:
        raise InputError("the configuration has no section 'phantoms'", "begin with base: quick")
    cohort = out / "cohort"
    _refuse_slips(settings, cohort / "organPseudo")
    console.heading("Synthetic cohort")
    make_phantoms(cohort, settings.phantoms.cases, preset, settings.seed, None)
    console.heading("Grouping partial labels")
    group_data(phantom_folders(cohort), out / "cohort.csv")
    problems = Problems()
    _teach_and_distil(out, settings, "auto", problems, truth=cohort / "truth")
    problems.tell()
    console.heading("Segmenting held-out scans")
    infer([cohort / "imagesVal"], out / STUDENT, out / "predictions")
    console.heading("Measuring one scan, and scoring against the complete truth")
    _bench(next(iter(list_scans(cohort / "imagesVal").values())), out)
    evaluate(
        out / "predictions",
        cohort / "labelsVal",
        out / "scores",
        settings.protocol,
        jobs=None,
        extras=Extras(cohort / "imagesVal", cohort / TABLE_FILE, training=_trainings(out)),
    )


def _bench(scan: Path, out: Path) -> None:
    """Measure what one scan takes, from the start of a process, for the page of scores."""
    place = out / "scores" / BENCH_FOLDER
    shutil.rmtree(place / "labels", ignore_errors=True)  # what is done would not be done again
    words = ["infer", str(scan), "--model", str(out / STUDENT), "--out", str(place / "labels")]
    bench([sys.executable, "-m", "flarekd", *words], place)


def phantom_folders(cohort: Path) -> Folders:
    """What of a synthetic cohort there is to learn from."""
    images, labels, pseudo, more = (
        cohort / name for name in ("imagesTr", "labelsTr", "organPseudo", "imagesUnlabeled")
    )
    return Folders(images, labels, pseudo, (more,))


def run(settings: config.Config, device: str) -> None:
    """Take the user's own folders down the road; what is whole and current is left alone.

    An existing cohort.csv is kept: people edit it. A case that fails in one stage is named, the
    others go on, and the run ends with exit status 4.

    Args:
        settings: The configuration, with its section `data`.
        device: As `device.choose` takes it.
    """
    data = settings.data
    if data is None:
        raise InputError("the configuration has no section 'data'", "name your folders there")
    with locked(data.out, console.warn):
        _run(settings, data, device)


def _run(settings: config.Config, data: config.Data, device: str) -> None:
    cohort = data.out / "cohort.csv"
    problems = Problems()
    _refuse_slips(settings, data.organ_pseudo)
    console.heading("Grouping partial labels")
    if cohort.exists():
        console.info(f"keeping {cohort}; remove it to group anew")
        with problems.of_cases():
            _tell_left_out(cohort)
    else:
        with problems.of_cases():
            folders = Folders(data.images, data.labels, data.organ_pseudo, data.unlabeled)
            group_data(folders, cohort, groups=data.groups, strict=settings.quality.strict)
    _teach_and_distil(data.out, settings, device, problems)
    if data.test_images is not None:
        console.heading("Segmenting test scans")
        predictions = data.out / "predictions"
        with problems.of_cases():
            infer([data.test_images], data.out / STUDENT, predictions, Options(device))
        if data.test_labels is not None:
            console.heading("Scoring")
            with problems.of_cases():
                evaluate(
                    predictions,
                    data.test_labels,
                    data.out / "scores",
                    settings.protocol,
                    jobs=None,
                    extras=Extras(data.test_images, training=_trainings(data.out)),
                )
    problems.tell()


def _tell_left_out(cohort: Path) -> None:
    """A table that is kept lacks what could not be used when it was written, mended or not."""
    absent = left_out(cohort, cohort.with_name("grouping.json"))
    if absent:
        what = f"{counted(absent, 'case')} not in {cohort} since it was written: {listed(absent)}"
        raise CasesFailedError(what, "grouping.json says why; once mended, remove it to group anew")


def _refuse_slips(settings: config.Config, organ_pseudo: Path | None) -> None:
    """Tell now what a later stage would stumble over after the teacher's hours."""
    for rule in settings.quality.drop:
        try:
            parse_rule(rule)
        except ValueError as error:
            raise InputError(f"quality.drop: {error}", "see docs/fusion.md") from None
    if organ_pseudo is not None and _asks(settings.quality.drop, of_organs=True):
        try:
            read_organ_quality(organ_pseudo)
        except InputError as error:
            raise InputError(f"quality.drop: {error.what}", error.mend) from None
    data = settings.data
    if data is None:
        return
    read_unused(data.review)
    if data.against is not None:
        read_card(data.against)
    try:
        refuse_gone(data.previous)
    except InputError as error:
        raise InputError(f"data.previous: {error.what}", error.mend) from None
    if (data.against or data.previous) and not _figures(settings.quality, of_organs=False):
        idle = "data.against" if data.against else "data.previous"
        what = f"{idle} would do nothing: only figures of tumours take that"
        raise InputError(what, "set quality.figures: true, or leave that out")


def _asks(rules: Sequence[str], *, of_organs: bool) -> bool:
    """Whether a rule goes by figures of organ pseudo-labels, or of tumours."""
    return any((parse_rule(rule).subject == "organs") is of_organs for rule in rules)


def _figures(quality: config.Quality, *, of_organs: bool) -> bool:
    """Whether figures of organ pseudo-labels, or of tumours, are made."""
    return quality.figures or _asks(quality.drop, of_organs=of_organs)


def _label_organs(
    out: Path, settings: config.Config, device: str, problems: Problems
) -> Path | None:
    """Organ pseudo-labels of one's own, where the data comes without and organs are lacking.

    Returns:
        Their folder; None where none are needed, or nobody has drawn an organ to learn from.
    """
    cohort = out / "cohort.csv"
    cases = [case for case in read_cohort(cohort) if case.split == "train"]
    are_given = any(case.organ_pseudo for case in cases)
    are_lacking = any(len(case.known_organs) < len(ORGANS) for case in cases)
    if are_given or not are_lacking or not any(case.known_organs for case in cases):
        return None
    console.heading("Training a network for organs: there are no organ pseudo-labels")
    with problems.of_cases():
        train_organs(cohort, out / "organ-teacher", settings, device, "may")
    console.heading("Organ pseudo-labels")
    with problems.of_cases():
        figures = _figures(settings.quality, of_organs=True)
        pseudo_organs(cohort, out / ORGAN_TEACHER, out / "organs", Options(device), quality=figures)
    return out / "organs"


def _trainings(out: Path) -> dict[str, Path]:
    """The run folders of both networks by name."""
    return {name: out / name for name in ("teacher", "student")}


def _teach_and_distil(
    out: Path,
    settings: config.Config,
    device: str,
    problems: Problems,
    *,
    truth: Path | None = None,
) -> None:
    """From cohort.csv to the student; with `truth`, both fusions are measured against it."""
    cohort, quality, data = out / "cohort.csv", settings.quality, settings.data
    console.heading("Training the tumour teacher")
    with problems.of_cases():
        train_teacher(cohort, out / "teacher", settings, device, "may")
    organs = _label_organs(out, settings, device, problems)
    console.heading("Tumour pseudo-labels")
    with problems.of_cases():
        figures = _figures(quality, of_organs=False)
        judged = Judged(
            probability=quality.probability,
            quality=figures,
            against=data.against if data else None,
            previous=data.previous if data else (),
            organs=organs if figures else None,
        )
        pseudo_tumor(cohort, out / TEACHER, out / "tumor", device, judged)
    console.heading("Fusing labels")
    with problems.of_cases():
        review = data.review if data else None
        extras = Fused(quality.provenance, quality.ignore_mm, quality.drop, review)
        fuse_labels(cohort, out / "tumor", out / "fused", settings.fusion, extras, organs=organs)
    if truth is not None:
        other: Literal["paper", "simple"] = "simple" if settings.fusion == "paper" else "paper"
        fuse_labels(cohort, out / "tumor", out / f"fused-{other}", other)
        folders: dict[str, Path] = {settings.fusion: out / "fused", other: out / f"fused-{other}"}
        fusion_quality(cohort, folders, truth, out / "fusion.json")
    console.heading("Training the student")
    with problems.of_cases():
        train_student(
            cohort,
            out / "fused",
            out / "student",
            settings,
            device_name=device,
            resume="may",
        )
