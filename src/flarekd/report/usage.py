"""What a bench took: its picture over time, with peaks and areas, and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekd.efficiency import GPU_MB_ALLOWED, SECONDS_ALLOWED, Run, area, spread
from flarekd.report.canvas import new_figure, save_png
from flarekd.report.score_tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Panel:
    """A quantity to draw over time.

    Attributes:
        name: For its title.
        unit: Of its values.
        color: In the PNG.
        attribute: Of a ``Sample``.
        allowed: What FLARE takes nothing off for.
    """

    name: str
    unit: str
    color: str
    attribute: str
    allowed: float | None = None


PANELS = (
    Panel("GPU memory", "MB", "#2c8a3d", "gpu_mb", GPU_MB_ALLOWED),
    Panel("RAM", "MB", "#1f5fa8", "ram_mb"),
    Panel("CPU", "%", "#b06a00", "cpu_percent"),
)

_ROWS = (
    ("time, s", ("seconds",)),
    ("  above 15 s", ("seconds_over",)),
    ("peak RAM, MB", ("ram", "peak_mb")),
    ("RAM area, MB·s", ("ram", "area_mb_s")),
    ("CPU, mean % of one core", ("cpu", "mean_percent")),
    ("peak GPU memory, MB", ("gpu", "peak_mb")),
    ("  above 4096 MB", ("gpu", "peak_over_mb")),
    ("GPU memory area, MB·s", ("gpu", "area_mb_s")),
    ("  above 4096 MB", ("gpu", "area_over_mb_s")),
)
"""What the table shows, and where a summary has it."""


def usage_table(title: str, summaries: Sequence[Mapping[str, Any]]) -> Table:
    """The numbers of runs as a table: of one what was measured, of several least to greatest.

    Args:
        title: What was run.
        summaries: As ``efficiency.summary`` gives them, at least one.
    """
    # a run that failed says nothing of the others; alone it is shown all the same
    shown = [run for run in summaries if run["status"] == 0] or summaries
    rows = []
    for name, keys in _ROWS:
        values = [_at(summary, keys) for summary in shown]
        known = [value for value in values if value is not None]
        if not known:
            continue
        numbers = spread(known).values() if len(shown) > 1 else known
        rows.append((name, *(f"{number:,.2f}" for number in numbers)))
    heads = ("min", "median", "max") if len(shown) > 1 else ("measured",)
    count = f" · {len(shown)} whole runs" if len(shown) > 1 else ""
    return title + count, ("", *heads), rows


def middle_run(runs: Sequence[Run]) -> Run:
    """The one in the middle by time, the shorter of two."""
    return sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]


def panels_of(run: Run) -> list[Panel]:
    """What can be drawn of a run: the GPU is left out where there was none."""
    return [panel for panel in PANELS if getattr(run.samples[0], panel.attribute) is not None]


def points(run: Run, panel: Panel) -> tuple[list[float], list[float]]:
    """Times and values, the last one held to the end of the run."""
    times = [sample.time_s for sample in run.samples]
    values = [float(getattr(sample, panel.attribute)) for sample in run.samples]
    return [*times, run.seconds], [*values, values[-1]]


def headline(run: Run, panel: Panel) -> str:
    """Peak and area of a quantity in one run."""
    times, values = points(run, panel)
    surface = area(times, values, times[-1])
    return (
        f"{panel.name}: peak {max(values):,.0f} {panel.unit}, area {surface:,.0f} {panel.unit}·s"
        f" in {run.seconds:.1f} s"
    )


def draw_usage(runs: Sequence[Run], path: Path) -> None:
    """Draw runs of one command to a PNG, one panel a quantity.

    The run in the middle by time is drawn bold, with its area filled and its peak marked; the
    others are thin lines.

    Args:
        runs: At least one; the panel of the GPU is left out where there was none.
        path: The PNG.

    Raises:
        OSError: If the file cannot be written.
    """
    middle = middle_run(runs)
    panels = panels_of(middle)
    figure = new_figure(8.0, 2.2 * len(panels) + 0.4)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        _draw(axes, panel, runs, middle)
    grid[-1].set_xlabel("seconds since the start")
    figure.tight_layout()
    save_png(figure, path)


def _draw(axes: Axes, panel: Panel, runs: Sequence[Run], middle: Run) -> None:
    for run in runs:
        if run is not middle:
            axes.plot(*points(run, panel), color=panel.color, alpha=0.35, linewidth=0.8)
    times, values = points(middle, panel)
    axes.fill_between(times, values, color=panel.color, alpha=0.18, linewidth=0)
    axes.plot(times, values, color=panel.color, linewidth=1.6)
    peak = max(values)
    axes.plot(times[values.index(peak)], peak, marker="v", color=panel.color, markersize=7)
    axes.set_title(headline(middle, panel), loc="left", fontsize=10)
    axes.set_ylabel(panel.unit)
    if panel.allowed is not None and peak > panel.allowed / 2:
        axes.axhline(panel.allowed, color="0.3", linestyle=":", linewidth=1)
    if middle.seconds > SECONDS_ALLOWED / 2:
        axes.axvline(SECONDS_ALLOWED, color="0.3", linestyle=":", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _at(summary: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    found: Any = summary
    for key in keys:
        found = found[key] if found is not None else None
    return None if found is None else float(found)
