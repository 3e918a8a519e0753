"""groups.yaml: a user's own groups, and what the label ids of other data sets are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from flarekd import plain_json, plain_yaml
from flarekd.errors import InputError
from flarekd.foreign import BOTH, DATASETS, IdMap, id_map, our_id
from flarekd.labels import BY_ID, GROUPS, TUMOR
from flarekd.protocol import Section

PARTLY = ("flare",)
"""Data sets of which each case has some classes annotated and others not."""

MEND = "docs/grouping.md shows what groups.yaml may say"


class _Dataset(Section):
    """An entry of ``datasets``; ``present`` is vouched for where it is, and nothing else."""

    cases: str = "*"
    ids: str | dict[int, str] | None = None
    organ_pseudo: str | dict[int, str] | None = None
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
    """

    pattern: str
    ids: IdMap | None = None
    organ_pseudo: IdMap | None = None
    annotated: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """What to call it."""
        return self.ids.name if self.ids else self.pattern


@dataclass(frozen=True)
class Rules:
    """What groups.yaml says.

    Attributes:
        groups: Table 1 and the user's own; a user's replaces one of the same number.
        datasets: In the order of the file.
    """

    groups: Mapping[int, frozenset[int]]
    datasets: tuple[Dataset, ...] = ()

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
                f"there are {', '.join(sorted(cases)[:3])}, …",
                "write a pattern of case ids; the first that fits a case holds",
            )

    def dataset_of(self, case: str) -> Dataset | None:
        """The first data set whose pattern fits a case."""
        return next((one for one in self.datasets if fnmatchcase(case, one.pattern)), None)


TABLE_1 = Rules(GROUPS)


def read_rules(path: Path) -> Rules:
    """Read groups.yaml.

    Raises:
        InputError: If it is no such file; all its faults at once.
    """
    try:
        tree = plain_yaml.read(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", MEND) from error
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
            problems.append(f"datasets.{index}: {error}")
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
    ids = _ids(entry.ids, folder)
    pseudo = _ids(entry.organ_pseudo, folder)
    if pseudo and TUMOR in pseudo.annotated:
        message = f"organ_pseudo: {pseudo.name!r} names a tumour, organ pseudo-labels have none"
        raise ValueError(message)
    annotated = ids.annotated if ids and ids.name not in PARTLY else frozenset()
    if isinstance(entry.annotated, str):
        annotated = frozenset()
    elif entry.annotated is not None:
        annotated = _classes(entry.annotated)
    return Dataset(entry.cases, ids, pseudo, annotated)


def _ids(given: str | dict[int, str] | None, folder: Path) -> IdMap | None:
    """A data set by its name, a dataset.json beside groups.yaml, or ids and their names."""
    if given is None:
        return None
    if isinstance(given, dict):
        return id_map("own", given)
    if given.endswith(".json"):
        return _dataset_json(folder / given)
    if given not in DATASETS:
        message = f"no data set {given!r}; there are {', '.join(DATASETS)}, and *.json files"
        raise ValueError(message)
    return DATASETS[given]


def _dataset_json(path: Path) -> IdMap:
    """The labels of a dataset.json, id → name (Decathlon, nnU-Net v1) or name → id (v2)."""
    try:
        content = plain_json.read(path, plain_json.MOST_OF_OTHERS)
        labels = dict(content["labels"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path.name} has no 'labels': {error}"
        raise ValueError(message) from error
    names: dict[int, str] = {}
    for key, value in labels.items():
        label, name = (key, value) if isinstance(value, str) else (value, key)
        names[_one_id(label, name)] = name
    return id_map(str(content.get("name", path.parent.name)), names)


def _one_id(label: Any, name: str) -> int:
    try:
        return int(label)
    except (TypeError, ValueError, OverflowError):
        message = f"{name!r} is {label!r}: a region of several ids; write the ids in groups.yaml"
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
