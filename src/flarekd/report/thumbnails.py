"""Small pictures of a case for a page of many: axial, coronal and sagittal, side by side."""

from __future__ import annotations

from pathlib import Path

from flarekd.imaging.volume import LabelMap, Volume
from flarekd.labels import TUMOR
from flarekd.report.canvas import new_figure, save_webp
from flarekd.report.slices import (
    COLORS,
    Point,
    boxes_of,
    caption,
    check_fit,
    draw_panel,
    focus,
    views,
)

HEIGHT_INCH, GAP_INCH, DOTS_PER_INCH = 2.4, 0.03, 100


def write_thumbnails(
    path: Path, volume: Volume, labels: LabelMap, label: int | None = None, part: int = 1
) -> None:
    """Draw the three slices through one class to a WebP of 240 pixels in height.

    Args:
        path: The file.
        volume: The CT in HU, shown in the abdomen window.
        labels: Of the same shape, drawn as outlines.
        label: The class to cut through; through the largest tumour, or where most organs are to be
            seen, where it is None or not there.
        part: Which of its connected parts, 1 for the largest.

    Raises:
        ValueError: If the arrays have different shapes.
        OSError: If the file cannot be written.
    """
    check_fit(volume, labels)
    shown = views(_point(labels, label, part), labels.array.shape, labels.geometry.spacing_zyx)
    widths = [HEIGHT_INCH * view.proportion for view in shown]
    total = sum(widths) + GAP_INCH * (len(shown) - 1)
    figure = new_figure(total, HEIGHT_INCH, "black")
    left = 0.0
    for view, width in zip(shown, widths, strict=True):
        axes = figure.add_axes((left / total, 0.0, width / total, 1.0))
        draw_panel(axes, view, volume, labels.array, colors=COLORS)
        caption(axes, f"{view.name} {view.index + 1}", view)
        left += width + GAP_INCH
    save_webp(figure, path, DOTS_PER_INCH)


def _point(labels: LabelMap, label: int | None, part: int) -> Point:
    boxes = {id_: box for id_, box in boxes_of(labels.array).items() if id_ in COLORS}
    if label is None or label not in boxes:
        label, part = TUMOR, 1
    return focus(labels.array, boxes, label, part=part)
