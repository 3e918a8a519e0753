"""Charts as numbers for SVG: where boxes, lines and ticks lie (pure).

A page draws them in its own colours (``templates/charts.html``), so they follow dark mode and
print sharply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 400.0, 170.0
"""The inside of a line chart, in its own units."""

MOST_POINTS = 300
"""A line with more is thinned: nobody sees more on a page."""

WHISKER = 1.5
"""Whiskers reach to the farthest value within so many box lengths, as Tukey's do."""

Interval = tuple[float, float]
Numbers = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """What a box plot shows of some values.

    Attributes:
        low: End of the lower whisker.
        q1: Lower quartile.
        median: Middle.
        q3: Upper quartile.
        high: End of the upper whisker.
        outliers: Indices of the values beyond the whiskers.
    """

    low: float
    q1: float
    median: float
    q3: float
    high: float
    outliers: tuple[int, ...]


@dataclass(frozen=True)
class Curve:
    """One line to draw.

    Attributes:
        x: Rising.
        y: One an x, finite.
        style: Class of its line: ``bold``, ``faint`` or ``limit``.
    """

    x: Numbers
    y: Numbers
    style: str = "bold"


@dataclass(frozen=True)
class Line:
    """A line in chart units, as SVG writes points."""

    points: str
    style: str


@dataclass(frozen=True)
class Chart:
    """A line chart, in units of ``WIDTH`` and ``HEIGHT``, y downward.

    Attributes:
        title: What it shows.
        x_name: What runs to the right.
        lines: Drawn in this order.
        x_ticks: Place and text.
        y_ticks: Place and text.
    """

    title: str
    x_name: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def box(values: Sequence[float]) -> Box | None:
    """Quartiles, whiskers and outliers; None of no values.

    >>> box([1, 2, 3, 4, 20])
    Box(low=1.0, q1=2.0, median=3.0, q3=4.0, high=4.0, outliers=(4,))
    """
    if not len(values):
        return None
    array = np.asarray(values, np.float64)
    q1, median, q3 = (float(q) for q in np.quantile(array, [0.25, 0.5, 0.75]))
    reach = WHISKER * (q3 - q1)
    inside = (array >= q1 - reach) & (array <= q3 + reach)
    kept = array[inside]
    outliers = tuple(np.flatnonzero(~inside).tolist())
    # a quartile between two values may lie beyond all that is kept: then there is no whisker
    low, high = min(float(kept.min()), q1), max(float(kept.max()), q3)
    return Box(low, q1, median, q3, high, outliers)


def line_chart(
    title: str, x_name: str, curves: Sequence[Curve], y_range: Interval | None = None
) -> Chart:
    """Lay out lines in one chart.

    Args:
        title: What it shows.
        x_name: What runs to the right.
        curves: At least one with a point.
        y_range: Lowest and highest y; what lies beyond is drawn at the border. Where it is left
            out, all of the curves.
    """
    across = _range([x for curve in curves for x in curve.x])
    up = y_range or _range([y for curve in curves for y in curve.y])
    lines = []
    for curve in curves:
        places = (
            f"{_place(x, across, WIDTH):.1f},{HEIGHT - _place(y, up, HEIGHT):.1f}"
            for x, y in thinned(curve.x, curve.y)
        )
        lines.append(Line(" ".join(places), curve.style))
    return Chart(
        title,
        x_name,
        tuple(lines),
        tuple((round(_place(x, across, WIDTH), 1), text) for x, text in ticks(*across)),
        tuple((round(HEIGHT - _place(y, up, HEIGHT), 1), text) for y, text in ticks(*up)),
    )


def ticks(low: float, high: float, about: int = 5) -> list[tuple[float, str]]:
    """Round numbers from `low` to `high` and how they are written.

    >>> ticks(0, 1480)
    [(0.0, '0'), (500.0, '500'), (1000.0, '1,000')]
    >>> ticks(-0.1, 0.1, 4)
    [(-0.1, '-0.10'), (-0.05, '-0.05'), (0.0, '0.00'), (0.05, '0.05'), (0.1, '0.10')]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # adding 0.0 makes a plain 0 of -0
    values = [round(index * step, digits + 2) + 0.0 for index in range(first, last + 1)]
    return [(value, f"{value:,.{digits}f}") for value in values]


def thinned(x: Numbers, y: Numbers, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """The points of a line, at most about `most`: of each stretch its lowest and its highest.

    Peaks stay, which a mean or every n-th point would lose; so do the first and the last point.
    """
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    if len(points) <= most:
        return points
    kept = {0, len(points) - 1}
    for stretch in np.array_split(np.arange(len(points)), most // 2):
        heights = [points[index][1] for index in stretch]
        kept |= {int(stretch[np.argmin(heights)]), int(stretch[np.argmax(heights)])}
    return [points[index] for index in sorted(kept)]


def _range(values: Sequence[float]) -> Interval:
    """From the least to the greatest value; a little about one that stands alone."""
    low, high = float(min(values)), float(max(values))
    if low < high:
        return low, high
    margin = abs(low) / 2 or 0.5
    return low - margin, high + margin


def _place(value: float, interval: Interval, length: float) -> float:
    low, high = interval
    return (min(max(value, low), high) - low) / (high - low) * length
