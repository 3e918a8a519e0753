"""A scan to its labels: what `infer` does for every case, and the one call for Python users."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.extents import count_ids
from flarekd.imaging.files import read_volume
from flarekd.imaging.intensity import not_ct_reason
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.inference import predictor
from flarekd.inference.predictor import Predictor
from flarekd.inference.runtimes import Runtime
from flarekd.inference.slabs import Method, labels_from_planes
from flarekd.protocol import Windows
from flarekd.student.network import StudentUNet
from flarekd.student.windows import skip_rules, stream_logits

NOT_CT = "does not look like CT in Hounsfield units"
"""Told loudly, but not refused: the test is a guess, and a person may know better."""

LARGEST_BATCH = 32 * 128 * 192
"""Voxels that a GPU is given at once, a window of the published student: of smaller ones a single
one would leave most of it idle."""


@dataclass(frozen=True)
class WindowSettings:
    """How a scan is looked at; None leaves it to the model file.

    Attributes:
        windows: ``efficient`` leaves out windows that change no label, ``full`` none, ``body`` lays
            the grid over the body only, ``paper`` has the paper's skip rules.
        step: Distance of neighbouring windows as a share of the patch, in (0, 1].
        method: How logits become labels at native resolution.
    """

    windows: Windows | None = None
    step: float | None = None
    method: Method = "linear"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as the network takes it.

    Attributes:
        tensor: float32 (z, y, x) at the network's spacing, normalised, on its device.
        geometry: Of the scan.
        not_ct: Why it does not look like CT in HU, None where it does.
        seconds: Of each part of the work.
    """

    tensor: torch.Tensor
    geometry: Geometry
    not_ct: str | None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of a scan and how they came about.

    Attributes:
        labels: Ids of the model's card on the scan's own grid.
        windows_run: Windows the network was run on.
        windows_total: Windows that skipping nothing takes.
        seconds: Of each part of the work.
    """

    labels: LabelMap
    windows_run: int
    windows_total: int
    seconds: dict[str, float]

    def volumes_ml(self, names: Mapping[int, str]) -> dict[str, float]:
        """Millilitres of each class that is named by its id, to a hundredth."""
        counts = count_ids(self.labels.array).sum(axis=0)
        voxel_ml = float(np.prod(self.labels.geometry.spacing_xyz)) / 1000
        return {name: round(float(counts[label]) * voxel_ml, 2) for label, name in names.items()}

    def facts(self, names: Mapping[int, str]) -> dict[str, Any]:
        """What report.json says of it; `names` as `volumes_ml` takes them."""
        geometry = self.labels.geometry
        return {
            "size": list(geometry.size_xyz),
            "spacing_mm": list(geometry.spacing_xyz),
            "windows_run": self.windows_run,
            "windows_total": self.windows_total,
            "volume_ml": self.volumes_ml(names),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Student:
    """A student ready to run.

    Attributes:
        predictor: Its network and card.
        windows: See `WindowSettings`.
        step: See `WindowSettings`.
        method: See `WindowSettings`.
    """

    predictor: Predictor
    windows: Windows
    step: float
    method: Method

    @classmethod
    def load(
        cls,
        model: Path,
        *,
        device: torch.device,
        runtime: Runtime = "auto",
        settings: WindowSettings | None = None,
    ) -> Student:
        """Read a model file and make its network ready.

        Args:
            model: Student model file.
            device: Where it runs.
            runtime: What runs it.
            settings: What to do otherwise than the model file says.

        Raises:
            InputError: If the file is no student.
            UsageError: If the runtime is not there.
        """
        loaded = predictor.load(model, "student", StudentUNet, device, runtime, head_apart=True)
        asked = settings or WindowSettings()
        own = loaded.card.looking
        return cls(loaded, asked.windows or own.windows, asked.step or own.step, asked.method)

    def prepare(self, volume: Volume) -> Prepared:
        """Bring a scan to the network's spacing and intensities; `volume` is not kept."""
        began = time.monotonic()
        reason = not_ct_reason(volume.array)
        tensor = self.predictor.network_input(volume)
        seconds = {"resample": round(time.monotonic() - began, 3)}
        return Prepared(tensor, volume.geometry, reason, seconds)

    def segment(
        self, scan: Prepared, on_window: Callable[[int, int], None] | None = None
    ) -> Segmentation:
        """Label a scan.

        Args:
            scan: What `prepare` made of it.
            on_window: Called with (windows done, windows in all).
        """
        card = self.predictor.card
        began = time.monotonic()
        stream = stream_logits(
            self.predictor.network,
            scan.tensor,
            card.patch,
            step=self.step,
            skip=skip_rules(self.windows, self.predictor.air),
            batch=windows_together(card.patch, self.predictor.device),
            head=self.predictor.head,
            on_window=on_window,
        )
        looking = _Stopwatch(stream.planes)
        labels = labels_from_planes(
            looking,
            scan.tensor.shape,
            scan.geometry.shape_zyx,
            self.method,
            self.predictor.head,
        )
        if card.label_ids != tuple(range(len(card.label_ids))):
            ids = np.asarray(card.label_ids, np.uint8)
            for plane in labels:  # picked by numbers, each voxel takes eight bytes more
                plane[:] = ids[plane]
        seconds = scan.seconds | {
            "network": round(looking.seconds, 3),
            "labels": round(time.monotonic() - began - looking.seconds, 3),
        }
        return Segmentation(
            LabelMap(labels, scan.geometry),
            stream.windows_run,
            stream.windows_total,
            seconds,
        )


def windows_together(patch_zyx: Sequence[int], device: torch.device) -> int:
    """Windows a forward pass, at most: on CPUs a batch takes as long as its windows one by one."""
    return 1 if device.type == "cpu" else max(1, LARGEST_BATCH // prod(patch_zyx))


class _Stopwatch:
    """Hands on what an iterator gives, and sums up the time it takes to.

    Attributes:
        seconds: So far.
    """

    def __init__(self, source: Iterable[torch.Tensor]) -> None:
        self._source = iter(source)
        self.seconds = 0.0

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        began = time.monotonic()
        try:
            return next(self._source)
        finally:
            self.seconds += time.monotonic() - began


def segment(
    image: str | Path | Volume | NDArray[np.generic],
    model: str | Path | Student,
    *,
    device: str = "auto",
    runtime: Runtime = "auto",
    spacing_zyx: tuple[float, float, float] | None = None,
) -> LabelMap:
    """Find organs and tumours in one scan: ``flarekd.segment("scan.nii.gz", "model.safetensors")``.

    What was mended in the scan, and that it does not look like CT, is told as a `UserWarning`.

    Args:
        image: A file or DICOM folder; a `Volume`; or an array (z, y, x) in HU whose x grows to the
            patient's left, y to the back and z upward.
        model: Student model file, or one that is loaded (``Student.load``) to use it again.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        runtime: ``auto``, ``torch``, ``openvino`` or ``onnx``.
        spacing_zyx: Millimetres a voxel; needed for an array, and for nothing else.

    Returns:
        uint8 ids of the model's labels in ``array`` (z, y, x), and the scan's ``geometry``.

    Raises:
        InputError: If scan or model cannot be used.
        UsageError: If device or runtime are not there.
    """
    if isinstance(model, Student):
        student = model
    else:
        where = predictor.device_for(Path(model), device)
        student = Student.load(Path(model), device=where, runtime=runtime)
    if isinstance(image, str | Path):
        volume = read_volume(Path(image))
    elif isinstance(image, Volume):
        volume = image
    else:
        volume = _volume(np.asarray(image), spacing_zyx)
    prepared = student.prepare(volume)
    for note in volume.notes:
        warnings.warn(str(note), stacklevel=2)
    if prepared.not_ct:
        warnings.warn(f"the scan {NOT_CT}: {prepared.not_ct}", stacklevel=2)
    return student.segment(prepared).labels


def _volume(array: NDArray[np.generic], spacing_zyx: tuple[float, float, float] | None) -> Volume:
    if array.ndim != 3 or spacing_zyx is None or min(spacing_zyx) <= 0:
        raise InputError(
            f"an array of {array.ndim} axes with spacing {spacing_zyx} is no scan",
            "give an array (z, y, x) and spacing_zyx in mm, or the file",
        )
    if not np.isfinite(array).all():
        raise InputError("the array holds NaN or infinity", "replace them (air is -1024 HU)")
    z, y, x = array.shape
    spacing = (spacing_zyx[2], spacing_zyx[1], spacing_zyx[0])
    return Volume(array, Geometry((x, y, z), spacing))
