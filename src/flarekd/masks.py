"""One mask a class, as TotalSegmentator has them, made one label map: arithmetic on arrays alone.

While masks are added, each voxel keeps which classes it has as bits; what becomes of a voxel is
looked up by them at the end, so that each mask is read once and none is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekd.foreign import BOTH, tell_kidneys_apart
from flarekd.labels import IGNORE, NAMES, TUMOR

LARGE_OVERLAP = 0.1
"""From this share of what an organ has on, another that covers it is for a person to decide."""

_FIRST = (IGNORE, TUMOR)
"""What goes over all else: what nobody has annotated, then tumours, which lie in organs."""


class Merger:
    """Masks of one case, added one after the other.

    Args:
        shape: Of all of them (z, y, x).
        classes: Our ids that are going to be added, at most 16: 1..14, `BOTH` or `IGNORE`.
    """

    def __init__(self, shape: tuple[int, ...], classes: Sequence[int]) -> None:
        self._classes = sorted(set(classes))
        self._bits = np.zeros(shape, np.uint16)

    def add(self, mask: NDArray[np.uint8], ours: int) -> None:
        """Add a mask, uint8 (z, y, x), anything but 0 inside; masks of one class are united."""
        self._bits[mask != 0] |= np.uint16(1 << self._classes.index(ours))

    def merge(
        self, spacing_x: float
    ) -> tuple[NDArray[np.uint8], dict[tuple[str, str], int], list[str]]:
        """The label map, which lies over which in how many voxels, and what is not sure.

        Where masks overlap, tumour goes over organs and a smaller organ over a larger one.

        Args:
            spacing_x: Millimetres along x.

        Returns:
            Our ids, uint8 (z, y, x); voxels by the names of the class that was taken and of the one
            below it; sentences for a person.
        """
        counts = np.zeros(1 << len(self._classes), np.int64)
        for plane in self._bits:  # slice by slice: bincount makes eight bytes of each voxel
            counts += np.bincount(plane.ravel(), minlength=len(counts))
        codes = np.arange(len(counts))
        sizes = [int(counts[codes >> bit & 1 == 1].sum()) for bit in range(len(self._classes))]
        order = sorted(range(len(sizes)), key=lambda bit: self._rank(bit, sizes[bit]))
        table = np.zeros(len(counts), np.uint8)
        for bit in reversed(order):
            table[codes >> bit & 1 == 1] = self._classes[bit]
        overlaps: dict[tuple[str, str], int] = {}
        doubts = []
        for place, upper in enumerate(order):
            for lower in order[place + 1 :]:
                is_pair = (codes >> upper & codes >> lower & 1) == 1
                voxels = int(counts[is_pair & (table == self._classes[upper])].sum())
                if not voxels:
                    continue
                names = self._name(upper), self._name(lower)
                overlaps[names] = voxels
                if self._classes[upper] not in _FIRST and voxels >= LARGE_OVERLAP * sizes[lower]:
                    doubts.append(f"the mask of {names[0]} lies over that of {names[1]}")
        labels = table[self._bits]
        if BOTH in self._classes:
            doubts.append(tell_kidneys_apart(labels, spacing_x))
        return labels, overlaps, [doubt for doubt in doubts if doubt]

    def _rank(self, bit: int, voxels: int) -> tuple[int, int, int]:
        ours = self._classes[bit]
        return (_FIRST.index(ours) if ours in _FIRST else len(_FIRST), voxels, ours)

    def _name(self, bit: int) -> str:
        ours = self._classes[bit]
        return {BOTH: "kidney", IGNORE: "ignore"}.get(ours) or NAMES[ours]
