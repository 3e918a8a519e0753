"""The 14 classes, their NSD tolerances, and the annotation groups of Table 1."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass

BACKGROUND = 0
TUMOR = 14
IGNORE = 255
"""Nobody knows what this voxel is, so nothing is learned of it: in fused labels that were asked for
it, and where a data set's label files have an ``ignore``. No class; no model writes it."""


@dataclass(frozen=True)
class Label:
    """One class of the FLARE 2023 label map.

    Attributes:
        id: Voxel value, 1..14.
        name: Name in tables and score files.
        short: The paper's abbreviation (Table 1).
        tolerance_mm: NSD tolerance of the official scorer.
        color: RGB for pictures, 0..255.
    """

    id: int
    name: str
    short: str
    tolerance_mm: float
    color: tuple[int, int, int]


LABELS: tuple[Label, ...] = (
    Label(1, "liver", "Liver", 5.0, (221, 130, 101)),
    Label(2, "right_kidney", "RK", 3.0, (185, 102, 83)),
    Label(3, "spleen", "Spl", 3.0, (157, 108, 162)),
    Label(4, "pancreas", "Pan", 5.0, (249, 180, 111)),
    Label(5, "aorta", "Aor", 2.0, (224, 37, 36)),
    Label(6, "ivc", "IVC", 2.0, (0, 151, 206)),
    Label(7, "right_adrenal", "RAG", 2.0, (244, 214, 49)),
    Label(8, "left_adrenal", "LAG", 2.0, (250, 250, 140)),
    Label(9, "gallbladder", "Gall", 2.0, (60, 160, 60)),
    Label(10, "esophagus", "Eso", 3.0, (211, 171, 143)),
    Label(11, "stomach", "Sto", 5.0, (216, 132, 205)),
    Label(12, "duodenum", "Duo", 7.0, (110, 210, 200)),
    Label(13, "left_kidney", "LK", 3.0, (120, 70, 200)),
    Label(14, "tumor", "Tumor", 2.0, (0, 255, 0)),
)
BY_ID: dict[int, Label] = {label.id: label for label in LABELS}
NAMES: tuple[str, ...] = ("background", *(label.name for label in LABELS))
IDS: dict[str, int] = {name: label for label, name in enumerate(NAMES)}
ORGANS: tuple[int, ...] = tuple(label.id for label in LABELS if label.id != TUMOR)

GROUPS: dict[int, frozenset[int]] = {
    1: frozenset({14}),
    2: frozenset({1, 2, 3, 4}),
    3: frozenset({1, 2, 3, 4, 13}),
    4: frozenset({1, 2, 3, 4, 13, 14}),
    5: frozenset(range(1, 13)),
    6: frozenset(range(1, 14)) - {9},
    7: frozenset(range(1, 14)),
}
"""Table 1: the ids each group has annotated, the tumour (14) among them."""

GROUP_COUNTS: dict[int, int] = {1: 888, 2: 6, 3: 447, 4: 609, 5: 4, 6: 24, 7: 222}
"""Table 1: cases in each group of the 2,200 partially labelled FLARE 2023 cases."""


def color_of(label: int, name: str) -> tuple[int, int, int]:
    """RGB for pictures and tables, 0..255: ours for our names, else one that tells ids apart.

    Models with classes of their own use our ids for other things, so the name decides.
    """
    for ours in LABELS:
        if ours.name == name:
            return ours.color
    # hues a golden angle apart: neighbouring ids differ most
    rgb = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.55, 0.9)
    red, green, blue = (round(255 * channel) for channel in rgb)
    return red, green, blue


def tumor_of(names: Mapping[int, str]) -> int | None:
    """The id that is called tumor, None where none is: other models use 14 for something else."""
    return next((label for label, name in names.items() if name == "tumor"), None)


def readable(name: str) -> str:
    """A class name as people write it."""
    return {"ivc": "IVC", "tumor": "tumour"}.get(name, name.replace("_", " "))
