"""What a raw folder of nnU-Net (v1, v2) or the Decathlon says of itself, in its dataset.json."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flarekd.errors import InputError, said
from flarekd.foreign import IdMap
from flarekd.groups_file import Dataset, Rules, ids_of_json
from flarekd.imaging.channels import find_json, read_json


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
    if rules.datasets or path is None or "labels" not in read_json(path):
        return rules, ""
    try:
        ids = ids_of_json(path)
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path}: {said(error)}",
            f"write groups.yaml: `datasets: [{{ids: {path}, others: background}}]` takes what is "
            "not of our classes as background, and `{ids: flare}` does not ask this file",
        ) from error
    if _is_ours(ids):
        return rules, ""
    told = f"{path} says what the ids of the label files are ({ids.name}); it vouches for them in "
    told += "every case · write groups.yaml where that is not so"
    return replace(rules, datasets=(Dataset("*", ids, None, ids.annotated),)), told


def _is_ours(ids: IdMap) -> bool:
    return all(theirs == ours for theirs, ours in ids.ids)
