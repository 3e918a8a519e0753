"""One picture a scan: what was found in it, on the three slices through the middle of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flarekd.imaging.volume import LabelMap, Volume
from flarekd.labels import color_of, readable, tumor_of
from flarekd.report.canvas import new_figure, save_png
from flarekd.report.slices import (
    PANEL_INCH,
    Boxes,
    View,
    boxes_of,
    caption,
    check_fit,
    draw_panel,
    focus,
    unit_color,
    views,
)
from flarekd.volumetry import Statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND_INCH = 2.3
MOST_LEGEND_ROWS = 18
ORGAN_FILL = 0.22
LETTERS_AN_INCH = 10
FLATTEST = 8.0
"""A view more than so many times as wide as high, or as high as wide, shows nothing."""


def write_preview(
    path: Path,
    volume: Volume,
    labels: LabelMap,
    names: Mapping[int, str],
    statistics: Statistics | None = None,
) -> None:
    """Draw a scan and what was found in it to a PNG: axial, coronal and sagittal, with volumes.

    The slices go through the largest tumour, or where most organs are to be seen, or through the
    middle where nothing was found. The patient's right is on the viewer's left.

    Args:
        path: ``<case>.png`` or ``<case>.preview.png``; the case stands in the title.
        volume: The CT in HU, shown in the abdomen window.
        labels: What was found, of the same shape.
        names: Id to name of the classes to show.
        statistics: What was measured of the case, where it was: volumes are taken from it, those
            that the scan cuts off are marked with ≥, and tumours are said with their diameter.
            Without it volumes are counted here.

    Raises:
        ValueError: If the arrays have different shapes.
        OSError: If the file cannot be written.
    """
    check_fit(volume, labels)
    boxes = {label: box for label, box in boxes_of(labels.array).items() if label in names}
    tumor = tumor_of(names)
    point = focus(labels.array, boxes, tumor)
    panels = _worth_seeing(views(point, labels.array.shape, labels.geometry.spacing_zyx))
    colors = {label: unit_color(color_of(label, name)) for label, name in sorted(names.items())}
    columns = max(1, math.ceil(len(boxes) / MOST_LEGEND_ROWS))
    widths = [PANEL_INCH * view.proportion for view in panels]
    total = sum(widths) + LEGEND_INCH * columns
    figure = new_figure(total, PANEL_INCH + 0.4, "black")
    grid = figure.add_gridspec(
        1,
        len(panels),
        width_ratios=widths,
        left=0.005,
        right=sum(widths) / total,
        bottom=0.01,
        top=PANEL_INCH / (PANEL_INCH + 0.4),
        wspace=0.015,
    )
    for column, view in enumerate(panels):
        axes = figure.add_subplot(grid[0, column])
        draw_panel(
            axes,
            view,
            volume,
            labels.array,
            colors=colors,
            organ_fill=ORGAN_FILL,
            tumor=tumor,
        )
        caption(axes, _place(view, labels.array.shape), view)
    _legend(figure, _texts(labels, boxes, names, statistics), colors, sum(widths) / total, columns)
    title = _title(path, int(total * LETTERS_AN_INCH))
    figure.text(0.008, 0.985, title, color="white", fontsize=12, va="top", parse_math=False)
    save_png(figure, path)


def _worth_seeing(panels: list[View]) -> list[View]:
    """Without those that are mere lines: of a single slice that is all but the slice itself."""
    seen = [view for view in panels if 1 / FLATTEST <= view.across_mm / view.up_mm <= FLATTEST]
    return seen or panels


def _title(path: Path, most: int) -> str:
    case = " ".join(path.stem.removesuffix(".preview").split())
    return case if len(case) <= most else f"{case[: most - 1]}…"


def _place(view: View, shape: tuple[int, ...]) -> str:
    """The slice as viewers count them: from 1, from the feet, the front or the right."""
    return f"{view.name} {view.index + 1}/{shape[view.axis]}"


def _texts(
    labels: LabelMap, boxes: Boxes, names: Mapping[int, str], statistics: Statistics | None
) -> dict[int, str]:
    """The legend's line of each class that is there, by id."""
    texts = {}
    measured = {entry.label: entry for entry in statistics.classes} if statistics else {}
    voxel_ml = float(np.prod(labels.geometry.spacing_xyz)) / 1000
    for label, box in boxes.items():
        entry = measured.get(label)
        ml = entry.volume_ml if entry else voxel_ml * np.count_nonzero(labels.array[box] == label)
        least = "≥ " if entry and entry.cut_off else ""
        texts[label] = f"{readable(names[label])}  {least}{_ml(ml)}"
        if statistics and statistics.tumors and label == tumor_of(names):
            longest = max(tumor.diameter_mm for tumor in statistics.tumors)
            count = statistics.parts
            parts = "1 part" if count == 1 else f"{count} parts"
            texts[label] += f"\n{parts}, longest {longest:.0f} mm"
    return texts


def _ml(volume_ml: float) -> str:
    """Three digits are all that a segmentation can claim.

    >>> [_ml(volume) for volume in (1480.3, 37.26, 4.204, 0.0312)]
    ['1,480 ml', '37 ml', '4.2 ml', '0.03 ml']
    """
    digits = 0 if volume_ml >= 10 else 1 if volume_ml >= 1 else 2
    return f"{volume_ml:,.{digits}f} ml"


def _legend(
    figure: Figure,
    texts: Mapping[int, str],
    colors: Mapping[int, Any],
    left: float,
    columns: int,
) -> None:
    from matplotlib.patches import Patch

    if not texts:
        figure.text(left + 0.01, 0.5, "nothing found", color="white", fontsize=10, va="center")
        return
    legend = figure.legend(
        handles=[Patch(color=colors[label], label=text) for label, text in texts.items()],
        loc="center left",
        bbox_to_anchor=(left, 0.48),
        ncols=columns,
        frameon=False,
        labelcolor="white",
        fontsize=9,
        handlelength=1.0,
        handleheight=1.0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
