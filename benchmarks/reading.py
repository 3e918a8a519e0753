"""Reading, resampling and writing a scan: ISA-L against Python's gzip, slices against the whole.

`python -m benchmarks.reading --scan FILE --work DIR [--repeats 5]`. The scan is resized to
512×512×300 with 8 HU of noise, as smooth voxels would pack too well, and the label map is that of
`benchmarks.labels`. CPU seconds of one thread; ways alternate in one process.
"""

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.labels import NATIVE, SOURCE, organ_logits, spread
from flarekd import console
from flarekd.imaging import nifti
from flarekd.imaging.files import read_volume, write_labels, write_volume
from flarekd.imaging.intensity import not_ct_reason
from flarekd.imaging.resampling import resample
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.inference.slabs import labels_from_logits


def main() -> None:
    """Make the files, time every step both ways, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ct, out = options.work / "ct.nii.gz", options.work / "labels.nii.gz"
    scan = _large(read_volume(options.scan).array)
    labels = LabelMap(labels_from_logits(organ_logits(), NATIVE), scan.geometry)
    write_volume(ct, scan)
    steps: dict[str, Callable[[], Any]] = {
        "read_volume": lambda: read_volume(ct),
        "write_labels": lambda: write_labels(out, labels),
        "not_ct_reason": lambda: not_ct_reason(scan.array),
        "resample": lambda: resample(scan.array, SOURCE),
    }
    others: dict[str, Callable[[], Any]] = {
        "read_volume, Python's gzip": _with_gzip(steps["read_volume"]),
        "write_labels, Python's gzip": _with_gzip(steps["write_labels"]),
        "resample, F.interpolate of the whole": lambda: _whole(scan.array),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sorted(steps | others)}
    for _ in range(options.repeats):
        for name, spent in seconds.items():
            began = time.process_time()
            (steps | others)[name]()
            spent.append(time.process_time() - began)
    rows = [[name, spread(spent)] for name, spent in seconds.items()]
    console.table(f"{NATIVE}, one thread", ["step", "CPU s, min / median / max"], rows)
    steps["write_labels"]()
    off = np.abs(resample(scan.array, SOURCE) - _whole(scan.array)).max()
    console.result(
        f"resampled both ways: at most {off:.1g} HU apart; "
        f"CT {ct.stat().st_size / 1e6:.1f} MB, labels {out.stat().st_size / 1e6:.2f} MB"
    )


def _large(array: NDArray[Any]) -> Volume:
    noise = np.random.default_rng(0).normal(0, 8, NATIVE).astype(np.float32)
    hu = np.rint(resample(array, NATIVE) + noise).clip(-2048, 3000).astype(np.int16)
    return Volume(hu, Geometry((NATIVE[2], NATIVE[1], NATIVE[0]), (0.8, 0.8, 1.0)))


def _whole(array: NDArray[Any]) -> NDArray[np.float32]:
    source = torch.from_numpy(array.astype(np.float32))[None, None]
    result: NDArray[np.float32] = functional.interpolate(source, SOURCE, mode="trilinear").numpy()
    return result[0, 0]


def _with_gzip(step: Callable[[], Any]) -> Callable[[], Any]:
    """A step that goes through Python's gzip."""

    def theirs(mode: str, file: IO[bytes]) -> gzip.GzipFile:
        return gzip.GzipFile("", mode, 1, file, mtime=0)

    def run() -> None:
        ours, nifti._gzip = nifti._gzip, theirs
        try:
            step()
        finally:
            nifti._gzip = ours

    return run


if __name__ == "__main__":
    main()
