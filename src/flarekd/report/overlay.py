"""One picture a case: what was drawn above, what was predicted below, on the slices that matter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flarekd.imaging.volume import LabelMap, Volume
from flarekd.labels import LABELS, ORGANS, TUMOR, readable
from flarekd.metrics import dice
from flarekd.report.canvas import new_figure, save_png
from flarekd.report.slices import (
    COLORS,
    PANEL_INCH,
    Array,
    View,
    boxes_of,
    caption,
    draw_panel,
    focus,
    richness,
    views,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECOND_AXIAL_MM = 40.0
"""The second axial slice lies at least this far from the first: near ones show the same organs."""


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
            fill = 0.25 if image is None else 0.0
            draw_panel(axes, view, image, labels, colors=COLORS, organ_fill=fill)
            caption(axes, f"{name} · {view.name}" if column == 0 else view.name, view)
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
    return {label for label in boxes_of(labels) if label <= TUMOR}


def _views(labels: Array, spacing_zyx: tuple[float, float, float]) -> list[View]:
    """The slices to show: through the focus, and a second axial one."""
    boxes = boxes_of(labels)
    point = focus(labels, boxes)
    axial, coronal, sagittal = views(point, labels.shape, spacing_zyx)
    shown = richness(labels, boxes, 0)
    far = np.abs(np.arange(labels.shape[0]) - point[0]) * spacing_zyx[0] >= SECOND_AXIAL_MM
    if (shown * far).any():
        other = int(np.argmax(shown * far))
        second = View("axial", 0, other, axial.across_mm, axial.up_mm)
        return [axial, second, coronal, sagittal]
    return [axial, coronal, sagittal]


def _title_and_legend(
    figure: Figure, case: str, dsc: Mapping[int, float] | None, rows: list[Array]
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    title = " · ".join([case, *_score_texts(dsc)])
    figure.suptitle(title, color="white", fontsize=12, y=0.995, va="top", parse_math=False)
    present = set[int]().union(*map(_present, rows))
    handles: list[Any] = [
        Patch(color=COLORS[label.id], label=readable(label.name))
        if label.id == TUMOR
        else Line2D([], [], color=COLORS[label.id], linewidth=2.5, label=readable(label.name))
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
