"""Time and memory of ``flarekd infer`` against the number of slices and of classes.

A narrow student (the published one with half its channels, trained for a few minutes) segments
phantom scans of 512×512 pixels. More slices are the same trunk, up and down in turn; classes beyond
the student's own have the mean of the others' weights, so that they never win and the label maps
stay as they are. Each run is a process of its own. Results are kept in ``runs.jsonl``: a run that
was cut short goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import inference_setup as setup
from benchmarks.processes import measure
from flarekd.imaging.files import read_volume, write_volume
from flarekd.imaging.volume import Geometry, Volume
from flarekd.modelfile import read_card, read_weights, save_model
from flarekd.report.canvas import new_figure, save_png

CHANNELS = (8, 16, 32, 64, 128)
BASE_SLICES = 250
SLICES = (50, 100, 200, 400, 700, 1000)
CLASSES = (2, 15, 30, 60, 120)


def make_long_scan(out: Path, slices: int) -> Path:
    """A scan of `slices` of 1 mm."""
    path = out / "scans" / f"s{slices}_0000.nii.gz"
    if path.exists():
        return path
    base = out / "base_0000.nii.gz"
    setup.make_scan(base, out / "base_truth.nii.gz", BASE_SLICES)
    volume = read_volume(base)
    # up and down in turn, so that slices beside each other go on
    order = np.concatenate([np.arange(BASE_SLICES), np.arange(BASE_SLICES)[::-1]])
    middle = max(0, (BASE_SLICES - slices) // 2)
    array = volume.array[np.resize(order, slices + middle)[middle:]]
    width, height = volume.geometry.size_xyz[:2]
    geometry = Geometry((width, height, slices), volume.geometry.spacing_xyz)
    write_volume(path, Volume(array, geometry))
    return path


def model_of(trained: Path, out: Path, classes: int) -> Path:
    """The trained student with another number of outputs; the network before them is the same."""
    path = out / f"classes-{classes}.safetensors"
    if path.exists():
        return path
    card, weights = read_card(trained), read_weights(trained)
    kept = min(classes, len(card.labels))
    for name, weight in weights.items():
        if name.startswith("heads."):
            mean = weight[:kept].mean(0, keepdim=True)
            more = mean.expand(classes - kept, *weight.shape[1:])
            weights[name] = torch.cat([weight[:kept], more])
    names = [*card.labels[:kept], *(f"class_{i}" for i in range(kept, classes))]
    changed = {
        "network": {**card.network, "classes": classes},
        "labels": tuple(names),
        "label_ids": tuple(range(classes)),
    }
    save_model(path, weights, card.model_copy(update=changed))
    return path


def run_once(out: Path, model: Path, scan: Path, options: list[str]) -> dict[str, Any]:
    """One call of ``flarekd infer``: seconds, those of the network, peak memory."""
    target = out / "labels"
    shutil.rmtree(target, ignore_errors=True)
    words = ["infer", scan, "--model", model, "--out", target, "--device", "cpu"]
    words += ["--step", 1.0, "--windows", "full", *options]
    run = measure(setup.flarekd_command(*words), out / "log.txt")
    if run.status:
        message = f"flarekd infer failed with {run.status}; see {out / 'log.txt'}"
        raise RuntimeError(message)
    (case,) = json.loads((target / "report.json").read_text(encoding="utf-8"))["cases"]
    network_s = case["seconds"]["network"]
    told = {"wall_s": run.wall_s, "network_s": network_s, "rest_s": run.wall_s - network_s}
    return {**told, "peak_mib": run.peak_mib, "windows": case["windows_run"]}


def summary(runs: list[dict[str, Any]], key: str) -> list[dict[str, float]]:
    """Medians for each number of slices or classes, in order."""
    rows = []
    for value in sorted({run[key] for run in runs if run["varied"] == key}):
        found = [run for run in runs if run["varied"] == key and run[key] == value]
        row = {what: statistics.median(run[what] for run in found) for what in found[0]["took"]}
        rows.append({key: value, "runs": len(found), **row})
    return rows


def line_fit(rows: list[dict[str, float]], key: str, what: str) -> tuple[float, float, float]:
    """Slope, value at none, and largest distance from the line as a share of the largest value."""
    x, y = (np.asarray([row[name] for row in rows]) for name in (key, what))
    slope, start = np.polyfit(x, y, 1)
    return float(slope), float(start), float(np.abs(y - slope * x - start).max() / y.max())


def table(rows: list[dict[str, float]], key: str) -> str:
    """Markdown, with a line fitted to each quantity."""
    names = {"wall_s": "whole, s", "network_s": "network, s", "rest_s": "rest, s"}
    names["peak_mib"] = "peak MiB"
    lines = [f"| {key} | runs | windows | {' | '.join(names.values())} |", "|---" * 7 + "|"]
    for row in rows:
        cells = [f"{row[name]:.2f}" for name in ("wall_s", "network_s", "rest_s")]
        cells.append(f"{row['peak_mib']:.0f}")
        lines.append(f"| {row[key]} | {row['runs']} | {row['windows']:.0f} | {' | '.join(cells)} |")
    if len(rows) > 2:
        lines.append("")
        for name, words in names.items():
            slope, start, off = line_fit(rows, key, name)
            lines.append(
                f"- {words}: {start:.3g} + {slope:.3g} for each of the {key}; farthest from this "
                f"line {100 * off:.0f} % of the largest"
            )
    return "\n".join(lines) + "\n"


def draw(path: Path, tables: dict[str, list[dict[str, float]]]) -> None:
    """Seconds (network and rest) and memory, against slices and against classes."""
    shown = {key: rows for key, rows in tables.items() if rows}
    figure = new_figure(4.6 * len(shown), 6)
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column, (key, rows) in enumerate(shown.items()):
        x = [row[key] for row in rows]
        top, bottom = axes[0][column], axes[1][column]
        for what, name in (("wall_s", "whole"), ("network_s", "network"), ("rest_s", "rest")):
            top.plot(x, [row[what] for row in rows], "o-", label=name)
        bottom.plot(x, [row["peak_mib"] for row in rows], "o-", color="tab:red")
        top.set_ylabel("s")
        bottom.set_ylabel("peak memory, MiB")
        top.legend(frameon=False)
        for axis in (top, bottom):
            axis.set_xlabel(key)
            axis.set_ylim(0, 1.08 * axis.get_ylim()[1])
            axis.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(figure, path)


def main() -> None:
    """Make what is needed, take turns, say and draw what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("inference-scaling"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, nargs="*", default=SLICES)
    parser.add_argument("--classes", type=int, nargs="*", default=CLASSES)
    parser.add_argument("--slices-of-classes", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=200, help="of the training")
    parser.add_argument("--picture", type=Path, default=Path("inference-scaling.png"))
    parser.add_argument("options", nargs="*", help="more for flarekd infer, after --")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    trained = setup.train(out / "weights", arguments.iterations, CHANNELS)
    jobs = [("slices", slices, 15) for slices in arguments.slices]
    jobs += [("classes", arguments.slices_of_classes, classes) for classes in arguments.classes]
    file = out / "runs.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    runs = [json.loads(line) for line in text.splitlines()]
    for number in range(arguments.rounds):
        for varied, slices, classes in jobs:
            job = {"varied": varied, "slices": slices, "classes": classes}
            if sum(run.items() >= job.items() for run in runs) > number:
                continue
            model = model_of(trained, out, classes)
            took = run_once(out, model, make_long_scan(out, slices), arguments.options)
            runs.append({**job, **took, "took": list(took)})
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(runs[-1]) + "\n")
            print(f"round {number + 1}: {job} {took}", flush=True)
    tables = {key: summary(runs, key) for key in ("slices", "classes")}
    text = "\n".join(table(rows, key) for key, rows in tables.items() if rows)
    (out / "table.md").write_text(text, encoding="utf-8")
    draw(arguments.picture, tables)
    print(text)


if __name__ == "__main__":
    main()
