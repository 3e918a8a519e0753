"""What FLARE would give of a case: a group's partial labels, and a model's organ pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from flarekd.labels import GROUPS, TUMOR
from flarekd.phantom.grid import Float, Triple, enlarge, smooth_noise

Labels = NDArray[np.uint8]

BLUR_MM = {
    1: 4.0, 2: 3.0, 3: 3.5, 4: 2.4, 5: 1.8, 6: 1.9, 7: 1.2, 8: 1.2, 9: 2.2, 10: 1.7, 11: 3.6,
    12: 2.4, 13: 3.0,
}  # fmt: skip
"""How far an organ's border is smoothed: large organs lose detail, small ones would vanish."""

UNCERTAINTY = {
    1: 0.22, 2: 0.2, 3: 0.22, 4: 0.3, 5: 0.2, 6: 0.26, 7: 0.3, 8: 0.3, 9: 0.26, 10: 0.28, 11: 0.3,
    12: 0.32, 13: 0.2,
}  # fmt: skip
"""How far the border wanders, as a deviation of the threshold on the smoothed organ."""

MISSED = {7: 0.07, 8: 0.07, 9: 0.06, 10: 0.03}
"""How often an organ is missed altogether."""

CUT_SHORT = {12: 0.25, 10: 0.15, 4: 0.08, 6: 0.08}
"""How often one end of an organ is missed."""


def partial_labels(labels: Labels, organs: Labels, group: int) -> Labels:
    """What a human drew in a case of this group (θ_p of the paper).

    Where tumours are annotated, they are drawn over their organ; where they are not, a tumour's
    voxels inside an organ carry the organ's id and those outside any organ are background.

    Args:
        labels: Complete truth, uint8 (z, y, x), ids 0..14.
        organs: The same without tumours, ids 0..13.
        group: 1..7 of Table 1.

    Returns:
        uint8 (z, y, x) that holds only ids the group annotates.

    Raises:
        ValueError: If there is no such group.
    """
    if group not in GROUPS:
        message = f"group {group} is none of Table 1's 1..7"
        raise ValueError(message)
    annotated = GROUPS[group]
    ids = [label if label in annotated else 0 for label in range(TUMOR + 1)]
    kept = np.asarray(ids, dtype=np.uint8)
    return kept[labels if TUMOR in annotated else organs]


@dataclass(frozen=True)
class _Guess:
    """Where a model thinks one organ is: positive inside, in coarse pixels."""

    label: int
    start: tuple[int, int, int]
    score: Float


def organ_pseudo_labels(
    organs: Labels, spacing: Triple, random: np.random.Generator, factor: int = 1
) -> Labels:
    """Organ pseudo-labels (θ_o) as a good but fallible model gives them.

    Borders are smoothed and wander smoothly (leaks and erosions of a few millimetres), small organs
    are now and then missed or cut short, and small false islands appear.

    Args:
        organs: Truth without tumours, uint8 (z, y, x), ids 0..13.
        spacing: Millimetres along z, y, x.
        random: The case's own generator.
        factor: In-plane coarsening of the work; must divide both in-plane sizes.

    Returns:
        uint8 (z, y, x), ids 0..13, a new array.
    """
    guesses = []
    boxes = _boxes(organs, factor)
    for label in BLUR_MM:
        # drawn whether or not the organ is there: one organ's fate does not change another's
        own = np.random.default_rng(random.integers(2**63))
        if label in boxes and own.random() >= MISSED.get(label, 0.0):
            guesses.append(_guess(organs, boxes[label], label, (spacing, factor), own))
    result = np.zeros_like(organs)
    for plane in range(len(organs)):
        _decide(result[plane], guesses, plane, factor)
    _islands(result, boxes, (spacing, factor), random)
    return result


def _boxes(organs: Labels, factor: int) -> dict[int, tuple[slice, slice, slice]]:
    """The box of every organ in coarse pixels, z in slices."""
    seen = organs[:, ::factor, ::factor]
    boxes = {}
    for label in BLUR_MM:
        where = seen == label
        ranges = [
            np.flatnonzero(where.any(axis=tuple(a for a in range(3) if a != axis)))
            for axis in range(3)
        ]
        if all(len(hits) for hits in ranges):
            boxes[label] = tuple(slice(int(hits[0]), int(hits[-1]) + 1) for hits in ranges)
    return {label: (box[0], box[1], box[2]) for label, box in boxes.items()}


def _guess(
    organs: Labels,
    box: tuple[slice, slice, slice],
    label: int,
    grid: tuple[Triple, int],
    random: np.random.Generator,
) -> _Guess:
    spacing, factor = grid
    steps = (spacing[0], spacing[1] * factor, spacing[2] * factor)
    blur = BLUR_MM[label]
    # a network works on a grid of its own: no border is sharper than about two thirds of a step
    blurs = [max(blur / step, 0.66 if axis else 0.5) for axis, step in enumerate(steps)]
    limits = (organs.shape[0], organs.shape[1] // factor, organs.shape[2] // factor)
    wide = []
    for part, wide_blur, limit in zip(box, blurs, limits, strict=True):
        margin = int(np.ceil(2.2 * wide_blur)) + 1
        wide.append(slice(max(part.start - margin, 0), min(part.stop + margin, limit)))
    z, y, x = wide
    mask = (
        organs[z, y.start * factor : y.stop * factor, x.start * factor : x.stop * factor] == label
    )
    shape = (mask.shape[0], y.stop - y.start, x.stop - x.start)
    share = mask.reshape(shape[0], shape[1], factor, shape[2], factor).mean(
        axis=(2, 4), dtype=np.float32
    )
    soft = gaussian_filter(share, blurs, mode="nearest", truncate=2.5)
    wander = UNCERTAINTY[label] * np.clip(
        smooth_noise(random, shape, steps, 16.0 if blur > 2 else 9.0), -1.4, 1.4
    )
    score = soft - np.float32(0.44) - wander.astype(np.float32)
    # never where the model sees nothing of it
    score = np.minimum(score, soft - np.float32(0.06))
    if random.random() < CUT_SHORT.get(label, 0.0):
        _cut(score, random)
    return _Guess(label, (z.start, y.start, x.start), np.asarray(score, dtype=np.float32))


def _cut(score: Float, random: np.random.Generator) -> None:
    lost = max(int(len(score) * random.uniform(0.15, 0.45)), 1)
    if random.random() < 0.5:
        score[:lost] = -1
    else:
        score[-lost:] = -1


def _decide(plane: Labels, guesses: list[_Guess], index: int, factor: int) -> None:
    """The highest positive score wins each voxel of one slice."""
    best = np.zeros(plane.shape, dtype=np.float32)
    for guess in guesses:
        own = index - guess.start[0]
        if not 0 <= own < len(guess.score):
            continue
        score = enlarge(guess.score[own : own + 1], factor)[0]
        y, x = guess.start[1] * factor, guess.start[2] * factor
        window = (slice(y, y + score.shape[0]), slice(x, x + score.shape[1]))
        wins = score > best[window]
        plane[window][wins] = guess.label
        best[window][wins] = score[wins]


def _islands(
    result: Labels,
    boxes: dict[int, tuple[slice, slice, slice]],
    grid: tuple[Triple, int],
    random: np.random.Generator,
) -> None:
    """Small false finds beside organs."""
    spacing, factor = grid
    for _ in range(int(random.poisson(2.0))):
        if not boxes:
            return
        label = int(random.choice(list(boxes)))
        box = boxes[label]
        radius = random.uniform(3, 8)
        center = [
            (part.start + random.uniform(-0.2, 1.2) * (part.stop - part.start))
            * (factor if axis else 1)
            for axis, part in enumerate(box)
        ]
        _add_ball(result, label, (center[0], center[1], center[2]), radius, spacing)


def _add_ball(
    result: Labels, label: int, center: Triple, radius_mm: float, spacing: Triple
) -> None:
    """Label what is background within a ball around a voxel position (z, y, x)."""
    window, squares = [], []
    for place, step, size in zip(center, spacing, result.shape, strict=True):
        reach = radius_mm / step
        low = int(max(place - reach, 0))
        high = max(int(min(place + reach + 1, size)), low)
        window.append(slice(low, high))
        squares.append(((np.arange(low, high) - place) * step) ** 2)
    ball = squares[0][:, None, None] + squares[1][:, None] + squares[2] < radius_mm**2
    view = result[tuple(window)]
    view[ball & (view == 0)] = label
