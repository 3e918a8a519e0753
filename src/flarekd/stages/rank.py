"""rank: scores and costs of several models → the challenge's rank table: ranks.csv, ranks.json."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekd import console, plain_json
from flarekd.errors import InputError, UsageError, counted, said
from flarekd.imaging.atomic import write_json, write_text
from flarekd.labels import ORGANS, TUMOR
from flarekd.lock import alone
from flarekd.metrics.protocols import ClassScore
from flarekd.ranking import METRICS, Metric, Standing, rank_models, standings
from flarekd.report.score_files import SCORES_NAME, protocol_of, read_scores
from flarekd.tables import format_rows

BENCH_NAME = Path("bench")
"""Below a model's folder: ``bench/<case>/bench.json``, one bench a case as the challenge does."""

Floats = NDArray[np.float64]
Values = dict[str, dict[str, float]]
"""By case, by metric name."""


@alone(console.warn)
def rank(models: Sequence[str], out: Path) -> list[Standing]:
    """Rank models by their scores, and by time and GPU memory where every one was benched.

    Args:
        models: ``NAME=FOLDER`` each; the folder has evaluate's ``scores.csv`` and, for costs,
            ``bench/<case>/bench.json``.
        out: Gets ``ranks.csv`` (a row a case, metric and model) and ``ranks.json``.

    Returns:
        The table, best first. A case that a model lacks, or a bench whose command failed, has the
        last rank. By time and memory those cases count that were benched for every model that has
        them.

    Raises:
        UsageError: If there are fewer than two models, or names that are no names.
        InputError: If scores cannot be read, are of different protocols, or share no case.
    """
    folders = _folders(models)
    scores = _read_scores(folders)
    values = {name: _values(scores[name], folder) for name, folder in folders.items()}
    cases = sorted({case for found in scores.values() for case in found})
    known = {metric: _known_to_all(metric, values, cases) for metric in METRICS}
    metrics = [metric for metric in METRICS if known[metric]]
    table = {
        metric.name: np.asarray(
            [
                [found.get(case, {}).get(metric.name, math.nan) for case in known[metric]]
                for found in values.values()
            ]
        )
        for metric in metrics
    }
    ranks = {metric.name: rank_models(table[metric.name], metric) for metric in metrics}
    result = standings(list(folders), ranks)
    _write(out, list(folders), {one.name: known[one] for one in metrics}, table, ranks)
    facts = {
        "cases": len(cases),
        "cases_by_metric": {metric.name: len(known[metric]) for metric in metrics},
        "metrics": [metric.name for metric in metrics],
        "allowed": {metric.name: metric.allowed for metric in metrics if metric.allowed},
        "models": {
            one.model: {"place": one.place, "rank": one.rank, "ranks": dict(one.ranks)}
            for one in result
        },
    }
    write_json(out / "ranks.json", facts)
    _show(result, metrics, dict(zip(folders, _means(table), strict=True)), len(cases))
    return result


def _folders(models: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in models:
        name, is_named, folder = text.partition("=")
        if not (name and is_named and folder) or name in folders:
            what = f"{text!r} is no model, or one of that name was given already"
            raise UsageError(what, "give each as NAME=FOLDER, the folder being evaluate's --out")
        folders[name] = Path(folder)
    if len(folders) < 2:
        raise UsageError(f"{len(folders)} models cannot be ranked", "give two or more NAME=FOLDER")
    return folders


def _read_scores(folders: Mapping[str, Path]) -> dict[str, dict[str, list[ClassScore]]]:
    scores = {name: read_scores(folder / SCORES_NAME) for name, folder in folders.items()}
    if not set.intersection(*(set(found) for found in scores.values())):
        raise InputError(f"no case is scored in all of {', '.join(folders)}", "score the same set")
    protocols = {name: protocol_of(folder / SCORES_NAME) for name, folder in folders.items()}
    if len(set(protocols.values()) - {None}) > 1:
        told = ", ".join(f"{name} by {protocol}" for name, protocol in protocols.items())
        raise InputError(f"scored by different protocols: {told}", "evaluate them all with one")
    return scores


def _values(scores: Mapping[str, Sequence[ClassScore]], folder: Path) -> Values:
    """What one model has in each case."""
    values: Values = {}
    for case, records in scores.items():
        organs = [score for score in records if score.label in ORGANS]
        tumor = next(score for score in records if score.label == TUMOR)
        values[case] = {
            "organs_dsc": _mean([score.dsc for score in organs]),
            "organs_nsd": _mean([score.nsd for score in organs]),
            "tumor_dsc": tumor.dsc,
            "tumor_nsd": tumor.nsd,
        }
        values[case].update(_costs(folder / BENCH_NAME / case / "bench.json"))
    return values


def _costs(path: Path) -> dict[str, float]:
    """Time and GPU area of one case's bench, the middle of its whole runs; nothing without one."""
    if not path.exists():
        return {}
    try:
        runs = plain_json.read(path)["runs"]
        whole = [run for run in runs if run["status"] == 0]
        seconds = [float(run["seconds"]) for run in whole]
        areas = [float(run["gpu"]["area_over_mb_s"]) for run in whole if run["gpu"] is not None]
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise InputError(
            f"{path}: is no file of bench: {said(error)}", "run bench again"
        ) from error
    if not seconds:  # it failed: the last rank in both
        return {"seconds": math.nan, "gpu_area_over_mb_s": math.nan}
    costs = {"seconds": statistics.median(seconds)}
    if areas:
        costs["gpu_area_over_mb_s"] = statistics.median(areas)
    return costs


def _known_to_all(metric: Metric, values: Mapping[str, Values], cases: Sequence[str]) -> list[str]:
    """The cases in which every model that has the case has this; says what is lacking."""
    lacking = [
        name
        for name, found in values.items()
        if not any(metric.name in one for one in found.values())
    ]
    if lacking:
        console.info(f"not ranked by {metric.title}: no bench has it of {', '.join(lacking)}")
        return []
    known = [
        case
        for case in cases
        if all(metric.name in found[case] for found in values.values() if case in found)
    ]
    if len(known) < len(cases):
        some = f"{len(known)} of {counted(cases, 'case')}"
        console.warn(f"ranked by {metric.title} over {some}: the others lack a bench of some model")
    return known


def _mean(numbers: Sequence[float]) -> float:
    known = [number for number in numbers if not math.isnan(number)]
    return math.fsum(known) / len(known) if known else math.nan


def _means(table: Mapping[str, Floats]) -> list[dict[str, float]]:
    """Of each model, the means over the cases it has."""
    count = len(next(iter(table.values())))
    return [
        {name: _mean(values[index].tolist()) for name, values in table.items()}
        for index in range(count)
    ]


def _write(
    out: Path,
    models: Sequence[str],
    cases: Mapping[str, Sequence[str]],
    table: Mapping[str, Floats],
    ranks: Mapping[str, Floats],
) -> None:
    rows: list[tuple[str, str, str, float, int]] = [
        (
            case,
            metric,
            model,
            round(float(values[index, place]), 4),
            int(ranks[metric][index, place]),
        )
        for metric, values in table.items()
        for place, case in enumerate(cases[metric])
        for index, model in enumerate(models)
    ]
    rows.sort(key=itemgetter(0))
    columns = ("case", "metric", "model", "value", "rank")
    write_text(out / "ranks.csv", format_rows(columns, rows))


def _show(
    result: Sequence[Standing],
    metrics: Sequence[Metric],
    means: Mapping[str, Mapping[str, float]],
    cases: int,
) -> None:
    rows = []
    for one in result:
        cells = (
            f"{means[one.model][metric.name] * (1 if metric.is_cost else 100):,.2f}"
            f" · {one.ranks[metric.name]:.2f}"
            for metric in metrics
        )
        rows.append((one.model, str(one.place), f"{one.rank:.2f}", *cells))
    titles = (metric.title if metric.is_cost else f"{metric.title} %" for metric in metrics)
    columns = ("model", "place", "mean rank", *titles)
    console.table(f"{counted(cases, 'case')}: mean value · mean rank", columns, rows)
