"""Slices that matter through a scan, drawn with the labels on them: what all pictures share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd.components import find_components
from flarekd.imaging.volume import LabelMap, Volume
from flarekd.labels import LABELS, TUMOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW_HU = (-160.0, 240.0)
"""The abdomen window: width 400, level 40."""

PANEL_INCH = 3.6

MOST_EDGES = 30_000
"""Sides of voxels between classes that are outlined in a slice: about half a kilobyte each while it
is drawn. Organs have some 5,000 in a slice of 512×512; a slice of more is drawn coarser."""

SIDES = {0: "RLAP", 1: "RLHF", 2: "APHF"}
"""What lies on the viewer's left and right, above and below, by the axis a view looks along."""

Array = NDArray[Any]
Point = tuple[int, int, int]
Boxes = Mapping[int, tuple[slice, slice, slice]]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """One slice through the volume.

    Attributes:
        name: For the panel's title.
        axis: The canonical axis (0 z, 1 y, 2 x) it is perpendicular to.
        index: Its slice.
        across_mm: Width of the picture.
        up_mm: Height of the picture.
    """

    name: str
    axis: int
    index: int
    across_mm: float
    up_mm: float

    @property
    def proportion(self) -> float:
        """Width over height of the panel; very flat and very tall scans are letterboxed."""
        return min(max(self.across_mm / self.up_mm, 0.55), 2.2)

    def cut(self, array: Array) -> Array:
        """The slice with its top row first: anterior up where it is axial, else the head up.

        Columns run to the patient's left (the patient's right is on the viewer's left), and to
        the back in a sagittal one.
        """
        plane: Array = np.take(array, self.index, axis=self.axis)
        return plane if self.axis == 0 else plane[::-1]


def check_fit(volume: Volume, labels: LabelMap) -> None:
    """Refuse to draw labels on a scan of another shape.

    Raises:
        ValueError: If the arrays have different shapes.
    """
    if volume.array.shape != labels.array.shape:
        message = f"the scan is {volume.array.shape}, its labels {labels.array.shape} (z, y, x)"
        raise ValueError(message)


def boxes_of(labels: Array) -> Boxes:
    """Where each class lies in a label map (z, y, x), by id; those that it does not hold left out.

    >>> boxes_of(np.array([[[0, 2]]], np.uint8))
    {2: (slice(0, 1, None), slice(0, 1, None), slice(1, 2, None))}
    """
    boxes = ndimage.find_objects(labels)
    return {label: box for label, box in enumerate(boxes, start=1) if box is not None}


def views(point: Point, shape: tuple[int, ...], spacing_zyx: tuple[float, ...]) -> list[View]:
    """The axial, coronal and sagittal slices through a voxel."""
    size_z, size_y, size_x = (n * step for n, step in zip(shape, spacing_zyx, strict=True))
    z, y, x = point
    return [
        View("axial", 0, z, size_x, size_y),
        View("coronal", 1, y, size_x, size_z),
        View("sagittal", 2, x, size_y, size_z),
    ]


def focus(
    labels: Array, boxes: Boxes | None = None, tumor: int | None = TUMOR, *, part: int = 1
) -> Point:
    """The voxel to cut through: in the largest tumour, else where most organs are to be seen.

    Args:
        labels: uint8 (z, y, x).
        boxes: As ``boxes_of`` gives them; found here where they are left out.
        tumor: The id of the tumour, or of another class to cut through; None where there is none.
        part: Which of its connected parts, 1 for the largest.

    Returns:
        Indices z, y, x; the middle where there is no label at all.
    """
    boxes = boxes_of(labels) if boxes is None else boxes
    if tumor is not None and tumor in boxes:
        parts = find_components(labels, tumor, boxes[tumor])
        chosen = parts[min(part, len(parts)) - 1]
        mask = chosen.mask()
        # the widest slice along each axis: the middle of a crooked lesion may lie outside it
        z, y, x = (
            int(np.argmax(np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis})))) + side.start
            for axis, side in enumerate(chosen.box)
        )
        return z, y, x
    if not boxes:
        z, y, x = (n // 2 for n in labels.shape)
        return z, y, x
    z, y, x = (int(np.argmax(richness(labels, boxes, axis))) for axis in range(3))
    return z, y, x


def richness(labels: Array, boxes: Boxes, axis: int) -> NDArray[np.float64]:
    """How much each slice along an axis shows: its number of classes, then its labelled area."""
    others = tuple({0, 1, 2} - {axis})
    classes: NDArray[np.float64] = np.zeros(labels.shape[axis])
    area: NDArray[np.float64] = np.zeros_like(classes)
    for label, box in boxes.items():
        count = np.count_nonzero(labels[box] == label, axis=others)
        classes[box[axis]] += count > 0
        area[box[axis]] += count
    classes += area / (area.max() + 1)
    return classes


def draw_panel(
    axes: Axes,
    view: View,
    image: Volume | None,
    labels: Array,
    *,
    colors: Mapping[int, Color],
    organ_fill: float = 0.0,
    tumor: int | None = TUMOR,
) -> None:
    """Draw the grey slice and the outlines of every class on it, in millimetres.

    Args:
        axes: Where to draw.
        view: Which slice.
        image: The CT in HU, in the abdomen window; None draws the labels on black.
        labels: uint8 (z, y, x).
        colors: Id to RGB, 0..1, of the classes to draw.
        organ_fill: How opaque the inside of the organs is, 0..1; that of the tumour is 0.35.
        tumor: The id of the tumour, drawn bolder.
    """
    plane = view.cut(labels)
    extent = (0.0, view.across_mm, view.up_mm, 0.0)
    grey = np.full(plane.shape, WINDOW_HU[0]) if image is None else view.cut(image.array)
    axes.imshow(
        grey,
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        extent=extent,
        interpolation="bilinear",
    )
    plane = _drawable(plane)
    for label, color in colors.items():
        found = _outlined(plane == label, view)
        if found is None:
            continue
        fill = 0.35 if label == tumor else organ_fill
        if fill:
            axes.contourf(*found, levels=[0.5, 1.5], colors=[color], alpha=fill)
        width = 1.4 if label == tumor else 1.0
        axes.contour(*found, levels=[0.5], colors=[color], linewidths=width)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    axes.set_axis_off()


def _drawable(plane: Array) -> Array:
    """The labels of a slice, or every few of them where they are scattered all over it."""
    edges = sum(np.count_nonzero(np.diff(plane, axis=axis)) for axis in (0, 1))
    step = math.ceil(math.sqrt(edges / MOST_EDGES))
    return plane[::step, ::step] if step > 1 else plane


def _outlined(mask: NDArray[np.bool_], view: View) -> tuple[Array, Array, Array] | None:
    """Where a class lies in a slice: columns and rows in mm, float32 (rows, columns) of 0 and 1.

    Only its box: what is drawn holds several numbers for each voxel that it is given. None where
    the class is not there.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    first_row, first_column = rows[0], columns[0]
    # one voxel beyond on each side, so that an outline closes at the border
    box = np.pad(mask[first_row : rows[-1] + 1, first_column : columns[-1] + 1], 1)
    down, across = (
        # the middles of voxels
        (np.arange(first - 1, first - 1 + size) + 0.5) * length_mm / count
        for first, size, length_mm, count in zip(
            (first_row, first_column),
            box.shape,
            (view.up_mm, view.across_mm),
            mask.shape,
            strict=True,
        )
    )
    return across, down, box.astype(np.float32)


def caption(axes: Axes, text: str, view: View) -> None:
    """Write a panel's title into its corner, and R/L, A/P, H/F at its sides."""
    style: dict[str, Any] = {"transform": axes.transAxes, "color": "white"}
    style["bbox"] = {"facecolor": "black", "alpha": 0.5, "pad": 1.5, "linewidth": 0}
    axes.text(0.015, 0.985, text, fontsize=9, va="top", ha="left", **style)
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
    )
    for side, (x, y, ha, va) in zip(SIDES[view.axis], places, strict=True):
        axes.text(x, y, side, fontsize=8, ha=ha, va=va, alpha=0.8, **style)


def unit_color(rgb: tuple[int, int, int]) -> Color:
    """RGB of 0..255 as matplotlib takes it, 0..1."""
    red, green, blue = (channel / 255 for channel in rgb)
    return red, green, blue


COLORS = {label.id: unit_color(label.color) for label in LABELS}
"""Of our own classes, by id."""
