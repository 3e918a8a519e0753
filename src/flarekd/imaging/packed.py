"""Two arrays packed into one file: blosc2 frames, one after the other, then a JSON line.

The line holds a key and the SHA-256 of the frames, so a file is known to be whole without being
unpacked. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.atomic import replacing
from flarekd.imaging.volume import Shape

MEND = "delete it: the next run makes it anew"

DAMAGE = (RuntimeError, ValueError, OSError, KeyError, AttributeError, TypeError, SyntaxError)
"""What blosc2 has been seen to raise on files with a bit turned; a SyntaxError for a torn dtype."""

# docs/benchmarks/training.md: LZ4HC unpacks as fast as LZ4 or faster and takes less room; zstd
# takes a fifth less still, but five times as long. Two threads a read are slower than one.
_IMAGE: dict[str, Any] = {
    "codec": blosc2.Codec.LZ4HC,
    "clevel": 3,
    "filters": [blosc2.Filter.SHUFFLE],
    "nthreads": 1,
}
_LABELS = _IMAGE | {"filters": [blosc2.Filter.NOFILTER]}

_FLAT_BLOCK, _DEEP_BLOCK = (1, 64, 128), (4, 32, 64)
"""Voxels unpacked at once, 16 KiB of image: what a crop touches and its rim, no more."""


@dataclass(frozen=True)
class Packed:
    """A mapped file.

    Attributes:
        frames: Bytes of image and labels.
        split: Where the labels begin.
        key: What the writer said it was made from.
        sha256: Of the frames when they were written.
    """

    frames: NDArray[np.uint8]
    split: int
    key: str
    sha256: str

    def is_whole(self) -> bool:
        """Whether the frames are those that were written."""
        return hashlib.sha256(self.frames.data).hexdigest() == self.sha256

    def arrays(self) -> tuple[Any, Any]:
        """Image and labels as blosc2 arrays that unpack what is sliced out of them.

        Raises:
            RuntimeError: If a frame is damaged; whatever else of ``DAMAGE`` blosc2 comes up with.
        """
        image, labels = self.frames[: self.split], self.frames[self.split :]
        return blosc2.ndarray_from_cframe(image), blosc2.ndarray_from_cframe(labels)


def write(
    path: Path,
    image: NDArray[np.int16],
    labels: NDArray[np.uint8],
    *,
    chunk_zyx: Shape,
    facts: dict[str, bytes],
    key: str,
) -> None:
    """Pack and write, whole or not at all.

    Args:
        path: The file.
        image: int16 (z, y, x).
        labels: uint8 (z, y, x).
        chunk_zyx: About the patch that is going to be read; one slice deep where that is flat.
        facts: Kept in the image's frame under their names.
        key: Not part of the SHA-256: the same content made from files of another date is the same.
    """
    block = _FLAT_BLOCK if chunk_zyx[0] == 1 else _DEEP_BLOCK
    packed = _pack(image, chunk_zyx, block, _IMAGE)
    for name, value in facts.items():
        packed.schunk.vlmeta[name] = value
    # labels pack to next to nothing: larger blocks are fewer to unpack
    label_block = tuple(size if size == 1 else 2 * size for size in block)
    frames = packed.to_cframe() + _pack(labels, chunk_zyx, label_block, _LABELS).to_cframe()
    tail = {"key": key, "sha256": hashlib.sha256(frames).hexdigest()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(frames)
        file.write(json.dumps(tail).encode())


def open_packed(path: Path) -> Packed:
    """Map a file, which costs no open file: a process may have fewer of them than cases.

    Raises:
        InputError: If it is not there, torn or another kind of file. Its frames are not checked.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such case in the store", "make the store again")
    size = path.stat().st_size
    if size:
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
        split = _frame_length(content)
        end = split + _frame_length(content[split:])
        if 0 < split < end < size:
            try:
                tail = json.loads(content[end:].tobytes())
                return Packed(content[:end], split, str(tail["key"]), str(tail["sha256"]))
            except DAMAGE:
                pass
    raise InputError(f"{path}: is torn or no stored case", MEND)


def _pack(array: NDArray[Any], chunk: Shape, block: tuple[int, ...], how: dict[str, Any]) -> Any:
    chunks = tuple(min(size, length) for size, length in zip(chunk, array.shape, strict=True))
    blocks = tuple(min(size, length) for size, length in zip(block, chunks, strict=True))
    return blosc2.asarray(np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=how)


def _frame_length(content: NDArray[np.uint8]) -> int:
    """What a blosc2 frame says its own length is; 0 where it is none."""
    head = content[:24].tobytes()
    # a frame begins with a msgpack string of 8 and says its length, big-endian, in bytes 16 to 24
    return int.from_bytes(head[16:24], "big") if head[2:9] == b"b2frame" else 0
