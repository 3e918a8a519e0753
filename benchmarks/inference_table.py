"""The tables of ``benchmarks.inference``, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

PARTS = ("read", "resample", "network", "labels", "write")


def table(runs: list[dict[str, Any]], facts: dict[str, Any], steps: Iterable[float]) -> str:
    """Seconds and memory of each way, where flarekd's go, and how alike the labels are.

    Args:
        runs: Of ``runs.jsonl``.
        facts: Of ``facts.json``.
        steps: In this order.
    """
    lines = [f"{facts['parameters']:,} parameters, weights: {facts['weights']}"]
    for step in steps:
        ways: dict[str, list[dict[str, Any]]] = {}
        for run in runs:
            if run["step"] == step:
                ways.setdefault(run["way"], []).append(run)
        lines += ["", f"Step {step}:", "", *_seconds(ways), "", *_parts(ways, runs)]
    lines += ["", "| labels | |", "|---|---|"]
    for pair, share in facts["agreement"].items():
        lines.append(f"| same foreground voxels, {pair} | {100 * share:.3f} % |")
    for key, what in (
        ("foreground_share", "foreground"),
        ("border_share", "cells of the network's grid at label borders"),
    ):
        lines += [f"| {what}, {way} | {100 * x:.2f} % |" for way, x in facts.get(key, {}).items()]
    lines += [f"| mean DSC, {way} | {x:.3f} |" for way, x in facts.get("dsc", {}).items()]
    return "\n".join(lines) + "\n"


def _seconds(ways: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| way | runs | wall s min / median / max | CPU s | peak MiB | times faster than nnunet | "
        "than nnunet-torch | times less memory than nnunet |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, found in ways.items():
        wall = [run["wall_s"] for run in found]
        spread = f"{min(wall):.1f} / {statistics.median(wall):.1f} / {max(wall):.1f}"
        cpu_s = statistics.median(run["cpu_s"] for run in found)
        peak = max(run["peak_mib"] for run in found)
        ratios = [
            _ratio(ways, peer, way, what)
            for what, peer in (
                ("wall_s", "nnunet"),
                ("wall_s", "nnunet-torch"),
                ("peak_mib", "nnunet"),
            )
        ]
        lines.append(
            f"| {way} | {len(found)} | {spread} | {cpu_s:.1f} | {peak} | {' | '.join(ratios)} |"
        )
    return lines


def _ratio(ways: dict[str, list[dict[str, Any]]], peer: str, way: str, what: str) -> str:
    if peer not in ways:
        return "–"
    theirs, ours = (statistics.median(run[what] for run in ways[side]) for side in (peer, way))
    return f"{theirs / ours:.2f}"


def _parts(ways: dict[str, list[dict[str, Any]]], runs: list[dict[str, Any]]) -> list[str]:
    """Where flarekd's time goes, and the whole against its network calls alone."""
    ours = {way: found for way, found in ways.items() if "seconds" in found[0]}
    if not ours:
        return []
    lines = [
        f"| flarekd, median s | windows | start and rest | {' | '.join(PARTS)} | "
        "bare network calls | whole / bare |",
        "|---" * (len(PARTS) + 5) + "|",
    ]
    for way, found in ours.items():
        parts = [
            statistics.median(run["seconds"].get(part, 0.0) for run in found) for part in PARTS
        ]
        wall = statistics.median(run["wall_s"] for run in found)
        count, total = found[0]["windows_run"], found[0]["windows_total"]
        cells = [f"{seconds:.2f}" for seconds in (wall - sum(parts), *parts)]
        name = f"bare-{way.partition('-')[0]}"
        calls = [second for run in runs if run["way"] == name for second in run["window_s"]]
        bare_s = count * statistics.median(calls) if calls else None
        cells += [f"{bare_s:.2f}", f"{wall / bare_s:.2f}"] if bare_s else ["–", "–"]
        lines.append(f"| {way} | {count} of {total} | {' | '.join(cells)} |")
    return lines
