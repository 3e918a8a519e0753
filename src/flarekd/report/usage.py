"""The picture of a bench: memory and processors over time, with peaks and areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flarekd.efficiency import GPU_MB_ALLOWED, SECONDS_ALLOWED, Run, area
from flarekd.report.canvas import new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class _Panel:
    name: str
    unit: str
    color: str
    attribute: str
    allowed: float | None = None


_PANELS = (
    _Panel("GPU memory", "MB", "#2c8a3d", "gpu_mb", GPU_MB_ALLOWED),
    _Panel("RAM", "MB", "#1f5fa8", "ram_mb"),
    _Panel("CPU", "%", "#b06a00", "cpu_percent"),
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
    middle = sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]
    panels = [panel for panel in _PANELS if getattr(middle.samples[0], panel.attribute) is not None]
    figure = new_figure(8.0, 2.2 * len(panels) + 0.4)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        _draw(axes, panel, runs, middle)
    grid[-1].set_xlabel("seconds since the start")
    figure.tight_layout()
    save_png(figure, path)


def _draw(axes: Axes, panel: _Panel, runs: Sequence[Run], middle: Run) -> None:
    for run in runs:
        if run is not middle:
            axes.plot(*_points(run, panel), color=panel.color, alpha=0.35, linewidth=0.8)
    times, values = _points(middle, panel)
    axes.fill_between(times, values, color=panel.color, alpha=0.18, linewidth=0)
    axes.plot(times, values, color=panel.color, linewidth=1.6)
    peak = max(values)
    axes.plot(times[values.index(peak)], peak, marker="v", color=panel.color, markersize=7)
    surface = area(times, values, times[-1])
    axes.set_title(
        f"{panel.name}: peak {peak:,.0f} {panel.unit}, area {surface:,.0f} {panel.unit}·s"
        f" in {middle.seconds:.1f} s",
        loc="left",
        fontsize=10,
    )
    axes.set_ylabel(panel.unit)
    if panel.allowed is not None and peak > panel.allowed / 2:
        axes.axhline(panel.allowed, color="0.3", linestyle=":", linewidth=1)
    if middle.seconds > SECONDS_ALLOWED / 2:
        axes.axvline(SECONDS_ALLOWED, color="0.3", linestyle=":", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _points(run: Run, panel: _Panel) -> tuple[list[float], list[float]]:
    """Times and values, the last one held to the end of the run."""
    times = [sample.time_s for sample in run.samples]
    values = [float(getattr(sample, panel.attribute)) for sample in run.samples]
    return [*times, run.seconds], [*values, values[-1]]
