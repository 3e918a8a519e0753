"""From the start of the process to the first window: what a caller of one small scan waits for.

``flarekd --help``, and ``flarekd infer`` on a small scan, each run a process of its own, in
turns. *To the first window* is from the start of the process to its report, the last thing that is
written, less the seconds that it gives to the network, the labels and the writing. The first run of
each way is not counted: it fills the page cache, and keeps the graph.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

from benchmarks import inference_setup as setup
from benchmarks.processes import measure

AFTER = ("network", "labels", "write")
RUNTIMES = ("torch", "openvino")


def one_run(out: Path, model: Path, way: str) -> tuple[float, float]:
    """Seconds to the first window, and of the whole command.

    Raises:
        RuntimeError: If it failed.
    """
    words = ["--help"]
    if way != "--help":
        shutil.rmtree(out / way, ignore_errors=True)
        words = ["infer", str(out / "scans"), "--model", str(model), "--out", str(out / way)]
        words += ["--device", "cpu", "--runtime", way, "--step", "1.0"]
    began = time.time()
    run = measure(setup.flarekd_command(*words), out / f"{way.strip('-')}.txt")
    if run.status:
        message = f"{way} failed with {run.status}; see {out / way.strip('-')}.txt"
        raise RuntimeError(message)
    if way == "--help":
        return run.wall_s, run.wall_s
    report = out / way / "report.json"
    (case,) = json.loads(report.read_text(encoding="utf-8"))["cases"]
    after = sum(case["seconds"].get(part, 0.0) for part in AFTER)
    return report.stat().st_mtime - began - after, run.wall_s


def main() -> None:
    """Take turns; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    setup.make_scan(out / "scans" / "scan_0000.nii.gz", out / "truth.nii.gz", 60, 2.0, shrink=4)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ("--help", *RUNTIMES)}
    for _ in range(arguments.rounds + 1):
        for way, runs in found.items():
            runs.append(one_run(out, arguments.model.resolve(), way))
    print("| way | to the first window, s: min / median / max | whole command, s |")
    print("|---|---|---|")
    for way, runs in found.items():
        first, whole = ([run[i] for run in runs[1:]] for i in (0, 1))
        spread = f"{min(first):.2f} / {statistics.median(first):.2f} / {max(first):.2f}"
        print(f"| {way} | {spread} | {statistics.median(whole):.2f} |")


if __name__ == "__main__":
    main()
