"""Which case and which part of it a training patch comes from (method.md §5)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flarekd.protocol import Training

Zyx = tuple[int, int, int]


class Locatable(Protocol):
    """What sampling needs to know of a case."""

    @property
    def shape_zyx(self) -> Zyx:
        """Shape of the case's array."""

    @property
    def classes(self) -> Sequence[int]:
        """Foreground classes present."""

    def locations(self, label: int) -> NDArray[np.integer]:
        """Voxels (n, 3) of class `label`, z y x."""


class Lesioned(Locatable, Protocol):
    """What sampling needs to know of a case with lesions."""

    @property
    def lesions_mm3(self) -> Sequence[float]:
        """Volume of each lesion."""

    def lesion_voxels(self, lesion: int) -> NDArray[np.integer]:
        """Voxels (n, 3) of a lesion, z y x."""


Strata = Sequence[Sequence[tuple[int, Sequence[int]]]]
"""For each decade of volume that occurs: the cases with such lesions, and which they are."""


Holders = Mapping[int, Sequence[int]]
"""The cases that hold each class."""


@dataclass(frozen=True)
class Pick:
    """Which case a patch comes from, and which of its lesions or classes it is drawn around."""

    case: int
    lesion: int | None = None
    label: int | None = None


def stratify(cases: Sequence[Lesioned]) -> Strata:
    """Sort the lesions of a cohort by decades of mm³: 10 to 100, 100 to 1,000 and so on."""
    decades: dict[int, dict[int, list[int]]] = {}
    for number, case in enumerate(cases):
        for lesion, volume in enumerate(case.lesions_mm3):
            decade = decades.setdefault(math.floor(math.log10(volume)), {})
            decade.setdefault(number, []).append(lesion)
    return [list(decades[key].items()) for key in sorted(decades)]


def holders(cases: Sequence[Locatable]) -> Holders:
    """The cases that hold each class, by class."""
    found: dict[int, list[int]] = {}
    for number, case in enumerate(cases):
        for label in case.classes:
            found.setdefault(label, []).append(number)
    return dict(sorted(found.items()))


def draw_holder(
    generator: np.random.Generator,
    by_class: Holders,
    class_weights: Sequence[float] = (),
    without: Collection[int] = (),
) -> Pick | None:
    """Draw a class, and then a case that holds it, uniformly.

    For cohorts of which each case has some classes annotated: a class that few cases have is so
    drawn as often as one that all have.

    Args:
        generator: Source of randomness.
        by_class: Of the cohort (`holders`).
        class_weights: Of each class, background first: how often it is drawn. Empty: all alike.
        without: Cases that are not to be drawn.

    Returns:
        The case and the class; None where no case is left that holds one of any weight.
    """
    left = {
        label: [case for case in cases if case not in without] for label, cases in by_class.items()
    }
    labels = [label for label, cases in left.items() if cases]
    weights = np.asarray([class_weights[label] if class_weights else 1.0 for label in labels])
    if not weights.sum():
        return None
    label = labels[int(generator.choice(len(labels), p=weights / weights.sum()))]
    return Pick(left[label][int(generator.integers(len(left[label])))], label=label)


def draw_pick(
    generator: np.random.Generator,
    count: int,
    strata: Strata,
    share: float,
    *,
    forced: bool,
    without: Collection[int] = (),
) -> Pick:
    """Draw the case of a patch: uniformly with replacement (method.md §5), or by a lesion's size.

    By size means: a decade of volume, then a case with lesions of it, then one of these lesions,
    each uniformly. Small lesions are then seen as often as large ones, and a case of fifty no more
    often than a case of one.

    Args:
        generator: Source of randomness; with a `share` of 0 nothing but the case is drawn from it.
        count: Cases of the cohort.
        strata: Its lesions (``stratify``).
        share: Share of the forced patches that are drawn around a lesion.
        forced: Whether this one must hold foreground.
        without: Cases that are not to be drawn, fewer than all.

    Returns:
        The case, and the lesion where it was drawn by one.
    """
    if forced and share and generator.random() < share:
        left = _without(strata, without) if without else strata
        if left:
            stratum = left[int(generator.integers(len(left)))]
            case, lesions = stratum[int(generator.integers(len(stratum)))]
            return Pick(case, lesions[int(generator.integers(len(lesions)))])
    if not without:
        return Pick(int(generator.integers(count)))
    numbers = [number for number in range(count) if number not in without]
    return Pick(numbers[int(generator.integers(len(numbers)))])


def _without(strata: Strata, without: Collection[int]) -> Strata:
    kept = [[entry for entry in stratum if entry[0] not in without] for stratum in strata]
    return [stratum for stratum in kept if stratum]


def draw_place(
    generator: np.random.Generator, case: Lesioned, pick: Pick, settings: Training, *, forced: bool
) -> Zyx:
    """Draw where the region that is read of a picked case begins.

    Without a lesion as ``draw_start`` does, around the class that was picked, if any. With one, a
    random voxel of it lies off the patch's centre by up to a quarter of the patch on each axis,
    uniformly, and so within the patch.
    """
    patch, oversize = settings.patch, settings.oversize
    if pick.lesion is None:
        weights = settings.class_weights
        if pick.label is not None:
            weights = tuple(float(label == pick.label) for label in range(max(case.classes) + 1))
        return draw_start(generator, case, patch, oversize, forced=forced, class_weights=weights)
    voxels = case.lesion_voxels(pick.lesion)
    voxel = voxels[generator.integers(len(voxels))]
    limits = [size // 4 for size in patch]
    center = [
        int(at) + int(generator.integers(-limit, limit + 1))
        for at, limit in zip(voxel, limits, strict=True)
    ]
    return _centered(center, _bounds(case.shape_zyx, patch, oversize)[0], oversize)


def is_forced(index: int, batch: int, share: float) -> bool:
    """Whether sample `index` of a batch must hold foreground: the last `share` of it.

    With the paper's 0.33 that is 1 of 4 (teacher) and 1 of 2 (student).

    >>> [is_forced(i, 4, 0.33) for i in range(4)]
    [False, False, False, True]
    >>> [is_forced(i, 2, 0.33) for i in range(2)]
    [False, True]
    """
    return index >= round(batch * (1 - share))


def draw_start(
    generator: np.random.Generator,
    case: Locatable,
    patch: Zyx,
    oversize: Zyx,
    *,
    forced: bool,
    class_weights: Sequence[float] = (),
) -> Zyx:
    """Draw where the region that is read for a patch begins.

    A forced patch is centred on a random voxel of a random class present, for a 2D patch one of a
    random slice that holds the class. Any other lies anywhere, reaching over the border by no more
    than its oversize margin.

    Args:
        generator: Source of randomness.
        case: The case.
        patch: Voxels of the final patch.
        oversize: Voxels of the region read.
        forced: Whether it must hold foreground, where the case has any.
        class_weights: Of each class, background first: how often a forced patch is centred on it.
            Empty: all classes present alike, as the paper's code draws them.

    Returns:
        First voxel (z, y, x) of the region; may be negative, the rest is padding.
    """
    lowest, highest = _bounds(case.shape_zyx, patch, oversize)
    if forced and case.classes:
        weights = np.asarray([class_weights[c] if class_weights else 1.0 for c in case.classes])
        label = case.classes[int(generator.choice(len(weights), p=weights / weights.sum()))]
        voxels = case.locations(label)
        if patch[0] == 1:
            slices = np.unique(voxels[:, 0])
            voxels = voxels[voxels[:, 0] == slices[generator.integers(len(slices))]]
        voxel = voxels[generator.integers(len(voxels))]
        return _centered(voxel, lowest, oversize)
    z, y, x = (
        int(generator.integers(low, high + 1)) for low, high in zip(lowest, highest, strict=True)
    )
    return z, y, x


def _bounds(shape: Zyx, patch: Zyx, oversize: Zyx) -> tuple[list[int], list[int]]:
    """Lowest and highest start of a region on each axis."""
    lowest, highest = [], []
    for length, inner, outer in zip(shape, patch, oversize, strict=True):
        margin = max(outer - inner, outer - length)
        lowest.append(-(margin // 2))
        highest.append(max(length + margin // 2 + margin % 2 - outer, -(margin // 2)))
    return lowest, highest


def _centered(center: Sequence[int], lowest: Sequence[int], oversize: Zyx) -> Zyx:
    """Start of a region about `center`, clamped at the lower end alone (method.md §5)."""
    z, y, x = (
        max(low, int(at) - outer // 2)
        for low, at, outer in zip(lowest, center, oversize, strict=True)
    )
    return z, y, x
