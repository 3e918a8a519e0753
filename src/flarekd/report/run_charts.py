"""How a model came about and what it costs: training curves and bench curves for a page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekd.efficiency import Run
from flarekd.errors import InputError
from flarekd.report.bench_files import FACTS_NAME, Bench, read_bench
from flarekd.report.charts import Chart, Curve, line_chart
from flarekd.report.curves import SMOOTHING_SHARE, loss_range, series, smooth
from flarekd.report.score_tables import Table
from flarekd.report.usage import Panel, headline, middle_run, panels_of, points, usage_table
from flarekd.training.log import LOG, read_log

BENCH_FOLDER = "bench"
"""Where, in a folder of scores, ``rank`` and the page look for benches."""

MOST_OTHERS = 20
"""Runs drawn thinly behind the middle one: more would be a grey field."""


@dataclass(frozen=True)
class Training:
    """One training on the page.

    Attributes:
        name: Of the network.
        told: What happened, in a sentence.
        charts: Loss, pseudo-DSC and learning rate, those that the log has.
        settings: Its config.yaml, empty without one.
    """

    name: str
    told: str
    charts: tuple[Chart, ...]
    settings: str


@dataclass(frozen=True)
class Efficiency:
    """What the benches in a folder say.

    Attributes:
        table: Time, memory and areas.
        charts: GPU memory, RAM and CPU over time.
        note: What is drawn.
        problems: Folders that could not be read, and why; runs that failed.
    """

    table: Table | None
    charts: tuple[Chart, ...]
    note: str
    problems: tuple[str, ...]


def read_trainings(folders: Mapping[str, Path]) -> list[Training]:
    """What run folders show, by the network's name; those without a log are left out."""
    found = []
    for name, folder in folders.items():
        settings = folder / "config.yaml"
        text = settings.read_text(encoding="utf-8") if settings.exists() else ""
        found.append(training_of(name.capitalize(), read_log(folder / LOG), text))
    return [training for training in found if training]


def training_of(name: str, records: Sequence[Mapping[str, Any]], settings: str) -> Training | None:
    """What a log.jsonl shows; None where it has nothing to draw.

    Args:
        name: Of the network.
        records: Lines of ``log.jsonl`` in order.
        settings: Text of its config.yaml.
    """
    (iterations, losses), (seen, dsc), rate = (series(records, k) for k in ("loss", "dsc", "lr"))
    charts = []
    told = [f"{len(records)} epochs"]
    if len(losses):
        told += [f"{iterations[-1]:,.0f} iterations", f"last loss {losses[-1]:.3f}"]
        bold = Curve(iterations, smooth(losses, SMOOTHING_SHARE * len(losses)))
        faint = Curve(iterations, losses, "faint")
        title = "Loss (bold: smoothed)"
        charts.append(line_chart(title, "iteration", [faint, bold], loss_range(losses)))
    if len(dsc):
        best = int(dsc.argmax())
        told.append(f"best mean pseudo-DSC {dsc[best]:.3f} at iteration {seen[best]:,.0f}")
        charts.append(line_chart("Mean pseudo-DSC", "iteration", [Curve(seen, dsc)], (0.0, 1.0)))
    if len(rate[0]):
        charts.append(line_chart("Learning rate", "iteration", [Curve(*rate)]))
    seconds = sum(float(record.get("seconds") or 0) for record in records)
    if seconds:
        told.append(f"{seconds / 60:,.1f} minutes")
    return Training(name, ", ".join(told), tuple(charts), settings) if charts else None


def efficiency_of(folder: Path) -> Efficiency | None:
    """What the benches below ``folder/bench`` say; None where there is none.

    One bench a case, as ``rank`` takes them, or a single one: all their whole runs are shown
    together.
    """
    benches: list[Bench] = []
    problems = []
    for path in sorted((folder / BENCH_FOLDER).rglob(FACTS_NAME)):
        try:
            benches.append(read_bench(path.parent))
        except InputError as error:
            problems.append(str(error))
    pairs = [pair for bench in benches for pair in zip(bench.summaries, bench.runs, strict=True)]
    whole = [(summary, run) for summary, run in pairs if run.status == 0]
    if len(whole) < len(pairs):
        problems.append(f"{len(pairs) - len(whole)} of {len(pairs)} runs failed and are not shown")
    if not whole:
        return Efficiency(None, (), "", tuple(problems)) if problems else None
    runs = [run for _, run in whole]
    middle = middle_run(runs)
    told = f"{len(benches)} benches, the first" if len(benches) > 1 else "Command"
    gpus = sorted({bench.gpu for bench in benches if bench.gpu})
    note = f"{told}: {shlex.join(benches[0].command)} · GPU: {', '.join(gpus) or 'none'}"
    table = usage_table("Time, memory and areas", [summary for summary, _ in whole])
    charts = tuple(_usage_chart(panel, middle, runs) for panel in panels_of(middle))
    return Efficiency(table, charts, note, tuple(problems))


def _usage_chart(panel: Panel, middle: Run, runs: Sequence[Run]) -> Chart:
    """The middle run bold, some others thin, and what FLARE allows where it is near."""
    others = [run for run in runs if run is not middle and panel in panels_of(run)]
    curves = [Curve(*points(run, panel), "faint") for run in others[:MOST_OTHERS]]
    curves.append(Curve(*points(middle, panel)))
    highest = max(max(curve.y) for curve in curves)
    if panel.allowed is not None and highest > panel.allowed / 2:
        latest = max(curve.x[-1] for curve in curves)
        curves.append(Curve((0.0, latest), (panel.allowed, panel.allowed), "limit"))
        highest = max(highest, panel.allowed)
    return line_chart(headline(middle, panel), "seconds", curves, (0.0, 1.05 * highest or 1.0))
