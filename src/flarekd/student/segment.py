"""A scan to its labels: what `infer` and `flarekd.segment` do with every scan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from flarekd.errors import UsageError
from flarekd.extents import count_ids
from flarekd.imaging.intensity import not_ct_reason
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.inference import predictor
from flarekd.inference.predictor import Predictor
from flarekd.inference.runtimes import Runtime
from flarekd.inference.slabs import Method, labels_from_planes
from flarekd.protocol import LEAST_STEP, Windows
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
        method: How logits become labels at native resolution: ``linear``, also where it is None,
            or ``nearest``.

    Raises:
        UsageError: If there is no such thing.
    """

    windows: Windows | None = None
    step: float | None = None
    method: Method | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("windows", self.windows, (None, *get_args(Windows))),
            ("method", self.method, (None, *get_args(Method))),
        ):
            if value not in known:
                choices = ", ".join(word for word in known if word)
                raise UsageError(f"{name} is {value!r}", f"use one of {choices}")
        if self.step is not None and not _is_step(self.step):
            raise UsageError(f"step is {self.step!r}", f"use a number from {LEAST_STEP} to 1")


def _is_step(value: Any) -> bool:
    """Whether it is a number, numpy's among them, that windows may be apart."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return bool(is_number and LEAST_STEP <= value <= 1)


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

    @property
    def names(self) -> dict[int, str]:
        """The names of the labels by id, background left out."""
        return self.predictor.card.names

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
        own = loaded.card.looking
        student = cls(loaded, own.windows, own.step, "linear")
        return student.told(settings) if settings else student

    def told(self, settings: WindowSettings) -> Student:
        """The same network, which looks at scans otherwise."""
        return replace(
            self,
            windows=settings.windows or self.windows,
            step=settings.step or self.step,
            method=settings.method or self.method,
        )

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
            skip=skip_rules(self.windows, self.predictor.air, card.labels),
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
