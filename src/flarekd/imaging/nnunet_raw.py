"""What a raw folder of nnU-Net (v1, v2) or the Decathlon says of itself, in its dataset.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.errors import InputError, counted
from flarekd.foreign import IdMap
from flarekd.groups_file import Dataset, Rules, ids_of_json

NAME = "dataset.json"

_CHANNEL = re.compile(r"(.+)_(\d{4})")


def find_json(images: Path) -> Path | None:
    """The dataset.json beside a folder of scans, or in it."""
    places = (images.resolve().parent / NAME, images / NAME)
    return next((path for path in places if path.is_file()), None)


def noticed(rules: Rules, images: Path) -> tuple[Rules, str]:
    """Rules that know what the label files' ids are by a dataset.json that nobody named.

    Where groups.yaml speaks of data sets it is not asked. One whose ids are flarekd's changes
    nothing: each label file vouches for what it holds.

    Args:
        rules: As they are without.
        images: Folder of scans.

    Returns:
        The rules, and what to tell of it.

    Raises:
        InputError: If its names are not understood: its label files would be read as flarekd's ids.
    """
    path = find_json(images)
    if rules.datasets or path is None or "labels" not in _read(path):
        return rules, ""
    try:
        ids = ids_of_json(path)
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path}: {error}",
            f"write groups.yaml: `datasets: [{{ids: {path}, others: background}}]` takes what is "
            "not of our classes as background, and `{ids: flare}` does not ask this file",
        ) from error
    if _is_ours(ids):
        return rules, ""
    told = f"{path} says what the ids of the label files are ({ids.name}); it vouches for them in "
    told += "every case · write groups.yaml where that is not so"
    return replace(rules, datasets=(Dataset("*", ids, None, ids.annotated),)), told


def first_channels(scans: Mapping[str, Path], images: Path) -> tuple[dict[str, Path], str]:
    """Scans without the files of their further channels (``_0001`` and on beside a ``_0000``).

    Args:
        scans: Case id to file, as ``list_scans`` gives them.
        images: Their folder.

    Returns:
        Those that are left, and what to tell of it.

    Raises:
        InputError: If there seem to be channels and no dataset.json says which they are, or if it
            is not the first that is CT.
    """
    further = {
        case: match[1]
        for case in scans
        if (match := _CHANNEL.fullmatch(case)) and _is_first(scans.get(match[1]))
    }
    path = find_json(images)
    names = _channels(_read(path)) if path else []
    if not further or (not names and len(set(further.values())) == 1):
        return dict(scans), ""  # scans that are numbered from 0000 on look so too
    few = min(further)
    if len(names) < 2:
        raise InputError(
            f"{str(images)!r}: {few!r} lies beside {further[few]}_0000: are these further "
            "channels? flarekd takes one CT a case",
            "leave the CT's files alone in a folder, or rename what are cases of their own",
        )
    if "ct" in map(str.lower, names[1:]) and names[0].lower() != "ct":
        raise InputError(
            f"{str(images)!r}: the first channel is {names[0]!r}, and CT is another",
            "leave the CT's files alone in a folder, without _0001",
        )
    told = f"{counted(further, 'file')} of further channels ({', '.join(names[1:])}) are left out, "
    told += f"such as {few!r}: the first channel ({names[0]}) is taken as the CT"
    return {case: path for case, path in scans.items() if case not in further}, told


def _is_first(path: Path | None) -> bool:
    return path is not None and "_0000." in path.name


def _read(path: Path) -> dict[str, Any]:
    """Its content; nothing where it is no such file: anybody's file may be called so."""
    try:
        content = plain_json.read(path, plain_json.MOST_OF_OTHERS)
    except (ValueError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _channels(content: Mapping[str, Any]) -> list[str]:
    """Names of the channels, in their order."""
    named = content.get("channel_names") or content.get("modality")
    return [str(name) for _, name in sorted(named.items())] if isinstance(named, dict) else []


def _is_ours(ids: IdMap) -> bool:
    return all(theirs == ours for theirs, ours in ids.ids)
