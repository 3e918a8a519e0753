"""The picture of a training: loss, learning rate, and the pseudo-DSC of the validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flarekd.report.canvas import new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTHING_SHARE = 0.03
"""The smoothed loss remembers about this share of all records."""

LOSS_COLOR, LR_COLOR, DSC_COLOR = "#1f5fa8", "#b06a00", "#2c8a3d"

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a training's log to a PNG.

    Args:
        records: Lines of ``log.jsonl`` in order, each with ``iteration`` and any of ``loss``,
            ``lr`` and ``dsc`` (a number, or one a class as a mapping or list; None and NaN are
            classes nobody saw). Other keys and lines are passed over.
        path: The PNG.

    Raises:
        OSError: If the file cannot be written.
    """
    loss, rate, dsc = (series(records, key) for key in ("loss", "lr", "dsc"))
    figure = new_figure(9.0, 7.0 if len(dsc[0]) else 4.5)
    if len(dsc[0]):
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        _draw_dsc(lower, dsc)
    else:
        upper = lower = figure.subplots()
    _draw_loss(upper, loss)
    if len(rate[0]):
        _draw_rate(upper.twinx(), rate)
    lower.set_xlabel("iteration")
    figure.tight_layout()
    save_png(figure, path)


def series(records: Sequence[Mapping[str, Any]], key: str) -> Series:
    """The iterations and values of one key, where a record has it as a finite number.

    Returns:
        Two float64 arrays of one length; a value that is a mapping or list counts as the mean of
        its finite members.
    """
    points = [
        (float(record["iteration"]), _number(record.get(key)))
        for record in records
        if "iteration" in record
    ]
    known = np.asarray([point for point in points if math.isfinite(point[1])], np.float64)
    known = known.reshape(-1, 2)
    return known[:, 0], known[:, 1]


def smooth(values: NDArray[np.float64], memory: float) -> NDArray[np.float64]:
    """Exponential moving average, unbiased from the first value on.

    Args:
        values: float64 (n,).
        memory: About how many values it remembers, at least 1.
    """
    keep = 1 - 1 / max(memory, 1.0)
    smoothed = np.empty_like(values)
    total = weight = 0.0
    for index, value in enumerate(values):
        total = keep * total + float(value)
        weight = keep * weight + 1.0
        smoothed[index] = total / weight
    return smoothed


def loss_range(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """What of the losses to show; None is all of them, where they are few.

    One wild step must not flatten all the others.
    """
    if len(values) <= 20:
        return None
    low, high = np.percentile(values, [0, 99.5])
    margin = 0.05 * (high - low) + 1e-6
    return float(low - margin), float(high + margin)


def _number(value: Any) -> float:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        numbers = [number for number in map(_number, value) if math.isfinite(number)]
        return math.fsum(numbers) / len(numbers) if numbers else math.nan
    return float(value) if isinstance(value, (int, float)) else math.nan


def _draw_loss(axes: Axes, loss: Series) -> None:
    iterations, values = loss
    axes.plot(iterations, values, color=LOSS_COLOR, alpha=0.25, linewidth=0.8)
    smoothed = smooth(values, SMOOTHING_SHARE * len(values))
    axes.plot(iterations, smoothed, color=LOSS_COLOR, linewidth=1.8)
    shown = loss_range(values)
    if shown:
        axes.set_ylim(shown)
    title = f"loss {smoothed[-1]:.3f} at iteration {iterations[-1]:.0f}" if len(values) else "loss"
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel("loss (bold: smoothed)", color=LOSS_COLOR)
    _tidy(axes)


def _draw_rate(axes: Axes, rate: Series) -> None:
    axes.plot(*rate, color=LR_COLOR, linewidth=1.2, linestyle="--")
    axes.set_ylabel("learning rate", color=LR_COLOR)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.spines[["top"]].set_visible(False)


def _draw_dsc(axes: Axes, dsc: Series) -> None:
    iterations, values = dsc
    axes.plot(iterations, values, color=DSC_COLOR, linewidth=1.8, marker="o", markersize=3)
    best = int(np.argmax(values))
    axes.set_title(
        f"mean pseudo-DSC {values[-1]:.3f}, best {values[best]:.3f}"
        f" at iteration {iterations[best]:.0f}",
        loc="left",
        fontsize=11,
    )
    axes.set_ylabel("mean pseudo-DSC", color=DSC_COLOR)
    axes.set_ylim(0, 1)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
