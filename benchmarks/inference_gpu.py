"""``flarekd infer`` on a GPU beside the paper's Table 8: seconds, GPU memory, its area over time.

Phantom scans of the table's sizes (512×512×55 to 554), the published student's shape. Each is
segmented by a process of its own, start-up included, as the challenge does; at last all by one
process, which tells the seconds of a case when warm. GPU memory is that of the whole device, as
FLARE samples it, every 0.1 s by NVML (``pip install nvidia-ml-py``): nothing else may run on it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import inference_setup as setup

INTERVAL_S = 0.1
TRUNK_MM = 560.0
"""No scan is longer than the phantom's trunk; short ones have slices as thick as they come."""

TABLE_8 = {
    55: (18.21, 2562, 16305),
    100: (15.03, 1694, 15786),
    150: (26.23, 3704, 21449),
    215: (14.21, 2562, 14479),
    334: (15.20, 1978, 15303),
    448: (17.86, 1694, 18322),
    499: (19.55, 1694, 20940),
    554: (21.16, 3704, 22890),
}
"""Slices → s, most MB, MB·s of the paper's container on a Quadro RTX 5000."""


class Sampler(threading.Thread):
    """Memory in use on a GPU, MB, and when."""

    def __init__(self, index: int) -> None:
        super().__init__(daemon=True)
        import pynvml

        pynvml.nvmlInit()
        self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)
        self._stopped = threading.Event()
        self.samples: list[tuple[float, float]] = []

    def used_mb(self) -> float:
        """MB (2²⁰ bytes, as FLARE counts) in use now."""
        return float(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used) / 2**20

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._stopped.is_set():
            self.samples.append((time.monotonic(), self.used_mb()))
            self._stopped.wait(INTERVAL_S)

    def stop(self) -> None:
        """End, with one more sample."""
        self._stopped.set()
        self.join()
        self.samples.append((time.monotonic(), self.used_mb()))


def area(samples: Sequence[tuple[float, float]]) -> float:
    """Area under (s, MB) samples, MB·s, by the time that really passed between them.

    >>> area([(0.0, 100.0), (0.1, 300.0), (0.3, 300.0)])
    80.0
    """
    pairs = zip(samples, samples[1:], strict=False)
    return round(sum((t1 - t0) * (m0 + m1) / 2 for (t0, m0), (t1, m1) in pairs), 6)


def run_once(out: Path, scans: Sequence[Path], words: Sequence[object], gpu: int) -> dict[str, Any]:
    """One process over `scans`: seconds, GPU memory, and what it reports of each case."""
    target = out / "labels"
    shutil.rmtree(target, ignore_errors=True)
    command = setup.flarekd_command("infer", *scans, "--out", target, *words)
    sampler = Sampler(gpu)
    before = sampler.used_mb()
    began = time.monotonic()
    sampler.start()
    subprocess.run(command, check=True)
    wall_s = time.monotonic() - began
    sampler.stop()
    report = json.loads((target / "report.json").read_text(encoding="utf-8"))
    return {
        "wall_s": wall_s,
        "idle_mb": before,
        "peak_mb": max(mb for _, mb in sampler.samples),
        "area_mb_s": area(sampler.samples),
        "cases_s": {case["case"]: sum(case["seconds"].values()) for case in report["cases"]},
    }


def make_scan(out: Path, slices: int, scan: Path) -> None:
    """Write the phantom scan of so many slices, and its truth, where it is missing."""
    thickness_mm = min(5.0, round(TRUNK_MM / slices, 2))
    setup.make_scan(scan, out / f"truth-{slices}.nii.gz", slices, thickness_mm)


def table(runs: dict[int, list[dict[str, Any]]]) -> str:
    """Markdown: each size's medians beside the paper's numbers, and the means of all."""
    lines = [
        "| slices | s, start-up included | most MB | MB·s | paper: s | MB | MB·s |",
        "|---" * 7 + "|",
    ]
    keys = ("wall_s", "peak_mb", "area_mb_s")
    rows = []
    for slices, found in runs.items():
        ours = [statistics.median(run[key] for run in found) for key in keys]
        rows.append((*ours, *TABLE_8[slices]))
        spread = f"{min(run['wall_s'] for run in found):.2f} / {ours[0]:.2f} / "
        spread += f"{max(run['wall_s'] for run in found):.2f}"
        seconds, most, total = TABLE_8[slices]
        theirs = f"{seconds} | {most} | {total}"
        lines.append(f"| {slices} | {spread} | {ours[1]:.0f} | {ours[2]:.0f} | {theirs} |")
    means = [statistics.mean(column) for column in zip(*rows, strict=True)]
    cells = [f"{means[0]:.2f}", *(f"{value:.0f}" for value in means[1:3])]
    cells += [f"{means[3]:.2f}", *(f"{value:.0f}" for value in means[4:])]
    return "\n".join([*lines, f"| mean | {' | '.join(cells)} |"]) + "\n"


def unusable(gpu: int) -> str | None:
    """Why this cannot be measured here, or None."""
    import torch

    if not torch.cuda.is_available():
        return "there is no CUDA device here (or torch is a build without CUDA)"
    try:
        Sampler(gpu)
    except Exception as error:  # noqa: BLE001 (pynvml has one error a cause, and may be missing)
        return f"GPU memory cannot be read: {error}; pip install nvidia-ml-py"
    return None


def main() -> None:
    """Make what is needed, measure, say what came out; refuse where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("inference-gpu"))
    parser.add_argument("--model", type=Path, help="a student; one is trained where left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, nargs="+", choices=TABLE_8, default=list(TABLE_8))
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=400, help="of the training")
    parser.add_argument("options", nargs="*", help="for flarekd infer, after --")
    arguments = parser.parse_args()
    reason = unusable(arguments.gpu)
    if reason:
        print(f"not measured: {reason}", file=sys.stderr)
        raise SystemExit(3)
    import torch

    out = arguments.out.resolve()
    device = f"cuda:{arguments.gpu}"
    scans = {slices: out / "scans" / f"s{slices}_0000.nii.gz" for slices in arguments.slices}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        making = [pool.submit(make_scan, out, *scan) for scan in scans.items()]
        model = arguments.model or setup.train(out / "weights", arguments.iterations, device=device)
        for made in making:
            made.result()
    words = ["--model", model.resolve(), "--device", device, *arguments.options]
    runs: dict[int, list[dict[str, Any]]] = {slices: [] for slices in scans}
    for _ in range(arguments.rounds):
        for slices, scan in scans.items():
            runs[slices].append(run_once(out, [scan], words, arguments.gpu))
            (out / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
            print(f"{slices} slices: {runs[slices][-1]}", flush=True)
    together = run_once(out, list(scans.values()), words, arguments.gpu)
    warm_s = (together["wall_s"] / len(scans), statistics.mean(together["cases_s"].values()))
    text = table(runs)
    text += (
        f"\nall {len(scans)} in one process: {warm_s[0]:.2f} s a case, {warm_s[1]:.2f} s by its "
    )
    text += f"report, {together['peak_mb']:.0f} MB at most; {torch.cuda.get_device_name(device)}, "
    text += f"{together['idle_mb']:.0f} MB in use when idle, torch {torch.__version__}\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
