"""Draw docs/pictures/augmentation.png: each transform on a phantom slice, typical and extreme.

::

    python -m benchmarks.augmentation_pictures
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from flarekd.imaging.intensity import FLARE22_STATISTICS
from flarekd.imaging.resampling import resample, resample_labels, target_shape
from flarekd.phantom.case import make_case
from flarekd.phantom.plan import plan_cohort
from flarekd.training.augment import Draw, apply

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "augmentation.png"
WINDOW_HU = (-160.0, 240.0)
SPACING_MM = (4.0, 1.2, 1.2)
REGION = (slice(80, 81), slice(40, 300), slice(5, 334))
PATCH = (1, 200, 272)
INCH = 2.25
DPI = 90
OUTLINE = "#ff7f0e"

ROWS: tuple[tuple[str, Draw, Draw], ...] = (
    (
        "elastic α 100, 200",
        Draw(elastic=(100.0, 11.0, 3)),
        Draw(elastic=(200.0, 9.0, 3)),
    ),
    ("rotation 20°, 120°", Draw(rotation=20.0), Draw(rotation=120.0)),
    ("scale 0.85, 1.4", Draw(scale=0.85), Draw(scale=1.4)),
    ("noise 0.05, 0.1", Draw(noise=(0.05, 1)), Draw(noise=(0.1, 1))),
    ("blur σ 0.75, 1", Draw(blur=0.75), Draw(blur=1.0)),
    ("brightness ×0.9, ×1.25", Draw(brightness=0.9), Draw(brightness=1.25)),
    ("contrast 0.9, 0.75", Draw(contrast=0.9), Draw(contrast=0.75)),
    ("low resolution 0.75, 0.5", Draw(low_resolution=0.75), Draw(low_resolution=0.5)),
    ("inverted gamma 0.85, 1.5", Draw(gamma_inverted=0.85), Draw(gamma_inverted=1.5)),
    ("gamma 0.85, 1.5", Draw(gamma=0.85), Draw(gamma=1.5)),
    ("tissue 0.25, 0.5", Draw(tissue=(0.25, 3)), Draw(tissue=(0.5, 3))),
)
TOGETHER = (
    Draw(elastic=(60.0, 11.0, 5), rotation=-15.0, gamma=0.85),
    replace(ROWS[0][2], rotation=35.0, scale=1.2, noise=(0.1, 2), contrast=0.75, gamma=1.5),
)


def slice_of_phantom() -> tuple[Tensor, Tensor]:
    """A normalised slice with a liver tumour, float32, and its labels, uint8, (1, y, x)."""
    plan = plan_cohort(16, "full", 0)[7]
    case = make_case(plan).rendering
    shape = target_shape(case.image.shape, plan.grid().spacing, SPACING_MM)
    image = FLARE22_STATISTICS.normalize(resample(case.image, shape))[REGION]
    labels = resample_labels(case.labels, shape)[REGION]
    return torch.from_numpy(image.copy()), torch.from_numpy(labels.copy())


def show(
    axes: Axes, title: str, draw: Draw, sample: tuple[Tensor, Tensor], *, outlines: bool
) -> None:
    """One panel."""
    image, labels = sample
    images, moved = apply(image[None], labels[None], [draw], PATCH)
    low, high = ((hu - FLARE22_STATISTICS.mean) / FLARE22_STATISTICS.sd for hu in WINDOW_HU)
    axes.imshow(images[0, 0], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    for label in np.unique(moved[0, 0])[1:] if outlines else ():
        mask = moved[0, 0].numpy() == label
        axes.contour(mask, [0.5], colors=OUTLINE, linewidths=0.8)
    axes.set_title(title, fontsize=8, pad=2)
    axes.set_axis_off()


def main() -> None:
    """Draw the picture."""
    sample = slice_of_phantom()
    panels = [("the patch", Draw(), False), ("its labels", Draw(), True)]
    panels += [
        (f"together, {word}", draw, True)
        for word, draw in zip(("typical", "extreme"), TOGETHER, strict=True)
    ]
    for title, typical, extreme in ROWS:
        name, first = title.rsplit(", ", 1)[0], title.rsplit(", ", 1)[1]
        words = name.rsplit(" ", 1)[0]
        panels.append((name, typical, typical.is_spatial))
        panels.append((f"{words} {first}", extreme, extreme.is_spatial))
    figure = Figure(figsize=(4 * INCH, 7 * INCH * 0.82), dpi=DPI)
    grid = figure.subplots(7, 4)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (title, draw, outlines) in zip(grid.flat, panels, strict=False):
        show(axes, title, draw, sample, outlines=outlines)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.975, 0.02, 0.1)
    PICTURE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.png"
        figure.savefig(whole)
        with Image.open(whole) as picture:
            few = picture.convert("RGB").quantize(palette=palette(), dither=Image.Dither.NONE)
        few.save(PICTURE, optimize=True)


def palette() -> Image.Image:
    """Few colours make a small file: 32 greys, and 20 on the way from grey to the outlines'."""
    greys = [(round(255 * step / 31),) * 3 for step in range(32)]
    outline = np.array([int(OUTLINE[start : start + 2], 16) for start in (1, 3, 5)])
    mixed = [
        tuple(int(channel) for channel in share * outline + (1 - share) * grey)
        for grey in (0, 80, 150, 220)
        for share in (0.25, 0.45, 0.65, 0.85, 1.0)
    ]
    image = Image.new("P", (1, 1))
    image.putpalette([channel for color in greys + mixed for channel in color])
    return image


if __name__ == "__main__":
    main()
