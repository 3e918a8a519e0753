"""The training store: one compressed file a case, cut into chunks about the size of a patch.

A case is made once at the network's spacing and then read in crops, by many threads, run after run.
Nothing in the file is ever unpickled: its metadata are JSON and plain bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.atomic import replacing
from flarekd.imaging.volume import Shape, Triple

SUFFIX = ".b2nd"
FORMAT = 1
"""Raised when older files can no longer be read."""

MOST_LOCATIONS = 10_000
LEAST_LOCATED = 0.01
LOCATION_SEED = 1234
"""Voxels kept of a class: up to 10,000 but at least 1 %, drawn with this seed (method.md §2)."""

_DAMAGE = (RuntimeError, ValueError, OSError, KeyError, AttributeError, TypeError, SyntaxError)
"""What blosc2 has been seen to raise on files with a bit turned; a SyntaxError for a torn dtype."""

_MEND = "delete it: the next run makes it anew"
# measured on a CT of 256×256×160: LZ4 reads twice as fast, but zstd's files are 22 % smaller
_COMPRESSION: dict[str, Any] = {
    "codec": blosc2.Codec.ZSTD,
    "clevel": 1,
    "filters": [blosc2.Filter.SHUFFLE],
    "nthreads": 1,
}


class StoredCase:
    """An open case. Any number of threads may read from it; its reads wait for one another.

    Attributes:
        case: The case's id.
        shape_zyx: Voxels.
        spacing_zyx: Millimetres a voxel.
        key: What the writer said it was made from.
        classes: Ids present, ascending, without background.
        sha256: Of the content, as it was when written.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`; raises InputError where it is no whole case."""
        self._array, meta = _open(path)
        self._meta = self._array.schunk.vlmeta
        self._lock = threading.Lock()
        self.case = path.name.removesuffix(SUFFIX)
        z, y, x = self._array.shape[1:]
        self.shape_zyx: Shape = (z, y, x)
        dz, dy, dx = meta["spacing_zyx"]
        self.spacing_zyx: Triple = (dz, dy, dx)
        self.key: str = meta["key"]
        self.classes: tuple[int, ...] = tuple(meta["classes"])
        self.sha256: str = self._meta["sha256"]

    def locations(self, class_id: int) -> NDArray[np.int64]:
        """Voxels of a class, int64 (n, 3) as z, y, x: all of a small one, a sample of a large.

        Args:
            class_id: One of ``classes``.

        Raises:
            ValueError: If the case has no voxel of the class.
        """
        if class_id not in self.classes:
            message = f"case {self.case!r} has no voxel of class {class_id}"
            raise ValueError(message)
        with self._lock:
            steps = np.frombuffer(self._meta[_location_name(class_id)], "<u4")
        flat = np.cumsum(steps, dtype=np.int64)
        return np.stack(np.unravel_index(flat, self.shape_zyx), axis=1)

    def read(self, slices: tuple[slice, slice, slice]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Read a crop.

        Args:
            slices: z, y, x, without steps.

        Returns:
            The image in HU, int16 (z, y, x), and the labels, uint8 (z, y, x).
        """
        with self._lock:
            both = self._array[(slice(None), *slices)]
        return both[0], both[1].astype(np.uint8)


def write_case(
    path: Path,
    image: NDArray[np.int16],
    labels: NDArray[np.uint8],
    *,
    spacing_zyx: Triple,
    chunk_zyx: Shape,
    key: str,
) -> None:
    """Write a case, whole or not at all.

    Args:
        path: ``<case>.b2nd``.
        image: HU rounded to int16 (z, y, x), at the network's spacing.
        labels: uint8 of the same shape.
        spacing_zyx: Millimetres a voxel.
        chunk_zyx: About the patch that is going to be read.
        key: Stands for all that the content depends on, such as a hash of inputs and settings.

    Raises:
        ValueError: If the shapes differ or a dtype is another.
    """
    if image.shape != labels.shape or image.ndim != 3:
        message = f"image is {image.shape}, labels {labels.shape} (z, y, x)"
        raise ValueError(message)
    if image.dtype != np.int16 or labels.dtype != np.uint8:
        message = f"image is {image.dtype}, labels {labels.dtype}, not int16 and uint8"
        raise ValueError(message)
    locations = _draw_locations(labels)
    chunks = (1, *(min(chunk, size) for chunk, size in zip(chunk_zyx, image.shape, strict=True)))
    meta = {
        "format": FORMAT,
        "case": path.name.removesuffix(SUFFIX),
        "spacing_zyx": [float(length) for length in spacing_zyx],
        "key": key,
        "classes": sorted(locations),
    }
    with replacing(path) as temporary:
        array = blosc2.empty(
            (2, *image.shape),
            dtype=np.int16,
            chunks=chunks,
            urlpath=str(temporary),
            mode="w",
            cparams=_COMPRESSION,
        )
        array[0] = image
        array[1] = labels.astype(np.int16)
        vlmeta = array.schunk.vlmeta
        vlmeta["meta"] = json.dumps(meta)
        for class_id, steps in locations.items():
            vlmeta[_location_name(class_id)] = steps.tobytes()
        vlmeta["sha256"] = _digest(array)


def open_case(path: Path) -> StoredCase:
    """Open a case for reading crops; its voxels are not checked (see ``verify``).

    Raises:
        InputError: If it is not there or no case of this format.
    """
    return StoredCase(path)


def is_current(path: Path, key: str) -> bool:
    """Whether a case is there, whole, undamaged and made with the same key."""
    try:
        _, meta = _open(path)
    except InputError:
        return False
    return bool(meta["key"] == key) and verify(path)


def verify(path: Path) -> bool:
    """Whether a case's file still holds what was written: its SHA-256, compressed as it lies."""
    try:
        array, _ = _open(path)
        return bool(array.schunk.vlmeta["sha256"] == _digest(array))
    except (InputError, *_DAMAGE):
        return False


def _open(path: Path) -> tuple[Any, dict[str, Any]]:
    """Open a file and its metadata; InputError whatever is wrong with it."""
    if not path.is_file():
        raise InputError(f"{path}: no such case in the store", "make the store again")
    if path.stat().st_size != _frame_length(path):
        raise InputError(f"{path}: is torn or no stored case", _MEND)
    try:
        array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
        meta = json.loads(array.schunk.vlmeta["meta"])
    except _DAMAGE as error:
        raise InputError(f"{path}: is damaged or no stored case: {error}", _MEND) from error
    if meta.get("format") != FORMAT or array.ndim != 4 or array.dtype != np.int16:
        raise InputError(f"{path}: is a stored case of another version", _MEND)
    return array, meta


def _frame_length(path: Path) -> int:
    """What a blosc2 file says its own length is; -1 where it is none."""
    with path.open("rb") as file:
        head = file.read(24)
    # a frame begins with a msgpack string of 8 and says its length, big-endian, in bytes 16 to 24
    if len(head) < 24 or head[2:9] != b"b2frame":
        return -1
    return int.from_bytes(head[16:24], "big")


def _digest(array: Any) -> str:
    """SHA-256 of metadata, locations and compressed chunks: ten times less to hash than voxels.

    Without the key: the same content made from files with another date is the same content.
    """
    schunk = array.schunk
    digest = hashlib.sha256(repr((array.shape, array.chunks)).encode())
    for name in sorted(name for name in _names(schunk.vlmeta) if name != "sha256"):
        value = schunk.vlmeta[name]
        if name == "meta":
            facts = json.loads(value)
            value = json.dumps({fact: facts[fact] for fact in sorted(facts) if fact != "key"})
        digest.update(name.encode())
        digest.update(value.encode() if isinstance(value, str) else value)
    for index in range(schunk.nchunks):
        digest.update(schunk.get_chunk(index))
    return digest.hexdigest()


def _names(vlmeta: Any) -> Iterator[str]:
    for name in vlmeta:
        yield name.decode() if isinstance(name, bytes) else name


def _location_name(class_id: int) -> str:
    return f"locations_{class_id}"


def _draw_locations(labels: NDArray[np.uint8]) -> dict[int, NDArray[np.uint32]]:
    """Voxels of each class as steps between ascending flat indices, which compress well."""
    if labels.size >= 2**32:
        message = f"labels are {labels.shape}: more voxels than a store's index counts"
        raise ValueError(message)
    generator = np.random.default_rng(LOCATION_SEED)
    foreground = np.flatnonzero(labels)
    ids = labels.ravel()[foreground]
    result: dict[int, NDArray[np.uint32]] = {}
    for class_id in np.unique(ids).tolist():
        flat = foreground[ids == class_id]
        count = max(min(MOST_LOCATIONS, flat.size), math.ceil(LEAST_LOCATED * flat.size))
        if count < flat.size:
            flat = np.sort(generator.choice(flat, count, replace=False))
        result[class_id] = np.diff(flat, prepend=0).astype("<u4")
    return result
