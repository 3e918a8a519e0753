"""Which files are of which case: folders of scans and label maps, read by their names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from flarekd import console
from flarekd.decisions import read_unused, tell_strangers, tell_unused
from flarekd.errors import InputError, counted
from flarekd.evidence import PSEUDO
from flarekd.groups_file import Dataset, Rules
from flarekd.imaging.examine import Files, Source
from flarekd.imaging.files import list_scans
from flarekd.ledger import stamp

VERSION = 2
"""Of what is measured of a case: what was measured by another version is measured anew."""

LABEL = "label"

_WRITTEN = {LABEL: "labels", PSEUDO: "organ-pseudo"}
"""Where label files in flarekd's ids go: beside cohort.csv, ``cohort-labels`` and so on."""


@dataclass(frozen=True)
class Folders:
    """Where the files are.

    Attributes:
        images: Scans; those with a file in `labels` are partially labelled, others unlabelled.
        labels: Partial label maps.
        unlabeled: Further scans without labels.
        organ_pseudo: Organ pseudo-labels.
    """

    images: Path
    labels: Path | None = None
    unlabeled: Path | None = None
    organ_pseudo: Path | None = None


def find(folders: Folders, rules: Rules, out: Path) -> list[Files]:
    """The files of every case.

    Args:
        folders: Where they are.
        rules: What their ids are.
        out: The table that will name them; label files in flarekd's ids go beside it.

    Raises:
        InputError: If there is no scan, an id stands in both image folders, no label file has the
            name of a scan, or `out` lies among label files.
    """
    scans = list_scans(folders.images)
    drawn = list_scans(folders.labels) if folders.labels else {}
    more = list_scans(folders.unlabeled) if folders.unlabeled else {}
    pseudo = list_scans(folders.organ_pseudo) if folders.organ_pseudo else {}
    both = sorted(scans.keys() & more.keys())
    if both:
        raise InputError(
            f"case {both[0]!r} is in {str(folders.images)!r} and in {str(folders.unlabeled)!r}",
            "rename one of them",
        )
    everything = scans | more
    if not everything:
        raise InputError(
            f"no scan in {str(folders.images)!r}", "give a folder of .nii.gz, .mha or .nrrd files"
        )
    rules.refuse_idle(everything.keys())
    for name, found in ((LABEL, drawn), (PSEUDO, pseudo)):
        strays = sorted(found.keys() - everything.keys())
        if strays and name == LABEL and len(strays) == len(found):
            raise InputError(
                f"no label file has the name of a scan: there are {strays[0]!r} and the scan "
                f"{min(everything)!r}",
                "name label files as their scans are named, without _0000",
            )
        if strays:
            count = counted(strays, f"{name} file")
            console.warn(f"{count} without a scan, the first {strays[0]!r}")
    written = {kind: out.with_name(f"{out.stem}-{name}") for kind, name in _WRITTEN.items()}
    _refuse_own(folders, out, written.values())
    files = []
    for case, image in everything.items():
        dataset = rules.dataset_of(case) or Dataset("*")
        sources = []
        for kind, path, ids in (
            (LABEL, drawn.get(case) if case in scans else None, dataset.ids),
            (PSEUDO, pseudo.get(case), dataset.organ_pseudo),
        ):
            if path is not None:
                target = written[kind] / f"{case}.nii.gz" if ids else None
                sources.append(Source(kind, path, ids, target))
        paths = (
            part for one in sources for part in (one.kind, one.path, one.ids and asdict(one.ids))
        )
        files.append(Files(case, image, tuple(sources), stamp(VERSION, image, *paths)))
    return files


def reviewed(files: list[Files], review: Path | None) -> list[Files]:
    """The files without those of cases that a person took out.

    Raises:
        InputError: If `review` cannot be read, or takes out all.
    """
    unused = read_unused(review)
    mine = {one.case: unused[one.case] for one in files if one.case in unused}
    if strangers := tell_strangers(unused, {one.case for one in files}):
        console.warn(strangers)
    if mine:
        console.warn(tell_unused(mine))
    if len(mine) == len(files):
        raise InputError(f"{str(review)!r} leaves out every case", "tick some to keep")
    return [one for one in files if one.case not in mine]


def _refuse_own(folders: Folders, out: Path, written: Iterable[Path]) -> None:
    """Keep the table, and label files in other ids, from lying among those that were given."""
    given = [folder.resolve() for folder in (folders.labels, folders.organ_pseudo) if folder]
    taken = [place for place in (out.parent, *written) if place.resolve() in given]
    if taken:
        what = f"{str(taken[0])!r} holds the label files that were given, and would get others"
        raise InputError(what, "choose another --out, such as one beside that folder")
