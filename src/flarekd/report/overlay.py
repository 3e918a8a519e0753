"""One picture a case: what was drawn above, what was predicted below, on the slices that matter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd.imaging.volume import LabelMap, Volume
from flarekd.labels import LABELS, ORGANS, TUMOR, Label
from flarekd.metrics import dice
from flarekd.report.canvas import new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW_HU = (-160.0, 240.0)
"""The abdomen window: width 400, level 40."""

PANEL_INCH = 3.6
SECOND_AXIAL_MM = 40.0
"""The second axial slice lies at least this far from the first: near ones show the same organs."""

Array = NDArray[Any]
Point = tuple[int, int, int]


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


def overlay(
    image: Volume | None,
    prediction: LabelMap,
    reference: LabelMap | None,
    path: Path,
    dsc: Mapping[int, float] | None = None,
) -> None:
    """Draw one case to a PNG: reference above, prediction below, axial, coronal and sagittal.

    The slices go through the largest tumour of the reference, or where most organs are to be seen;
    a second axial one shows the most organs elsewhere. Organs are outlines, the tumour is filled
    too. The patient's right is on the viewer's left.

    Args:
        image: The CT in HU, shown in the abdomen window; None draws the labels on black.
        prediction: What a model found.
        reference: What it is held against; None draws one row, without scores.
        path: The PNG; its stem is the case's name in the title.
        dsc: DSC by class id for the title, as the caller's protocol scores them; measured plainly
            where it is None.

    Raises:
        ValueError: If the arrays have different shapes.
        OSError: If the file cannot be written.
    """
    rows = {"prediction": prediction.array}
    if reference is not None:
        rows = {"reference": reference.array, **rows}
        dsc = plain_dsc(prediction.array, reference.array) if dsc is None else dsc
    shapes = {row.shape for row in rows.values()} | ({image.array.shape} if image else set())
    if len(shapes) > 1:
        message = f"image and label maps have different shapes: {sorted(shapes)}"
        raise ValueError(message)
    chosen = _views(next(iter(rows.values())), (reference or prediction).geometry.spacing_zyx)
    widths = [view.proportion for view in chosen]
    height_inch = PANEL_INCH * len(rows) + 1.0
    figure = new_figure(PANEL_INCH * sum(widths), height_inch, "black")
    grid = figure.add_gridspec(
        len(rows),
        len(chosen),
        width_ratios=widths,
        left=0.005,
        right=0.995,
        bottom=0.55 / height_inch,
        top=1 - 0.45 / height_inch,
        wspace=0.015,
        hspace=0.02,
    )
    for row, (name, labels) in enumerate(rows.items()):
        for column, view in enumerate(chosen):
            axes = figure.add_subplot(grid[row, column])
            _draw_panel(axes, view, image, labels)
            caption = f"{name} · {view.name}" if column == 0 else view.name
            _caption(axes, caption, view)
    _title_and_legend(figure, path.stem, dsc, list(rows.values()))
    save_png(figure, path)


def plain_dsc(prediction: Array, reference: Array) -> dict[int, float]:
    """DSC of each class that either array (z, y, x) holds, by class id."""
    return {
        label: dice(prediction == label, reference == label)
        for label in sorted(_present(prediction) | _present(reference))
    }


def _present(labels: Array) -> set[int]:
    """The classes 1..14 that an array holds."""
    boxes = ndimage.find_objects(labels, max_label=TUMOR)
    return {label for label, box in enumerate(boxes, start=1) if box is not None}


def _views(labels: Array, spacing_zyx: tuple[float, float, float]) -> list[View]:
    """The slices to show: through the focus, and a second axial one."""
    size_z, size_y, size_x = (
        n * spacing for n, spacing in zip(labels.shape, spacing_zyx, strict=True)
    )
    z, y, x = focus(labels)
    richness = _richness(labels, 0)
    far = np.abs(np.arange(labels.shape[0]) - z) * spacing_zyx[0] >= SECOND_AXIAL_MM
    views = [View("axial", 0, z, size_x, size_y)]
    if (richness * far).any():
        views.append(View("axial", 0, int(np.argmax(richness * far)), size_x, size_y))
    views.append(View("coronal", 1, y, size_x, size_z))
    views.append(View("sagittal", 2, x, size_y, size_z))
    return views


def focus(labels: Array) -> Point:
    """The voxel to cut through: in the largest tumour, else where most organs are to be seen.

    Args:
        labels: uint8 (z, y, x).

    Returns:
        Indices z, y, x; the middle where there is no label at all.
    """
    box = ndimage.find_objects(labels, max_label=TUMOR)[TUMOR - 1]
    if box is not None:
        parts, count = ndimage.label(labels[box] == TUMOR)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        mask = parts == int(np.argmax(sizes)) + 1
        # the widest slice along each axis: the middle of a crooked lesion may lie outside it
        z, y, x = (
            int(np.argmax(mask.sum(axis=tuple({0, 1, 2} - {axis})))) + box[axis].start
            for axis in range(3)
        )
        return z, y, x
    if not labels.any():
        z, y, x = (n // 2 for n in labels.shape)
        return z, y, x
    z, y, x = (int(np.argmax(_richness(labels, axis))) for axis in range(3))
    return z, y, x


def _richness(labels: Array, axis: int) -> NDArray[np.float64]:
    """How much each slice along an axis shows: its number of classes, then its labelled area."""
    others = tuple({0, 1, 2} - {axis})
    classes: NDArray[np.float64] = np.zeros(labels.shape[axis])
    for label, box in enumerate(ndimage.find_objects(labels, max_label=TUMOR), start=1):
        if box is not None:
            classes[box[axis]] += (labels[box] == label).any(axis=others)
    area = np.asarray(np.count_nonzero(labels, axis=others), np.float64)
    classes += area / (area.max() + 1)
    return classes


def _draw_panel(axes: Axes, view: View, image: Volume | None, labels: Array) -> None:
    """The grey slice, with the outlines of every class on it, in millimetres."""
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
    rows, columns = plane.shape
    # the middles of voxels, and one beyond on each side, so that an outline closes at the border
    across = (np.arange(-1, columns + 1) + 0.5) * view.across_mm / columns
    down = (np.arange(-1, rows + 1) + 0.5) * view.up_mm / rows
    padded = np.pad(plane, 1)
    for label in LABELS:
        mask = (padded == label.id).astype(np.float32)
        if not mask.any():
            continue
        fill = 0.35 if label.id == TUMOR else (0.25 if image is None else 0.0)
        if fill:
            axes.contourf(across, down, mask, levels=[0.5, 1.5], colors=[_rgb(label)], alpha=fill)
        width = 1.4 if label.id == TUMOR else 1.0
        axes.contour(across, down, mask, levels=[0.5], colors=[_rgb(label)], linewidths=width)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    axes.set_axis_off()


def _caption(axes: Axes, text: str, view: View) -> None:
    style: dict[str, Any] = {"transform": axes.transAxes, "color": "white"}
    style["bbox"] = {"facecolor": "black", "alpha": 0.5, "pad": 1.5, "linewidth": 0}
    axes.text(0.015, 0.985, text, fontsize=9, va="top", ha="left", **style)
    # what lies on the viewer's left: the patient's right, or the front
    side = "A" if view.axis == 2 else "R"
    axes.text(0.015, 0.5, side, fontsize=8, va="center", ha="left", alpha=0.7, **style)


def _title_and_legend(
    figure: Figure, case: str, dsc: Mapping[int, float] | None, rows: list[Array]
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    title = " · ".join([case, *_score_texts(dsc)])
    figure.suptitle(title, color="white", fontsize=12, y=0.995, va="top")
    present = set[int]().union(*map(_present, rows))
    handles: list[Any] = [
        Patch(color=_rgb(label), label=readable(label.name))
        if label.id == TUMOR
        else Line2D([], [], color=_rgb(label), linewidth=2.5, label=readable(label.name))
        for label in LABELS
        if label.id in present
    ]
    if handles:
        columns = math.ceil(len(handles) / 2)
        legend = {"ncols": columns, "frameon": False, "labelcolor": "white", "fontsize": 9}
        figure.legend(handles=handles, loc="lower center", handlelength=1.4, **legend)


def _score_texts(dsc: Mapping[int, float] | None) -> Iterator[str]:
    if dsc is None:
        return
    organs = [dsc[label] for label in ORGANS if not math.isnan(dsc.get(label, math.nan))]
    if organs:
        yield f"organs DSC {100 * sum(organs) / len(organs):.1f}"
    if not math.isnan(dsc.get(TUMOR, math.nan)):
        yield f"tumour DSC {100 * dsc[TUMOR]:.1f}"


def readable(name: str) -> str:
    """A class name as people write it."""
    return {"ivc": "IVC", "tumor": "tumour"}.get(name, name.replace("_", " "))


def _rgb(label: Label) -> tuple[float, float, float]:
    red, green, blue = (channel / 255 for channel in label.color)
    return red, green, blue
