"""One file a case: two blosc2 frames, arrays of numbers, and a JSON text that says what is where.

The text ends the file, before the eight bytes of its length, and holds the SHA-256 of all before it
and of itself but for the key: a file is known to be whole without being unpacked, and the same
content made from files of another date is the same content. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from numpy.typing import NDArray

from flarekd import plain_json
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

_LENGTH = 8
"""Bytes of the text's length, little-endian."""


@dataclass(frozen=True)
class Packed:
    """A mapped file.

    Attributes:
        body: All bytes before the text.
        text: ``key`` and ``sha256``; ``lengths`` of image and labels; ``facts`` of the writer; and
            ``numbers``, name to type and packed length.
    """

    body: NDArray[np.uint8]
    text: dict[str, Any]

    def is_whole(self) -> bool:
        """Whether all is as it was written."""
        return bool(_digest(self.body.data, self.text) == self.text["sha256"])

    def arrays(self) -> tuple[Any, Any]:
        """Image and labels as blosc2 arrays that unpack what is sliced out of them.

        Raises:
            RuntimeError: If a frame is damaged; whatever else of ``DAMAGE`` blosc2 comes up with.
        """
        image, labels = self.text["lengths"]
        first, second = self.body[:image], self.body[image : image + labels]
        return blosc2.ndarray_from_cframe(first), blosc2.ndarray_from_cframe(second)

    def numbers(self, name: str) -> NDArray[Any]:
        """One of the arrays of numbers, 1D and read-only.

        Raises:
            RuntimeError: If it is damaged.
        """
        start = sum(self.text["lengths"])
        for other, (dtype, length) in self.text["numbers"].items():
            if other == name:
                packed = self.body[start : start + length]
                try:
                    return np.frombuffer(zlib.decompress(packed.data), dtype)
                except zlib.error as error:
                    message = f"{name} is damaged: {error}"
                    raise RuntimeError(message) from error
            start += length
        raise KeyError(name)


def write(
    path: Path,
    image: NDArray[np.int16],
    labels: NDArray[np.uint8],
    *,
    chunk_zyx: Shape,
    numbers: dict[str, NDArray[Any]],
    facts: dict[str, Any],
    key: str,
) -> None:
    """Pack and write, whole or not at all.

    Args:
        path: The file.
        image: int16 (z, y, x).
        labels: uint8 (z, y, x).
        chunk_zyx: About the patch that is going to be read; one slice deep where that is flat.
        numbers: Further arrays, 1D and little-endian.
        facts: JSON values.
        key: Not part of the SHA-256.
    """
    block = _FLAT_BLOCK if chunk_zyx[0] == 1 else _DEEP_BLOCK
    # labels pack to next to nothing: larger blocks are fewer to unpack
    label_block = tuple(size if size == 1 else 2 * size for size in block)
    frames = _pack(image, chunk_zyx, block, _IMAGE), _pack(labels, chunk_zyx, label_block, _LABELS)
    packed = {name: zlib.compress(values.tobytes(), 1) for name, values in numbers.items()}
    body = b"".join([*frames, *packed.values()])
    text: dict[str, Any] = {
        "key": key,
        "lengths": [len(frame) for frame in frames],
        "numbers": {name: [numbers[name].dtype.str, len(packed[name])] for name in numbers},
        "facts": facts,
    }
    end = json.dumps(text | {"sha256": _digest(body, text)}).encode()
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(body)
        file.write(end)
        file.write(len(end).to_bytes(_LENGTH, "little"))


def open_packed(path: Path) -> Packed:
    """Map a file, which costs no open file: a process may have fewer of them than cases.

    Raises:
        InputError: If it is not there, torn or another kind of file. Its body is not checked.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such case in the store", "make the store again")
    size = path.stat().st_size
    try:
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
        length = int.from_bytes(content[-_LENGTH:].tobytes(), "little")
        text = plain_json.parse(content[max(0, size - _LENGTH - length) : -_LENGTH].tobytes())
        body = content[: size - _LENGTH - length]
        lengths = [*text["lengths"], *(packed for _, packed in text["numbers"].values())]
        if sum(lengths) == body.size and {"key", "sha256", "facts"} <= text.keys():
            return Packed(body, text)
    except DAMAGE:
        pass
    raise InputError(f"{path}: is torn or no stored case", MEND)


def _digest(body: Any, text: dict[str, Any]) -> str:
    digest = hashlib.sha256(body)
    about = {name: text[name] for name in ("lengths", "numbers", "facts")}
    digest.update(json.dumps(about, sort_keys=True).encode())
    return digest.hexdigest()


def _pack(array: NDArray[Any], chunk: Shape, block: tuple[int, ...], how: dict[str, Any]) -> bytes:
    chunks = tuple(min(size, length) for size, length in zip(chunk, array.shape, strict=True))
    blocks = tuple(min(size, length) for size, length in zip(block, chunks, strict=True))
    packed = blosc2.asarray(np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=how)
    return bytes(packed.to_cframe())
