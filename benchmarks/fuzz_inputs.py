"""The inputs of ``fuzz.py``: sound small files of every reader, and how they are mutated."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fuzz_models as models
from flarekd import config
from flarekd.cohort import read_cohort, read_traits
from flarekd.groups_file import read_rules
from flarekd.imaging.files import read_grid, read_labels, read_volume, write_volume
from flarekd.imaging.nifti_header import _layout
from flarekd.imaging.volume import Geometry, Volume

NUMBERS: tuple[bytes, ...] = (
    b"\0", b"\x7f", b"\x80", b"\xff",
    *(struct.pack(f"<{kind}", value)
      for kind, bits in (("h", 15), ("i", 31), ("q", 63))
      for value in (0, 1, -1, 2**bits - 1, -(2**bits), 2 ** (bits - 1))),
    *(struct.pack(f"<{kind}", value)
      for kind in "fd"
      for value in (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-38, -1e38, 3.4e38)),
)  # fmt: skip

WORDS: tuple[bytes, ...] = tuple(
    word.encode()
    for word in (
        "", "0", "-1", "1", "2", "99999", "2147483648", "-9223372036854775809", "1e999", "-1e-999",
        "nan", "inf", "-inf", "0x1F", "1_0", "0b_", "1:2:3", "2020-99-99", "null", "true", "~", "'",
        '"', "{", "}", "[", "]", "[[[[[[[[", "{}", "[]", "&a", "*a", "<<", "!!int", "!x", "|", ">",
        "?", ":", ": ", "- ", ",", ";", "\t", "\n", "\r", "\\", "\\u0000", "\\ud800", "../x", "/",
        "/dev/stdin", "a/b", "%d", "LIST", "LOCAL", "raw", "gzip", "bzip2", "hex", "ascii", "float",
        "block", "é", "\u2028", "9" * 400, "x" * 5000,
    )
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 16, 255, 4097, 10**9, -(10**20), 0.5, -0.5, 1e-9, 1e-320,
    1e308, math.nan, math.inf, -math.inf, "", "0", "1", "abc", "full", "é\x1b[2J\u202e", "x" * 300,
    [], {}, [1], [[]], ["a", {}], {"a": 1}, [2] * 500, [[1, 2, 2]] * 20, [0.05, 0.05, 0.05], "LPS",
)  # fmt: skip

TOKEN = re.compile(rb"[A-Za-z_]+|[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|[^\sA-Za-z0-9]")

Pack = Callable[[bytes, bytes], bytes]


@dataclass(frozen=True)
class Sample:
    """A sound file in two parts: what says what is in it, and that."""

    head: bytes
    body: bytes = b""
    pack: Pack = lambda head, body: head + body


@dataclass(frozen=True)
class Reader:
    """A reader under test: the functions that take its files, and sound ones to mutate."""

    suffix: str
    functions: Sequence[Callable[[Path], Any]]
    samples: Callable[[Path], list[Sample]]
    is_text: bool = False


def mutate(sample: Sample, rng: random.Random, *, is_text: bool) -> bytes:
    """One to four changes of a sample, most of them in its head."""
    head, body = sample.head, sample.body
    changes = rng.choice((1, 1, 1, 2, 2, 3, 4))
    after = rng.random() < 0.15  # of the packed file, where that is another
    for _ in range(0 if after else changes):
        if body and rng.random() < 0.2:
            body = _change(body, rng, is_text=False)
        else:
            head = _change(head, rng, is_text=is_text)
    packed = sample.pack(head, body)
    for _ in range(changes if after else 0):
        packed = _change(packed, rng, is_text=False)
    return packed


def _change_values(text: str, rng: random.Random) -> str:
    """Another value, one fewer or one more in JSON, or in JSON that stands in it as text."""
    whole = [json.loads(text)]
    places: list[tuple[Any, Any]] = [(whole, 0)]
    for holder, key in places:  # which grows
        value = holder[key]
        if isinstance(value, dict | list):
            keys = list(value) if isinstance(value, dict) else range(len(value))
            places += [(value, one) for one in keys]
    holder, key = rng.choice(places)
    value, other = holder[key], rng.choice(VALUES)
    if isinstance(value, str) and value.startswith("{"):
        holder[key] = _change_values(value, rng)
    elif isinstance(value, list) and rng.random() < 0.3:
        value.append(other)
    elif rng.random() < 0.1 and len(holder) > 1:
        del holder[key]
    else:
        holder[key] = value * other if _are_numbers(value, other) else other
    return json.dumps(whole[0])


def _are_numbers(*values: Any) -> bool:
    return all(type(value) in {int, float} for value in values)


def _change(content: bytes, rng: random.Random, *, is_text: bool) -> bytes:
    if is_text and content.startswith(b"{") and rng.random() < 0.7:
        try:
            return _change_values(content.decode(), rng).encode()
        except (ValueError, RecursionError):
            pass  # an earlier change left no JSON
    if is_text and rng.random() < 0.6 and (tokens := list(TOKEN.finditer(content))):
        token = rng.choice(tokens)
        return content[: token.start()] + rng.choice(WORDS) + content[token.end() :]
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + rng.choice((1, 1, 2, 4, 8, 40, 300)))
    number = rng.choice(NUMBERS)
    aligned, byte = at - at % len(number), content[at : at + 1]
    put = {
        "tear": (at, len(content), b""),
        "cut": (at, end, b""),
        "double": (at, at, content[at:end] * rng.choice((1, 2, 50))),
        "turn a bit": (at, at + 1, bytes(one ^ 1 << rng.randrange(8) for one in byte)),
        "number": (aligned, aligned + len(number), number),
        "noise": (at, end, rng.randbytes(end - at)),
        "word": (at, at, rng.choice(WORDS)),
    }  # fmt: skip
    start, stop, new = put[rng.choice(list(put))]
    return content[:start] + new + content[stop:]


def make(name: str, seed: int, index: int) -> bytes:
    """The input of a number: the same in every process."""
    rng = random.Random(f"{seed} {name} {index}")
    return mutate(rng.choice(samples(name)), rng, is_text=READERS[name].is_text)


def _geometry(size: tuple[int, int, int]) -> Geometry:
    turn = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
    return Geometry(size, (0.8, 0.9, 2.5), (-31.0, 12.0, 101.0), turn)


def _written(folder: Path, suffix: str) -> bytes:
    path = folder / f"sound{suffix}"
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5) % 15
    write_volume(path, Volume(array, _geometry((5, 4, 3))))
    return path.read_bytes()


def _nifti(folder: Path) -> list[Sample]:
    plain = _written(folder, ".nii")
    head, body = plain[:352], plain[352:]
    return [
        Sample(head, body),
        Sample(head, body, lambda first, rest: gzip.compress(first + rest, 1, mtime=0)),
        Sample(_nifti2(head), body),
    ]


def _nifti2(head: bytes) -> bytes:
    """The same header as NIfTI-2."""
    old = np.frombuffer(head[:348], _layout(348, "<"))[0]
    new = np.zeros(1, _layout(540, "<"))
    for name in new.dtype.names or ():
        new[0][name] = old[name]
    new[0]["sizeof_hdr"], new[0]["vox_offset"], new[0]["magic"] = 540, 544, b"n+2"
    return new.tobytes() + bytes(4)


def _split(content: bytes, mark: bytes) -> Sample:
    end = content.index(mark) + len(mark)
    return Sample(content[:end], content[end:])


def _nrrd(folder: Path) -> list[Sample]:
    packed = _split(_written(folder, ".nrrd"), b"\n\n")
    raw = packed.head.replace(b"encoding: gzip", b"encoding: raw")
    return [packed, Sample(raw, gzip.decompress(packed.body))]


def _mha(folder: Path) -> list[Sample]:
    mark = b"ElementDataFile = LOCAL\n"
    packed = _split(_written(folder, ".mha"), mark)
    lines = [line for line in packed.head.splitlines(True) if b"CompressedDataSize" not in line]
    raw = b"".join(lines).replace(b"CompressedData = True", b"CompressedData = False")
    return [packed, Sample(raw, np.arange(60, dtype=np.int16).tobytes())]


def _cohort(_folder: Path) -> list[Sample]:
    text = (
        "case,split,group,annotated,image,label,organ_pseudo,size,spacing,note\n"
        "a_1,train,4,1 2 3 4 13 14,imagesTr/a_1.nii.gz,labelsTr/a_1.nii.gz,,5 4 3,0.8 0.9 2.5,x\n"
        'b_2,val,,,imagesTr/b_2.nii.gz,,organs/b_2.nii.gz,"5 4 3","1 1 2","two, words"\n'
    )
    edited = "\ufeff" + text.replace(",", ";").replace("4;1 2", "4.0;1 2").replace("\n", "\r\n")
    return [Sample(text.encode()), Sample(edited.encode())]


def _config(_folder: Path) -> list[Sample]:
    whole = config.dump(config.load(config.builtin("flare23"))).encode()
    short = (
        b"base: quick\nseed: 3\nteacher: &t {epochs: 5, patch: [1, 48, 64]}\n"
        b"data: {images: a, out: b}\n"
    )
    return [Sample(short), Sample(short), Sample(whole)]


def _groups(_folder: Path) -> list[Sample]:
    text = (
        b"groups:\n  8: [liver, 14]\n  9: &nine [2, spleen]\n"
        b"datasets:\n- {cases: 'kits_*', ids: kits23}\n"
        b"- cases: own_*\n  ids: {1: liver, 2: kidneys}\n  annotated: *nine\n"
        b"  organ_pseudo: {0: background, 5: pancreas}\n"
    )
    return [Sample(text)]


def _of(
    make: Callable[[Path], list[tuple[bytes, bytes]]], pack: Pack = lambda head, body: head + body
) -> Callable[[Path], list[Sample]]:
    return lambda folder: [Sample(head, body, pack) for head, body in make(folder)]


def _traits(path: Path) -> object:
    return read_traits(path, ("group", "phase"))


_SCANS = (read_grid, read_volume, read_labels)

READERS = {
    "nifti": Reader(".nii.gz", _SCANS, _nifti),
    "nrrd": Reader(".nrrd", _SCANS, _nrrd, is_text=True),
    "mha": Reader(".mha", _SCANS, _mha, is_text=True),
    "cohort": Reader(".csv", (read_cohort, _traits), _cohort, is_text=True),
    "config": Reader(".yaml", (config.load,), _config, is_text=True),
    "groups": Reader(".yaml", (read_rules,), _groups, is_text=True),
    "model": Reader(
        ".safetensors", (models.read_model,), _of(models.model, models.with_length), is_text=True
    ),
    "card": Reader(".card", (models.read_card,), _of(models.card), is_text=True),
    "onnx": Reader(".onnx", (partial(models.read_graph, runtime="onnx"),), _of(models.graph)),
    "openvino": Reader(
        ".onnx", (partial(models.read_graph, runtime="openvino"),), _of(models.graph)
    ),
    "plans": Reader(".json", (models.read_plans_json,), _of(models.plans_json), is_text=True),
    "pickle": Reader(".pkl", (models.read_plans_pickle,), _of(models.plans_pickle)),
    "weights": Reader(".pth", (models.read_checkpoint,), _of(models.checkpoint)),
    "dataset": Reader(".json", (models.read_dataset_json,), _of(models.dataset_json), is_text=True),
}


@cache
def samples(name: str) -> list[Sample]:
    """The sound files of a reader."""
    with tempfile.TemporaryDirectory(prefix="flarekd-fuzz-") as folder:
        return READERS[name].samples(Path(folder))
