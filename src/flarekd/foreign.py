"""Label maps of other data sets: what their ids are called, and what flarekd calls the same.

Ids are mapped by name. Arithmetic on arrays and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekd.labels import IGNORE, LABELS, NAMES, TUMOR

BACKGROUND = "background"
KIDNEYS = "kidney"
"""Both kidneys under one id, as KiTS has them: told apart by their side (``relabel``)."""

BOTH = 254
"""Stands for `KIDNEYS` in an `IdMap`."""

_SIDES = {"right": 2, "left": 13}
BESIDE_MM = 15.0
"""Kidneys whose middle lies nearer to the middle of the scan than this may be of either side."""

APART_MM = 60.0
"""Middles of kidneys that lie farther apart than this are on two sides."""

ALIASES: dict[str, int] = {
    **{label.name: label.id for label in LABELS},
    **{label.short.lower(): label.id for label in LABELS},
    **dict.fromkeys(("kidney_right",), 2),
    "arota": 5,  # as AMOS spells it
    **dict.fromkeys(("inferior_vena_cava", "vena_cava", "postcava"), 6),
    **dict.fromkeys(("right_adrenal_gland", "adrenal_gland_right"), 7),
    **dict.fromkeys(("left_adrenal_gland", "adrenal_gland_left"), 8),
    **dict.fromkeys(("gall_bladder",), 9),
    **dict.fromkeys(("oesophagus",), 10),
    **dict.fromkeys(("kidney_left",), 13),
    **dict.fromkeys(("tumour", "tumors", "tumours", "lesion", "lesions", "cancer"), TUMOR),
}
"""What public datasets call flarekd's classes, in lower case with underscores."""

_IN_LABEL_FILES: dict[str, int] = {
    **dict.fromkeys((BACKGROUND, "bg"), 0),
    "ignore": IGNORE,  # nnU-Net v2: nobody has looked there
    **dict.fromkeys((KIDNEYS, "kidneys", "cyst", "kidney_cyst"), BOTH),
    "kidney_cyst_right": 2,
    "kidney_cyst_left": 13,
    **dict.fromkeys(("liver_tumor", "kidney_tumor", "pancreas_tumor"), TUMOR),
    **dict.fromkeys(("colon_cancer_primaries", "mass"), TUMOR),
}
"""What label files hold beside them."""


def alias(name: str) -> str:
    """A name as ``ALIASES`` has it."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


@dataclass(frozen=True)
class IdMap:
    """What the ids of a data set are to flarekd.

    Attributes:
        name: Of the data set.
        ids: Pairs of their id and ours (0..14, `BOTH`, or `IGNORE` where nothing was annotated).
        ignores_rest: Whether ids that are not named are background; else they are refused.
        others: Names that are none of our classes', of ids that are background.
    """

    name: str
    ids: tuple[tuple[int, int], ...]
    ignores_rest: bool = False
    others: tuple[str, ...] = ()

    @property
    def annotated(self) -> frozenset[int]:
        """The classes that the data set has."""
        return classes_of(label for _, label in self.ids)

    def unknown(self, present: Mapping[int, int]) -> dict[int, int]:
        """Of ids and their voxels, those that the map does not name."""
        known = {0, *(label for label, _ in self.ids)}
        if self.ignores_rest:
            return {}
        return {label: count for label, count in present.items() if label not in known}


def classes_of(ours: Iterable[int]) -> frozenset[int]:
    """The classes 1..14 among our ids: `BOTH` are two, background and `IGNORE` none."""
    found = set(ours) - {0, IGNORE}
    return frozenset(found - {BOTH} | (set(_SIDES.values()) if BOTH in found else set()))


def our_id(name: str) -> int:
    """What flarekd calls a class of another data set: an id, 0 for background, or `BOTH`.

    `IGNORE` stands for voxels that nobody has annotated.

    >>> our_id("Kidney-Right"), our_id("liver"), our_id("postcava")
    (2, 1, 6)

    Raises:
        ValueError: If no class is called so.
    """
    found = (ALIASES | _IN_LABEL_FILES).get(alias(name))
    if found is None:
        known = ", ".join([*NAMES, KIDNEYS])
        message = f"{name!r} is none of {known}, nor another name of one"
        message += f"; call {BACKGROUND!r} what is not wanted"
        raise ValueError(message)
    return found


def id_map(name: str, names: Mapping[int, str], *, ignores_rest: bool = False) -> IdMap:
    """A map from ids and what the data set calls them.

    Args:
        name: Of the data set.
        names: Their id to what they call it.
        ignores_rest: As in `IdMap`.

    Raises:
        ValueError: If a name is not understood, or an id lies outside 0..255.
    """
    wrong = sorted(label for label in names if not 0 <= label <= 255)
    if wrong:
        message = f"ids {wrong} lie outside 0..255"
        raise ValueError(message)
    pairs = ((label, our_id(names[label])) for label in sorted(names))
    return IdMap(name, tuple(pairs), ignores_rest)


DATASETS: dict[str, IdMap] = {
    one.name: one
    for one in (
        id_map("flare", {label.id: label.name for label in LABELS}),
        id_map("kits19", {1: "kidney", 2: "tumor"}),
        id_map("kits21", {1: "kidney", 2: "tumor", 3: "cyst"}),
        id_map("kits23", {1: "kidney", 2: "tumor", 3: "cyst"}),
        id_map("lits", {1: "liver", 2: "tumor"}),
        id_map("msd-liver", {1: "liver", 2: "cancer"}),
        id_map("msd-pancreas", {1: "pancreas", 2: "cancer"}),
        id_map("msd-hepaticvessel", {1: "background", 2: "tumour"}),
        id_map("msd-spleen", {1: "spleen"}),
        id_map("msd-colon", {1: "colon cancer primaries"}),
        id_map(
            "totalsegmentator",
            {
                1: "spleen", 2: "kidney_right", 3: "kidney_left", 4: "gallbladder", 5: "liver",
                6: "stomach", 7: "pancreas", 8: "adrenal_gland_right", 9: "adrenal_gland_left",
                15: "esophagus", 19: "duodenum", 23: "kidney_cyst_left", 24: "kidney_cyst_right",
                52: "aorta", 63: "inferior_vena_cava",
            },
            ignores_rest=True,
        ),
        id_map(
            "totalsegmentator-v1",
            {
                1: "spleen", 2: "kidney_right", 3: "kidney_left", 4: "gallbladder", 5: "liver",
                6: "stomach", 7: "aorta", 8: "inferior_vena_cava", 10: "pancreas",
                11: "adrenal_gland_right", 12: "adrenal_gland_left", 42: "esophagus",
                56: "duodenum",
            },
            ignores_rest=True,
        ),
    )
}  # fmt: skip
"""Data sets by name, as they are published.

Ids after KiTS (``kits23/configuration/labels.py``), the dataset.json files of the Medical
Segmentation Decathlon, and TotalSegmentator (``map_to_binary.py``: ``total``, ``total_v1``).
A renal cyst counts as kidney, vessels of the liver as nothing.
"""


def relabel(
    labels: NDArray[np.uint8], ids: IdMap, spacing_x: float
) -> tuple[NDArray[np.uint8], str]:
    """Turn another data set's ids into flarekd's.

    Args:
        labels: Their ids, uint8 (z, y, x), canonical: x grows to the patient's left.
        ids: What they are; ids that are not named become background.
        spacing_x: Millimetres along x.

    Returns:
        Our ids, a new array, and what is not sure about it, empty where all is.
    """
    table = np.zeros(256, np.uint8)
    for theirs, ours in ids.ids:
        table[theirs] = ours
    mapped = table[labels]
    doubt = tell_kidneys_apart(mapped, spacing_x) if BOTH in table else ""
    return mapped, doubt


def tell_kidneys_apart(mapped: NDArray[np.uint8], spacing_x: float) -> str:
    """Give every part of the kidneys its side, in place; says what is not sure.

    Args:
        mapped: Our ids, uint8 (z, y, x), canonical, `BOTH` where a kidney is; changes.
        spacing_x: Millimetres along x.
    """
    from scipy import ndimage

    kidneys = mapped == BOTH
    if not kidneys.any():
        return ""
    (box,) = ndimage.find_objects(kidneys.astype(np.uint8))
    parts, count = ndimage.label(kidneys[box], np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    middles = np.asarray(
        [x for _, _, x in ndimage.center_of_mass(parts > 0, parts, range(1, count + 1))]
    )
    middles = (middles + box[2].start) * spacing_x
    middle = (mapped.shape[2] - 1) / 2 * spacing_x
    large = sizes >= 0.1 * sizes.sum()
    doubt = ""
    if np.ptp(middles[large]) > APART_MM:
        # two kidneys: the patient's middle lies between them, wherever the scan's does
        ordered = np.sort(middles[large])
        gap = int(np.argmax(np.diff(ordered)))
        middle = float(ordered[gap : gap + 2].mean())
    elif np.abs(middles[large] - middle).min() < BESIDE_MM:
        doubt = "the side of the kidney is not sure: it lies in the middle of the scan"
    sides = np.where(middles > middle, _SIDES["left"], _SIDES["right"]).astype(np.uint8)
    inside = mapped[box]  # a view
    inside[kidneys[box]] = np.concatenate([[0], sides]).astype(np.uint8)[parts][kidneys[box]]
    return doubt
