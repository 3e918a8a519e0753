"""groups.yaml: a user's own groups, and what the files and label ids of other data sets are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from flarekd import plain_json, plain_yaml
from flarekd.errors import InputError, listed, reason, said
from flarekd.foreign import BOTH, DATASETS, IdMap, id_map, our_id
from flarekd.labels import BY_ID, GROUPS, TUMOR
from flarekd.layout import Layout
from flarekd.protocol import Section

PARTLY = ("flare",)
"""Data sets of which each case has some classes annotated and others not."""

MEND = "docs/grouping.md shows what groups.yaml may say"


class _Dataset(Section):
    """An entry of ``datasets``; ``present`` is vouched for where it is, and nothing else."""

    cases: str = "*"
    images: str | None = None
    labels: str | None = None
    ids: str | dict[int | str, str] | None = None
    organ_pseudo: str | dict[int | str, str] | None = None
    others: Literal["background"] | None = None
    annotated: list[str | int] | Literal["present"] | None = None


class _File(Section):
    groups: dict[int, list[str | int]] = Field(default_factory=dict)
    datasets: list[_Dataset] = Field(default_factory=list)


@dataclass(frozen=True)
class Dataset:
    """What is known of the label files of some cases.

    Attributes:
        pattern: Of case ids, as a shell matches names.
        ids: What the ids of their label files are, None where they are flarekd's.
        organ_pseudo: The same of their organ pseudo-labels.
        annotated: The classes that their label files vouch for, whether present or not; empty
            where each file vouches for what it holds.
        images: Where their scans lie, None where they lie side by side.
        labels: Where their label files lie, None likewise; perhaps one mask a class.
        masks: What masks are called, theirs to ours, where not as their names say.
        ignores_rest: Whether what has another name than our classes is background.
        is_partly: Whether each file vouches for what it holds, and for nothing else.
    """

    pattern: str
    ids: IdMap | None = None
    organ_pseudo: IdMap | None = None
    annotated: frozenset[int] = frozenset()
    images: Layout | None = None
    labels: Layout | None = None
    masks: Mapping[str, int] = field(default_factory=dict)
    ignores_rest: bool = False
    is_partly: bool = False

    @property
    def name(self) -> str:
        """What to call it."""
        if self.ids:
            return self.ids.name
        layout = self.labels or self.images
        return layout.text if layout and self.pattern == "*" else self.pattern


@dataclass(frozen=True)
class Rules:
    """What groups.yaml says.

    Attributes:
        groups: Table 1 and the user's own; a user's replaces one of the same number.
        datasets: In the order of the file.
        owners: Cases that were found where a data set says that its scans lie: their ids to its
            place in `datasets`.
    """

    groups: Mapping[int, frozenset[int]]
    datasets: tuple[Dataset, ...] = ()
    owners: Mapping[str, int] = field(default_factory=dict)

    def refuse_idle(self, cases: Collection[str]) -> None:
        """Refuse a pattern that fits no case: its label files would be read as flarekd's own ids.

        Raises:
            InputError: Naming each such pattern. ``*`` may be left with nothing.
        """
        used = {one.pattern for one in map(self.dataset_of, cases) if one}
        idle = [one.pattern for one in self.datasets if one.pattern not in (*used, "*")]
        if idle:
            raise InputError(
                f"groups.yaml: no case for {', '.join(map(repr, idle))}, which stand under cases:; "
                f"there are {listed(sorted(cases), most=3)}",
                "write a pattern of case ids; the first that fits a case holds",
            )

    def dataset_of(self, case: str) -> Dataset | None:
        """The data set that found a case, or the first without a place whose pattern fits it."""
        if case in self.owners:
            return self.datasets[self.owners[case]]
        flat = (one for one in self.datasets if one.images is None)
        return next((one for one in flat if fnmatchcase(case, one.pattern)), None)


TABLE_1 = Rules(GROUPS)


def read_rules(path: Path) -> Rules:
    """Read groups.yaml.

    Raises:
        InputError: If it is no such file; all its faults at once.
    """
    try:
        tree = plain_yaml.read(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {said(error)}", MEND) from error
    try:
        file = _File.model_validate(tree or {})
    except ValidationError as error:
        told = (
            f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors()
        )
        raise InputError(f"{path.name}: {'; '.join(told)}", MEND) from None
    problems: list[str] = []
    groups = dict(GROUPS)
    for number, members in file.groups.items():
        try:
            groups[number] = _group(number, members)
        except ValueError as error:
            problems.append(f"groups.{number}: {error}")
    datasets = []
    for index, entry in enumerate(file.datasets):
        try:
            datasets.append(_dataset(entry, path.parent))
        except (ValueError, OSError) as error:
            problems.append(f"datasets.{index}: {reason(error)}")
    if problems:
        raise InputError(f"{path.name}: {'; '.join(problems)}", MEND)
    return Rules(groups, tuple(datasets))


def _group(number: int, members: list[str | int]) -> frozenset[int]:
    if number < 1:
        message = "the number of a group is 1 or more"
        raise ValueError(message)
    ids = _classes(members)
    if not ids:
        message = "a group has at least one class"
        raise ValueError(message)
    return ids


def _dataset(entry: _Dataset, folder: Path) -> Dataset:
    images, labels = (Layout(text) if text else None for text in (entry.images, entry.labels))
    ignores_rest = entry.others is not None
    pseudo = _ids(entry.organ_pseudo, folder, ignores_rest=ignores_rest)
    if pseudo and TUMOR in pseudo.annotated:
        message = f"organ_pseudo: {pseudo.name!r} names a tumour, organ pseudo-labels have none"
        raise ValueError(message)
    ids, masks = None, {}
    if labels and labels.has_masks:
        masks = _masks(entry.ids)
    else:
        ids = _ids(entry.ids, folder, ignores_rest=ignores_rest)
    if ignores_rest and not (ids or pseudo or (labels and labels.has_masks)):
        message = "others: of which names? say what the ids are"
        raise ValueError(message)
    is_partly = entry.annotated == "present" or (ids is not None and ids.name in PARTLY)
    annotated = ids.annotated if ids and not is_partly else frozenset()
    if isinstance(entry.annotated, list):
        annotated, is_partly = _classes(entry.annotated), False
    return Dataset(
        entry.cases, ids, pseudo, annotated, images, labels, masks, ignores_rest, is_partly
    )


def _ids(
    given: str | dict[int | str, str] | None, folder: Path, *, ignores_rest: bool
) -> IdMap | None:
    """A data set by its name, a dataset.json beside groups.yaml, or ids and their names."""
    if given is None:
        return None
    if isinstance(given, dict):
        # names that a person wrote are never passed over: one may be a slip
        own = {_one_id(label, name): name for label, name in given.items()}
        return id_map("own", own, ignores_rest=ignores_rest)
    if given.endswith(".json"):
        return ids_of_json(folder / given, ignores_rest=ignores_rest)
    if given not in DATASETS:
        message = f"no data set {given!r}; there are {', '.join(DATASETS)}, and *.json files"
        raise ValueError(message)
    known = DATASETS[given]
    return replace(known, ignores_rest=known.ignores_rest or ignores_rest)


def _masks(given: str | dict[int | str, str] | None) -> dict[str, int]:
    """What masks of other names are."""
    if given is not None and not isinstance(given, dict):
        raise ValueError(f"ids: {given!r} is of numbers, masks go by their names: leave it out")
    return {str(theirs): our_id(name) for theirs, name in (given or {}).items()}


def ids_of_json(path: Path, *, ignores_rest: bool = False) -> IdMap:
    """The labels of a dataset.json, id → name (Decathlon, nnU-Net v1) or name → id (v2).

    Of v2's regions (name → several ids) the smallest that holds an id says what it is.

    Args:
        path: The file.
        ignores_rest: Whether names that are not understood are background; else they are refused.

    Raises:
        ValueError: If it has no labels, or a name or an id is not understood.
        OSError: If it cannot be read.
    """
    try:
        content = plain_json.read(path, plain_json.MOST_OF_OTHERS)
        labels = dict(content["labels"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path.name} has no 'labels': {error}"
        raise ValueError(message) from error
    known: list[tuple[list[int], str]] = []
    foreign: list[tuple[list[int], str]] = []
    for key, value in labels.items():
        found, name = (key, value) if isinstance(value, str) else (value, key)
        region = found if isinstance(found, list) else [found]
        kind = foreign if ignores_rest and is_foreign(name) else known
        kind.append(([_one_id(label, name) for label in region], name))
    known.sort(key=lambda region: -len(region[0]))
    names = {label: name for region, name in known for label in region}
    others = [name for region, name in foreign if not names.keys() >= set(region)]
    name = str(content.get("name", path.resolve().parent.name))
    return replace(id_map(name, names, ignores_rest=ignores_rest), others=tuple(others))


def is_foreign(name: str) -> bool:
    """Whether a name is none of our classes'."""
    try:
        our_id(name)
    except ValueError:
        return True
    return False


def _one_id(label: Any, name: str) -> int:
    try:
        return int(label)
    except (TypeError, ValueError, OverflowError):
        message = f"{name!r} is {label!r}, which is no id; write the ids in groups.yaml"
        if isinstance(label, str):
            message = f"{label!r} is no id; names of files go with labels: '…/{{label}}.nii.gz'"
        raise ValueError(message) from None


def _classes(members: list[str | int]) -> frozenset[int]:
    found: set[int] = set()
    for member in members:
        label = member if isinstance(member, int) else our_id(member)
        if label == BOTH:
            found |= {2, 13}
        elif label in BY_ID:
            found.add(label)
        else:
            message = f"{member!r} is no class among 1..14"
            raise ValueError(message)
    return frozenset(found)
