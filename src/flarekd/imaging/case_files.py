"""Which files each case has: folders of scans and labels, or a folder a case as it is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from flarekd.errors import InputError, counted
from flarekd.evidence import PSEUDO
from flarekd.foreign import classes_of
from flarekd.groups_file import Dataset, Rules
from flarekd.imaging.channels import first_channels
from flarekd.imaging.examine import Files, Mask, Source
from flarekd.imaging.listing import deeper, is_scan, list_scans, of_ids, suffix_of
from flarekd.imaging.mask_names import tell_others, with_masks
from flarekd.imaging.nnunet_raw import noticed
from flarekd.labels import NAMES
from flarekd.layout import Layout
from flarekd.ledger import stamp_or_why

LABEL = "label"

WRITTEN = {LABEL: "labels", PSEUDO: "organ-pseudo"}
"""Where label files in flarekd's ids go: beside cohort.csv, ``cohort-labels`` and so on."""

VERSION = 2
"""Of what is measured of a case: what was measured by another version is measured anew."""


@dataclass(frozen=True)
class Folders:
    """Where the files are.

    Attributes:
        images: Scans; those with a file in `labels` are partially labelled, others unlabelled.
        labels: Partial label maps.
        organ_pseudo: Organ pseudo-labels.
        unlabeled: Folders of further scans without labels.
    """

    images: Path
    labels: Path | None = None
    organ_pseudo: Path | None = None
    unlabeled: tuple[Path, ...] = ()


@dataclass
class Found:
    """What there is.

    Attributes:
        files: Of each case.
        rules: With what was noticed in the folders.
        told: What a person should know, in sentences.
    """

    files: list[Files]
    rules: Rules
    told: list[str] = field(default_factory=list)

    def tell(self, sentence: str) -> None:
        """Add a sentence, where there is one."""
        if sentence:
            self.told.append(sentence)


def find_cases(folders: Folders, rules: Rules, out: Path) -> Found:
    """Find the files of every case.

    Args:
        folders: Where they are.
        rules: What groups.yaml says.
        out: cohort.csv, beside which label files in flarekd's ids go.

    Raises:
        InputError: If there is no case, a case has two scans, a file's name cannot be understood,
            no label file has the name of a scan, or `out` lies among label files.
    """
    _refuse_own(folders, out)
    found = Found([], rules)
    if folders.labels:
        found.rules, told = noticed(rules, folders.images)
        found.tell(told)
    scans = _scans(folders.images, found)
    everything = dict(scans)
    for folder in folders.unlabeled:
        more = _flat(folder, found)
        if both := sorted(everything.keys() & more.keys()):
            twice = f"{str(everything[both[0]])!r} and {str(more[both[0]])!r}"
            raise InputError(f"case {both[0]!r} is found twice: {twice}", "rename one of them")
        everything |= more
    if not everything:
        raise InputError(f"no scan in {str(folders.images)!r}", deeper(folders.images))
    found.rules.refuse_idle(everything.keys())
    drawn, masks = _labels(folders, scans, found)
    pseudo = list_scans(folders.organ_pseudo) if folders.organ_pseudo else {}
    _tell_strays(LABEL, drawn, everything, found)
    _tell_strays(PSEUDO, pseudo, everything, found)
    for case, image in everything.items():
        dataset = found.rules.dataset_of(case) or Dataset("*")
        sources = []
        if case in drawn and case in scans:
            sources.append(_source(LABEL, case, drawn[case], dataset, out, masks=masks.get(case)))
        if case in pseudo:
            sources.append(_source(PSEUDO, case, pseudo[case], dataset, out))
        parts = [part for one in sources for part in _parts(one)]
        found.files.append(Files(case, image, tuple(sources), stamp_or_why(VERSION, image, *parts)))
    return found


def _refuse_own(folders: Folders, out: Path) -> None:
    """Keep the table, and label files in other ids, from lying among those that were given."""
    given = [folder.resolve() for folder in (folders.labels, folders.organ_pseudo) if folder]
    places = [out.parent, *(_beside(out, kind) for kind in WRITTEN)]
    taken = [place for place in places if place.resolve() in given]
    if taken:
        what = f"{str(taken[0])!r} holds the label files that were given, and would get others"
        raise InputError(what, "choose another --out, such as one beside that folder")


def _beside(out: Path, kind: str) -> Path:
    """The folder of label files in flarekd's ids."""
    return out.with_name(f"{out.stem}-{WRITTEN[kind]}")


def _scans(images: Path, found: Found) -> dict[str, Path]:
    """Scans side by side, and those that lie where a data set says."""
    scans = _flat(images, found)
    owners: dict[str, int] = {}
    for place, dataset in enumerate(found.rules.datasets):
        if dataset.images is None:
            continue
        mine = {case: path for case, path in dataset.images.find(images).items() if is_scan(path)}
        mine = {case: path for case, path in mine.items() if fnmatchcase(case, dataset.pattern)}
        _refuse_empty(mine, dataset, dataset.images, images)
        for case, path in mine.items():
            if owners.setdefault(case, place) != place or scans.setdefault(case, path) != path:
                raise InputError(
                    f"case {case!r} is found twice: {str(scans[case])!r} and {str(path)!r}",
                    "rename one of them, or let each data set in groups.yaml say which cases are "
                    "its own (cases:)",
                )
    found.rules = replace(found.rules, owners=owners)
    wrong = of_ids((case, Path(case)) for case in scans)
    if wrong:
        raise InputError(f"{images}: {wrong[0][1].what}", wrong[0][1].mend)
    return dict(sorted(scans.items()))


def _flat(folder: Path, found: Found) -> dict[str, Path]:
    scans, told = first_channels(list_scans(folder), folder)
    found.tell(told)
    return scans


def _labels(
    folders: Folders, scans: Mapping[str, Path], found: Found
) -> tuple[dict[str, Path], dict[str, dict[str, Path]]]:
    """Case to label file, or to the folder of its masks; and the masks by case and name."""
    flat = list_scans(folders.labels) if folders.labels else {}
    drawn = {
        case: path
        for case, path in flat.items()
        # one folder may hold the scans and the label files of all data sets
        if path != scans.get(case) and not _has_layout(found.rules.dataset_of(case))
    }
    root = folders.labels or folders.images
    masks: dict[str, dict[str, Path]] = {}
    datasets = []
    for dataset in found.rules.datasets:
        for ids in (dataset.ids, dataset.organ_pseudo):
            found.tell(tell_others(dataset, ids.others if ids else ()))
        if dataset.labels is None:
            datasets.append(dataset)
            continue
        theirs = dataset.labels.find_masks(root)
        mine = {c: one for c, one in theirs.items() if _is_of(c, dataset, scans, found.rules)}
        _refuse_empty(mine, dataset, dataset.labels, root)
        drawn |= {case: next(iter(one.values())) for case, one in mine.items()}
        known, others = dataset, ""
        if dataset.labels.has_masks:
            drawn |= {case: path.parent for case, path in drawn.items() if case in mine}
            masks |= mine
            known, others = with_masks(dataset, {name for one in mine.values() for name in one})
        found.tell(others)
        datasets.append(known)
    found.rules = replace(found.rules, datasets=tuple(datasets))
    return drawn, masks


def _is_of(case: str, dataset: Dataset, scans: Mapping[str, Path], rules: Rules) -> bool:
    """Whether label files are a data set's: of its cases, or where its scan is not there."""
    is_stray = dataset.images is not None and case not in scans
    return rules.dataset_of(case) is dataset or (is_stray and fnmatchcase(case, dataset.pattern))


def _has_layout(dataset: Dataset | None) -> bool:
    return dataset is not None and dataset.labels is not None


def _source(
    kind: str,
    case: str,
    path: Path,
    dataset: Dataset,
    out: Path,
    *,
    masks: Mapping[str, Path] | None = None,
) -> Source:
    written = _beside(out, kind) / f"{case}.nii.gz"
    if masks is not None:
        mine = tuple(
            Mask(one, dataset.masks[name])
            for name, one in masks.items()
            if dataset.masks.get(name) and suffix_of(one)
        )
        there = classes_of(mask.ours for mask in mine)
        lacking = tuple(NAMES[label] for label in sorted(dataset.annotated - there))
        return Source(kind, path, None, written, mine, lacking)
    ids = dataset.ids if kind == LABEL else dataset.organ_pseudo
    return Source(kind, path, ids, written if ids else None)


def _parts(source: Source) -> list[object]:
    """What the result depends on: files, and what is in them."""
    if source.masks is None:
        return [source.kind, source.path, source.ids and asdict(source.ids)]
    return [source.kind, source.lacking, *(part for mask in source.masks for part in mask)]


def _refuse_empty(
    mine: Mapping[str, object], dataset: Dataset, layout: Layout, folder: Path
) -> None:
    if not mine:
        raise InputError(
            f"groups.yaml: no file {layout.text!r} of cases {dataset.pattern!r} below "
            f"{str(folder)!r}",
            "the path begins in the folder that is given; {case} stands for the case's id",
        )


def _tell_strays(
    kind: str, found: Mapping[str, Path], everything: Mapping[str, Path], into: Found
) -> None:
    strays = sorted(found.keys() - everything.keys())
    if strays and kind == LABEL and len(strays) == len(found):
        raise InputError(
            f"no label file has the name of a scan: there are {strays[0]!r} and the scan "
            f"{min(everything)!r}",
            "name label files as their scans are named, without _0000",
        )
    if strays:
        count = counted(strays, f"{kind} file")
        into.told.append(f"{count} without a scan, the first {strays[0]!r}")
