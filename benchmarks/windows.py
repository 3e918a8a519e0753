"""Windows left out and what that costs: each mode against all windows of the regular grid.

``python -m benchmarks.windows --model student.safetensors --scans FILE_OR_FOLDER ...`` for the
student, ``--teacher teacher.safetensors`` for the teacher's 2×2 rule; ``--truth FOLDER`` adds what
both are worth against the truth. Everything is compared at the network's resolution, where windows
are decided. Phantoms with full-size slices: ``flarekd phantom --out full --cases 6 --preset full``.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flarekd import console
from flarekd.imaging.files import case_id, list_scans, read_labels, read_volume
from flarekd.inference import predictor
from flarekd.inference.accumulate import Network
from flarekd.inference.predictor import Predictor
from flarekd.metrics import dice
from flarekd.student.network import StudentUNet
from flarekd.student.windows import predict_logits, skip_rules
from flarekd.teacher.network import TeacherUNet
from flarekd.teacher.windows import Probe, segment_slices

Labels = NDArray[np.uint8]
STEPS = (0.5, 0.75, 1.0)
MODES = ("full", "efficient", "body", "paper")
PROBES = {
    "all windows": Probe("top-left", 0),
    "top-left, τ 1": Probe("top-left", 1),
    "top-left, τ 10": Probe("top-left", 10),
    "center, τ 1": Probe("center", 1),
    "center, τ 10": Probe("center", 10),
}


@dataclass(frozen=True)
class Found:
    """What one mode says of a scan, and what it took."""

    labels: Labels
    run: int
    total: int


Way = Callable[[Network, torch.Tensor, Predictor], Found]


class Remembering:
    """A network that runs a window of the same voxels once, whatever asks for it.

    Modes share most windows, and a measurement of labels and counts need not compute them anew.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._known: dict[bytes, torch.Tensor] = {}

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits (n, C, …) of windows (n, 1, …)."""
        keys = [hashlib.sha256(window.numpy()).digest() for window in windows]
        for key, window in zip(keys, windows, strict=True):
            if key not in self._known:
                self._known[key] = self._network(window[None])[0]
        return torch.stack([self._known[key] for key in keys])


@dataclass
class Sums:
    """One mode over all scans."""

    run: int = 0
    total: int = 0
    voxels: int = 0
    equal: int = 0
    lost_ml: float = 0.0
    gained_ml: float = 0.0
    foreground_ml: float = 0.0
    dsc: list[float] = field(default_factory=list)
    truth_dsc: list[float] = field(default_factory=list)
    right_ml: float = 0.0
    truth_ml: float = 0.0


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--scans", type=Path, nargs="+", required=True)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--steps", type=float, nargs="*", default=STEPS)
    options = parser.parse_args()
    scans: dict[str, Path] = {}
    for entry in options.scans:
        scans |= list_scans(entry) if entry.is_dir() else {str(entry): entry}
    truth = list_scans(options.truth) if options.truth else {}
    cpu = torch.device("cpu")
    if options.model:
        student = predictor.load(options.model, "student", StudentUNet, cpu)
        for step in options.steps:
            ways = {mode: _student(mode, step) for mode in MODES}
            measure(f"Student, step {step}", student, ways, scans, truth)
    if options.teacher:
        teacher = predictor.load(options.teacher, "teacher", TeacherUNet, cpu)
        ways = {name: _teacher(probe) for name, probe in PROBES.items()}
        measure("Teacher", teacher, ways, scans, truth)


def _student(mode: str, step: float) -> Way:
    def run(network: Network, tensor: torch.Tensor, student: Predictor) -> Found:
        rules = skip_rules(mode, student.air, student.card.labels)
        found = predict_logits(network, tensor, student.card.patch, step=step, skip=rules)
        labels = found.logits.max(0).indices.to(torch.uint8).numpy()
        return Found(labels, found.windows_run, found.windows_total)

    return run


def _teacher(probe: Probe) -> Way:
    def run(network: Network, tensor: torch.Tensor, teacher: Predictor) -> Found:
        found = segment_slices(
            network,
            tensor,
            teacher.card.patch[1:],
            tensor.shape[1:],
            probe=probe,
            threshold=teacher.card.looking.threshold,
        )
        labels = np.asarray(teacher.card.label_ids, np.uint8)[found.labels]
        return Found(labels, found.windows_run, found.windows_total)

    return run


def measure(
    title: str,
    network: Predictor,
    ways: dict[str, Way],
    scans: dict[str, Path],
    truth: dict[str, Path],
) -> None:
    """Run every way on every scan, the first being what the others are compared with."""
    sums = {name: Sums() for name in ways}
    for case, path in scans.items():
        volume = read_volume(path)
        tensor = network.network_input(volume)
        real = _at(read_labels(truth[case_id(path)]).array, tensor) if truth else None
        size_mm = np.asarray(volume.array.shape) * volume.geometry.spacing_zyx
        voxel_ml = float(np.prod(size_mm)) / tensor.numel() / 1000
        reference: Found | None = None
        remembering = Remembering(network.network)
        for name, way in ways.items():
            found = way(remembering, tensor, network)
            reference = reference or found
            _add(sums[name], found, reference, voxel_ml)
            if real is not None:
                wanted = set(network.card.label_ids) - {0}
                sums[name].truth_dsc += _truth_dsc(found.labels, real, wanted)
                there = np.isin(real, list(wanted))
                sums[name].right_ml += float((there & (found.labels == real)).sum()) * voxel_ml
                sums[name].truth_ml += float(there.sum()) * voxel_ml
            facts = f"{found.run} of {reference.total} windows"
            facts += f", {int((found.labels != reference.labels).sum())} voxels differ"
            console.info(f"{title} · {Path(case).name} {tuple(tensor.shape)} · {name}: {facts}")
    _print(title, sums)


def _add(sums: Sums, found: Found, reference: Found, voxel_ml: float) -> None:
    mine, theirs = found.labels > 0, reference.labels > 0
    sums.run += found.run
    # the paper's grid is another; what was saved is counted against that of the first way
    sums.total += reference.total
    sums.voxels += mine.size
    sums.equal += int((found.labels == reference.labels).sum())
    sums.lost_ml += float((theirs & ~mine).sum()) * voxel_ml
    sums.gained_ml += float((mine & ~theirs).sum()) * voxel_ml
    sums.foreground_ml += float(theirs.sum()) * voxel_ml
    sums.dsc.append(dice(mine, theirs) if theirs.any() or mine.any() else 1.0)


def _truth_dsc(labels: Labels, real: Labels, wanted: set[int]) -> Iterator[float]:
    """DSC of each class that the truth holds."""
    for label in sorted(wanted):
        if (real == label).any():
            yield dice(labels == label, real == label)


def _at(labels: NDArray[Any], tensor: torch.Tensor) -> Labels:
    """Labels at the nearest voxels of the network's grid."""
    index = [
        (2 * np.arange(size) + 1) * own // (2 * size)
        for size, own in zip(tensor.shape, labels.shape, strict=True)
    ]
    return labels[np.ix_(*index)]


def _print(title: str, sums: dict[str, Sums]) -> None:
    rows: list[Sequence[str]] = []
    for name, s in sums.items():
        rows.append(
            (
                name,
                f"{s.run} of {s.total}",
                f"{1 - s.run / s.total:.1%}",
                f"{s.equal / s.voxels:.4%}",
                f"{np.mean(s.dsc):.4f} / {min(s.dsc):.4f}",
                f"{s.lost_ml:.1f} of {s.foreground_ml:.0f}",
                f"{s.gained_ml:.1f}",
                f"{np.mean(s.truth_dsc):.4f}" if s.truth_dsc else "–",
                f"{s.right_ml:.1f} of {s.truth_ml:.0f}",
            )
        )
    console.table(
        f"{title} ({len(next(iter(sums.values())).dsc)} scans)",
        (
            "mode", "windows run", "saved", "labels equal", "foreground DSC mean / least",
            "lost ml", "gained ml", "DSC to truth", "right ml",
        ),
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
