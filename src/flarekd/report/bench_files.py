"""bench.json and bench.csv read back, for whoever draws what a bench saw."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.efficiency import Run, Sample
from flarekd.errors import InputError

FACTS_NAME, CURVE_NAME = "bench.json", "bench.csv"


@dataclass(frozen=True)
class Bench:
    """One bench.

    Attributes:
        command: Program and arguments.
        gpu: Name of the device whose memory was seen, None without one.
        summaries: The numbers of each run, as ``efficiency.summary`` gives them.
        runs: The same runs over time.
    """

    command: tuple[str, ...]
    gpu: str | None
    summaries: tuple[Mapping[str, Any], ...]
    runs: tuple[Run, ...]


def read_bench(folder: Path) -> Bench:
    """Read what ``flarekd bench --out folder`` wrote.

    Raises:
        InputError: If a file is missing or is none of bench.
    """
    try:
        facts = plain_json.read(folder / FACTS_NAME)
        with (folder / CURVE_NAME).open(encoding="utf-8", newline="") as file:
            samples: dict[int, list[Sample]] = {}
            for row in csv.DictReader(file):
                samples.setdefault(int(row["run"]), []).append(_sample(row))
        runs = tuple(_run(one, samples[number]) for number, one in enumerate(facts["runs"], 1))
        gpu = facts["gpu"]["name"] if facts["gpu"] else None
        return Bench(tuple(facts["command"]), gpu, tuple(facts["runs"]), runs)
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        what = f"{folder} holds no files of bench: {error!r}"
        raise InputError(what, "run bench again, or remove the folder") from error


def _sample(row: Mapping[str, str]) -> Sample:
    gpu = row.get("gpu_mb")
    return Sample(
        float(row["time_s"]),
        float(row["ram_mb"]),
        float(row["machine_mb"]),
        float(row["cpu_percent"]),
        int(float(row["processes"])),
        float(gpu) if gpu else None,
    )


def _run(facts: Mapping[str, Any], samples: list[Sample]) -> Run:
    return Run(
        tuple(samples),
        float(facts["seconds"]),
        int(facts["status"]),
        float(facts["cpu"]["seconds"]),
        _number(facts["ram"]["process_peak_mb"]),
        float(facts["machine"]["before_mb"]),
        _number(facts["gpu"]["before_mb"]) if facts["gpu"] else None,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
