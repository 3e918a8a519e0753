"""Further channels beside a CT, as nnU-Net names them (``_0001`` and on), and dataset.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.errors import InputError, counted

NAME = "dataset.json"

_CHANNEL = re.compile(r"(.+)_(\d{4})")


def find_json(images: Path) -> Path | None:
    """The dataset.json beside a folder of scans, or in it."""
    places = (images.resolve().parent / NAME, images / NAME)
    return next((path for path in places if path.is_file()), None)


def read_json(path: Path) -> dict[str, Any]:
    """Its content; nothing where it is no such file: anybody's file may be called so."""
    try:
        content = plain_json.read(path, plain_json.MOST_OF_OTHERS)
    except (ValueError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


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
    names = _channels(read_json(path)) if path else []
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


def _channels(content: Mapping[str, Any]) -> list[str]:
    """Names of the channels, in their order."""
    named = content.get("channel_names") or content.get("modality")
    return [str(name) for _, name in sorted(named.items())] if isinstance(named, dict) else []
