"""The training store: one compressed file a case, read in crops, by many threads, run after run.

Beside its voxels a file holds what was counted of them when it was written, so that nothing is
learned of a cohort by reading it a second time.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging import census
from flarekd.imaging.intensity import Histogram, foreground_sample
from flarekd.imaging.packed import DAMAGE, MEND, Packed, open_packed, write
from flarekd.imaging.volume import Geometry, Shape, Triple
from flarekd.labels import IGNORE, TUMOR

SUFFIX = ".b2nd"
FORMAT = 2
"""Raised when older files can no longer be read."""


class StoredCase:
    """An open case. Any number of threads may read from it; its reads wait for one another.

    Attributes:
        case: The case's id.
        shape_zyx: Voxels.
        spacing_zyx: Millimetres a voxel.
        own_shape_zyx: Voxels of the scan it was made from.
        own_spacing_zyx: Millimetres a voxel of that scan.
        key: What the writer said it was made from.
        voxels: Id to number of voxels, ascending, without background.
        ignored: Voxels of `IGNORE`, of which nothing is learned.
        lesions_mm3: Volume of each lesion.
        sha256: Of the content, as it was when written.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`; raises InputError where it is no whole case."""
        self._packed = open_packed(path)
        self._path, self._bytes = path, path.stat().st_size
        self._image, self._labels = _open(path, self._packed)
        self._lock = threading.Lock()
        facts = self._packed.text["facts"]
        self.case = path.name.removesuffix(SUFFIX)
        self.shape_zyx: Shape = _three(self._image.shape)
        self.spacing_zyx: Triple = _three(facts["spacing_zyx"])
        self.own_shape_zyx: Shape = _three(facts["own_shape_zyx"])
        self.own_spacing_zyx: Triple = _three(facts["own_spacing_zyx"])
        ids, counts = self._numbers("classes"), self._numbers("class_counts")
        self.voxels: dict[int, int] = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        self.ignored: int = facts.get("ignored", 0)
        self.key: str = self._packed.text["key"]
        self.sha256: str = self._packed.text["sha256"]
        self._lesion_counts = self._numbers("lesion_counts")
        voxel_mm3 = float(np.prod(self.spacing_zyx))
        self.lesions_mm3: tuple[float, ...] = tuple((self._lesion_counts * voxel_mm3).tolist())

    @property
    def classes(self) -> tuple[int, ...]:
        """Ids present, ascending, without background."""
        return tuple(self.voxels)

    def locations(self, class_id: int) -> NDArray[np.int64]:
        """Voxels of a class, int64 (n, 3) as z, y, x: all of a small one, a sample of a large.

        Args:
            class_id: One of ``classes``.

        Raises:
            ValueError: If the case has no voxel of the class.
        """
        if class_id not in self.voxels:
            message = f"case {self.case!r} has no voxel of class {class_id}"
            raise ValueError(message)
        steps = self._numbers(_location_name(class_id))
        return self._places(np.cumsum(steps, dtype=np.int64))

    def lesion_voxels(self, lesion: int) -> NDArray[np.int64]:
        """Voxels of a lesion, int64 (n, 3) as z, y, x: all of a small one, a sample of a large.

        Args:
            lesion: Index into ``lesions_mm3``.
        """
        kept = [census.kept_count(count) for count in self._lesion_counts[: lesion + 1].tolist()]
        last = sum(kept)
        return self._places(self._numbers("lesion_voxels")[last - kept[-1] : last])

    def intensities(self) -> Histogram:
        """Every tenth foreground voxel (``foreground_sample``), counted when it was written."""
        counts = self._numbers("intensity_counts").astype(np.int64)
        return Histogram(self._numbers("intensity"), counts)

    def read(
        self, slices: tuple[slice, slice, slice]
    ) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Read a crop.

        Args:
            slices: z, y, x, without steps.

        Returns:
            The image in HU, int16 (z, y, x), and the labels, uint8 (z, y, x), new arrays.

        Raises:
            InputError: If the file is not what it was when it was opened.
            RuntimeError: If a chunk is damaged.
        """
        self._check_file()
        with self._lock:
            return self._image[slices], self._labels[slices]

    def _numbers(self, name: str) -> NDArray[Any]:
        self._check_file()
        return self._packed.numbers(name)

    def _check_file(self) -> None:
        # to touch a mapped file that was cut short ends the process without a word
        if not self._path.exists() or self._path.stat().st_size != self._bytes:
            raise InputError(f"{self._path}: was changed or removed while it was read", MEND)

    def _places(self, flat: NDArray[Any]) -> NDArray[np.int64]:
        return np.stack(np.unravel_index(flat, self.shape_zyx), axis=1)


def write_case(
    path: Path,
    image: NDArray[np.int16],
    labels: NDArray[np.uint8],
    *,
    spacing_zyx: Triple,
    chunk_zyx: Shape,
    key: str,
    lesion_class: int = TUMOR,
    own: Geometry | None = None,
) -> None:
    """Write a case and what is counted of it, whole or not at all.

    Args:
        path: ``<case>.b2nd``.
        image: HU rounded to int16 (z, y, x), at the network's spacing.
        labels: uint8 of the same shape.
        spacing_zyx: Millimetres a voxel.
        chunk_zyx: About the patch that is going to be read; one slice deep where that is flat.
        key: Stands for all that the content depends on, such as a hash of inputs and settings.
        lesion_class: Id whose connected components are the lesions.
        own: Grid of the scan that it was made from; where left out, that of the arrays.

    Raises:
        ValueError: If the shapes differ or a dtype is another.
    """
    if image.shape != labels.shape or image.ndim != 3:
        message = f"image is {image.shape}, labels {labels.shape} (z, y, x)"
        raise ValueError(message)
    if image.dtype != np.int16 or labels.dtype != np.uint8:
        message = f"image is {image.dtype}, labels {labels.dtype}, not int16 and uint8"
        raise ValueError(message)
    facts = {
        "format": FORMAT,
        "spacing_zyx": [float(length) for length in spacing_zyx],
        "own_shape_zyx": own.shape_zyx if own else image.shape,
        "own_spacing_zyx": own.spacing_zyx if own else spacing_zyx,
    }
    ignored = int(np.count_nonzero(labels == IGNORE))
    if ignored:  # a case without any is the same bytes as before there was such a thing
        facts["ignored"] = ignored
    numbers = _count(image, labels, lesion_class)
    write(path, image, labels, chunk_zyx=chunk_zyx, numbers=numbers, facts=facts, key=key)


def open_case(path: Path) -> StoredCase:
    """Open a case for reading crops; its voxels are not checked (see ``verify``).

    Raises:
        InputError: If it is not there or no case of this format.
    """
    return StoredCase(path)


def is_current(path: Path, key: str) -> bool:
    """Whether a case is there, whole, undamaged and made with the same key."""
    try:
        packed = open_packed(path)
        return packed.text["key"] == key and packed.is_whole() and bool(_open(path, packed))
    except InputError:
        return False


def verify(path: Path) -> bool:
    """Whether a case's file still holds what was written: its SHA-256, compressed as it lies."""
    try:
        return open_packed(path).is_whole()
    except InputError:
        return False


def _open(path: Path, packed: Packed) -> tuple[Any, Any]:
    """Image and labels; InputError whatever is wrong with them."""
    if packed.text["facts"].get("format") != FORMAT:
        raise InputError(f"{path}: is a stored case of another version", MEND)
    try:
        return packed.arrays()
    except DAMAGE as error:
        raise InputError(f"{path}: is damaged or no stored case: {error}", MEND) from error


def _count(
    image: NDArray[np.int16], labels: NDArray[np.uint8], lesion_class: int
) -> dict[str, NDArray[Any]]:
    """What is counted of a case, by name, little-endian."""
    classes = census.count_classes(labels)
    lesions = census.find_lesions(labels == lesion_class)
    intensity = Histogram.of(foreground_sample(image, labels))
    numbers: dict[str, NDArray[Any]] = {
        "classes": np.asarray(list(classes), "u1"),
        "class_counts": np.asarray([found.count for found in classes.values()], "<u4"),
        "lesion_counts": lesions.counts.astype("<u4"),
        "lesion_voxels": lesions.kept.astype("<u4"),
        "intensity": intensity.values.astype("<i2"),
        "intensity_counts": intensity.counts.astype("<u4"),
    }
    for class_id, found in classes.items():
        # steps between ascending indices, which compress well
        steps = np.diff(found.kept, prepend=np.uint32(0))
        numbers[_location_name(class_id)] = steps.astype("<u4")
    return numbers


def _three(values: Any) -> tuple[Any, Any, Any]:
    z, y, x = values
    return z, y, x


def _location_name(class_id: int) -> str:
    return f"locations_{class_id}"
