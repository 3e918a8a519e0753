"""What evaluate shows on screen, as rows of tables: a title, columns and cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flarekd.errors import counted
from flarekd.labels import readable

Table = tuple[str, Sequence[str], list[tuple[str, ...]]]

ABSENT = "–"


def tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of what ``scores.json`` holds: classes, then what else was asked for or found."""
    yield _classes(summary)
    if summary["lesions"]["lesions"] or summary["lesions"]["false_positives"]:
        yield _lesions(summary["lesions"])
    for trait, parts in summary.get("breakdowns", {}).items():
        yield _breakdown(trait, parts)
    if "comparison" in summary:
        yield _comparison(summary["comparison"])


def _rows(shaped: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The rows of the paper's Table 5."""
    for name, entry in shaped["classes"].items():
        if name != "tumor":
            yield readable(name), entry
    yield "organs (mean of 13)", shaped["organs"]
    yield readable("tumor"), shaped["tumor"]
    yield "all (mean of 14)", shaped["all"]


def _classes(summary: Mapping[str, Any]) -> Table:
    rows = []
    shapes = (summary, summary["deviations"], summary["intervals"])
    for (name, means), (_, sds), (_, bounds) in zip(*map(_rows, shapes), strict=True):
        scores = [
            cell
            for key in ("dsc", "nsd")
            for cell in (_with_deviation(means[key], sds[key]), _between(bounds[key]))
        ]
        measures = (number(means["hd95_mm"], 1, 1), number(means["volume_error"], 100, 1))
        rows.append((name, *scores, *measures))
    columns = ("class", "DSC %", "95 % CI", "NSD %", "95 % CI", "HD95 mm", "volume error %")
    return f"{counted(summary['cases'], 'case')}, protocol {summary['protocol']}", columns, rows


def _lesions(lesions: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, entry in (*lesions["sizes"].items(), ("all sizes", lesions)):
        counts = (str(entry["lesions"]), str(entry["found"]))
        false = number(entry["false_positives_per_case"], 1, 2)
        rows.append((name, *counts, number(entry["sensitivity"], 100, 1), false))
    columns = ("tumours by diameter", "drawn", "found", "sensitivity %", "false a case")
    return "Tumours one by one", columns, rows


def _breakdown(trait: str, parts: Mapping[str, Any]) -> Table:
    names = ("organs", "tumor", "all")
    measures = [f"{readable(name)} {key} %" for name in names for key in ("DSC", "NSD")]
    rows = [
        (
            value,
            str(part["cases"]),
            *(number(part[name][key], 100, 2) for name in names for key in ("dsc", "nsd")),
        )
        for value, part in parts.items()
    ]
    return f"By {trait}", (trait, "cases", *measures), rows


def _comparison(comparison: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in _rows(comparison):
        cells = [name]
        for key in ("dsc", "nsd"):
            found = entry[key]
            p = found.get("p_holm", found["p"])
            cells += [
                number(found["difference"], 100, 2, "+"),
                _between([found["low"], found["high"]], "+"),
                number(found["effect"], 1, 2, "+"),
                ABSENT if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
            ]
        rows.append(tuple(cells))
    per_score = ("95 % CI", "effect", "p")
    columns = ["class", *(c for key in ("DSC", "NSD") for c in (f"Δ{key} %", *per_score))]
    title = f"Against {comparison['with']}, {counted(comparison['cases'], 'case')} in both"
    how = "effect +1: better in every case; p by Wilcoxon, of classes after Holm"
    return f"{title}; {how}", columns, rows


def _between(bounds: Sequence[float | None], sign: str = "") -> str:
    low, high = bounds
    if low is None or high is None:
        return ABSENT
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def _with_deviation(mean: float | None, sd: float | None) -> str:
    alone = number(mean, 100, 2)
    return alone if sd is None else f"{alone} ± {number(sd, 100, 2)}"


def number(value: float | None, factor: float, digits: int, sign: str = "") -> str:
    """A number times a factor, as tables show it; a dash where there is none."""
    return ABSENT if value is None else f"{factor * value:{sign}.{digits}f}"
