"""MetaImage and NRRD headers, checked line by line before ITK's own parsers see them.

Those copy what a header says into buffers of fixed size: a number of axes or a word that is long
enough ends the process, or does worse. They read whatever file a header names, and MetaIO never
comes back from some damaged zlib streams: compressed voxels are unpacked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.volume import Shape

MEND = "copy or export it again; a name ending in .mha or .nrrd must hold that format"

_LONGEST_LINE, _MOST_LINES = 1200, 400
_MOST_AXES = 7

_META_TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4",
    "LONG": "i4", "ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4",
    "DOUBLE": "f8",
}  # fmt: skip

_NRRD_TYPES = {
    name: dtype
    for dtype, names in {
        "i1": "signed char|int8|int8_t",
        "u1": "uchar|unsigned char|uint8|uint8_t",
        "i2": "short|short int|signed short|signed short int|int16|int16_t",
        "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
        "i4": "int|signed int|int32|int32_t",
        "u4": "uint|unsigned int|uint32|uint32_t",
        "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|"
        "int64_t",
        "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split("|")
}

_ZLIB, _GZIP = 15, 31
"""``wbits`` of a stream of each."""

_DAMAGED: tuple[type[Exception], ...] = (isal_zlib.error, ValueError, OverflowError, MemoryError)  # type: ignore[assignment]  # its stub calls the class an instance

_TEXT = r"[^\x00-\x08\x0a-\x1f\x7f]{0,1000}"
_COUNT = r"[0-9]{1,18}"
_NUMBER = r"[-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?"
_BOOLEAN = r"[A-Za-z]{1,5}|[01]"
_WORD = r"[-\w?]{1,60}"
_VECTOR = rf"(?:none|\( ?{_NUMBER}(?: ?, ?{_NUMBER}){{0,6}} ?\))"


def _list(item: str) -> str:
    return rf"{item}(?:\s+{item}){{0,49}}"


_META_KEY = re.compile(r"[^\x00-\x1f\x7f=:]{1,100}")
"""Also keys of the writer's own: ITK hands on those of the file that it read, ``dim[0]`` of a
NIfTI, ``0008|0060`` of a DICOM series. MetaIO takes a colon for an equals sign."""
_META = {
    key: re.compile(pattern)
    for pattern, keys in {
        _COUNT: "NDims CompressedDataSize ElementNumberOfChannels",
        r"-1|" + _COUNT: "HeaderSize",
        _list(_COUNT): "DimSize",
        _list(_NUMBER): "ElementSpacing ElementSize Offset Position Origin CenterOfRotation "
        "TransformMatrix Rotation Orientation ElementMin ElementMax Color SequenceID",
        _BOOLEAN: "BinaryData BinaryDataByteOrderMSB ElementByteOrderMSB CompressedData",
        rf"MET_(?:{'|'.join(_META_TYPES)})(?:_ARRAY)?": "ElementType",
        _WORD: "ObjectType ObjectSubType AnatomicalOrientation Modality DistanceUnits",
    }.items()
    for key in keys.split()
}
_ONE_A_AXIS = {"DimSize": 1, "ElementSpacing": 1, "ElementSize": 1, "Offset": 1, "Position": 1,
               "Origin": 1, "CenterOfRotation": 1, "TransformMatrix": 2, "Rotation": 2,
               "Orientation": 2}  # fmt: skip
"""How many numbers a key has: the number of axes to this power."""

_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")

_NRRD = {
    key: re.compile(pattern)
    for pattern, keys in {
        "|".join(_NRRD_TYPES): "type",
        r"[-A-Za-z0-9 ]{1,40}": "space",
        _COUNT: "dimension|space dimension|block size|blocksize",
        r"-1|" + _COUNT: "line skip|lineskip|byte skip|byteskip",
        _list(_COUNT): "sizes",
        _list(_VECTOR): "space directions|space origin|measurement frame",
        _list(rf"(?:{_NUMBER}|nan|NaN)"): "spacings|thicknesses|axis mins|axismins|axis maxs|"
        "axismaxs|min|max|old min|oldmin|old max|oldmax",
        _list(_WORD): "kinds|centers|centerings|encoding|endian",
        _TEXT: "content|number|sample units|sampleunits|units|space units|labels",
    }.items()
    for key in keys.split("|")
}


@dataclass(frozen=True)
class Packed:
    """Compressed voxels: where they begin, and what they are."""

    file: Path
    offset: int
    wbits: int
    dtype: np.dtype[Any]

    def unpack(self, path: Path, shape: Shape) -> NDArray[Any]:
        """The voxels (k, j, i) in native byte order, an array of one's own.

        Raises:
            InputError: If they are damaged, or not as many as `shape` says; it names `path`.
        """
        wanted = math.prod(shape) * self.dtype.itemsize
        stream = isal_zlib.decompressobj(wbits=self.wbits)
        try:
            # one more than wanted: a stream that goes on is noticed, and never unpacked whole
            content = stream.decompress(self.file.read_bytes()[self.offset :], wanted + 1)
        except _DAMAGED as error:
            raise InputError(f"{path}: voxels cannot be read: {error}", MEND) from error
        if len(content) != wanted or not stream.eof:
            what = f"{path}: voxels cannot be read: {len(content):,} of {wanted:,} bytes are whole"
            raise InputError(what, MEND)
        return (
            np.frombuffer(content, self.dtype).astype(self.dtype.newbyteorder("=")).reshape(shape)
        )


def check_nrrd(path: Path) -> Packed | None:
    """Refuse a header that ITK's parser should not see, and one whose voxels lie elsewhere.

    Returns:
        Its voxels where they are compressed by gzip; None leaves them to ITK.

    Raises:
        InputError: If a line is no field of the format as one writes it.
    """
    with path.open("rb") as file:
        if not re.match(r"NRRD000[1-6]$", _line(path, file)):
            raise InputError(f"{path}: is no NRRD file", MEND)
        fields: dict[str, str] = {}
        for _ in range(_MOST_LINES):
            line = _line(path, file)
            if not line:
                break
            if line.startswith("#"):
                continue
            key, separator, value = (part.strip() for part in line.partition(":"))
            if value.startswith("=") and re.fullmatch(_TEXT, line):
                continue  # a key of the writer's own: text
            key = key.lower()
            if key in {"data file", "datafile"}:
                raise elsewhere(path, repr(value))
            known = _NRRD.get(key)
            if not separator or key in fields or not known or not known.fullmatch(value):
                raise _odd(path, line)
            fields[key] = value
        else:
            raise InputError(f"{path}: header has more than {_MOST_LINES} lines", MEND)
        offset = file.tell()
    axes = int(fields.get("dimension", "0"))
    if not 0 < axes <= _MOST_AXES or len(fields.get("sizes", "").split()) != axes:
        raise InputError(f"{path}: is no NRRD file: {axes} axes, sizes of others", MEND)
    if fields.get("encoding") not in {"gzip", "gz"} or any("skip" in key for key in fields):
        return None
    order = ">" if fields.get("endian") == "big" else "<"
    dtype = _NRRD_TYPES.get(fields.get("type", ""))
    return Packed(path, offset, _GZIP, np.dtype(order + dtype)) if dtype else None


def check_meta(path: Path) -> Packed | None:
    """Refuse a header that MetaIO should not see, a torn file, and voxels that lie elsewhere.

    Returns:
        Its voxels where they are compressed; None leaves them to MetaIO.

    Raises:
        InputError: If a line is no field of the format as one writes it, or the file is torn.
    """
    fields, length = _meta_fields(path)
    if not {"NDims", "DimSize", "ElementType", "ElementDataFile"} <= fields.keys():
        raise InputError(f"{path}: is no MetaImage file", MEND)
    axes = int(fields["NDims"])
    for key, power in _ONE_A_AXIS.items():
        count = len(fields[key].split()) if key in fields else axes**power
        if not 0 < axes <= _MOST_AXES or count != axes**power:
            raise InputError(f"{path}: is no MetaImage file: {key} of {axes} axes", MEND)
    place = _voxels(path, fields, length)
    if not _is_packed(fields) or place is None:
        return None
    order = ">" if any(fields.get(key, "").lower() == "true" for key in _BIG_ENDIAN) else "<"
    return Packed(*place, _ZLIB, np.dtype(order + _meta_type(fields)))


def _voxels(path: Path, fields: Mapping[str, str], length: int) -> tuple[Path, int] | None:
    """The file of a MetaImage's voxels and where in it they begin; None for a file a slice."""
    source = fields["ElementDataFile"]
    if source.startswith("LIST"):
        raise elsewhere(path, "files that a list names")
    is_here = source.upper() == "LOCAL"
    if not is_here and not _is_beside(source):
        raise elsewhere(path, repr(source))
    if "%" in source:
        if _is_packed(fields):
            raise elsewhere(path, "several compressed files")
        return None
    voxels, before = (path, length) if is_here else (path.with_name(source), 0)
    if not voxels.is_file():
        what = f"{path}: its voxels should lie in {source!r}, which is not there"
        raise InputError(what, "put both files of the pair into one folder")
    expected, present = _meta_bytes(fields), voxels.stat().st_size - before
    if present < expected:
        raise InputError(f"{path}: the file is torn: {present:,} of {expected:,} bytes", MEND)
    return voxels, before


def elsewhere(path: Path, where: str) -> InputError:
    """The error of a header whose voxels lie where it must not send us."""
    what = f"{path}: its voxels lie in {where}"
    return InputError(what, "save header and voxels as one .mha or .nrrd, or as .nii.gz")


def _is_beside(name: str) -> bool:
    """Whether a name that a header gives is that of a file in the header's own folder."""
    return name not in {"", ".", ".."} and not set(name) & set("/\\:\0") and len(name) < 256


def _line(path: Path, file: IO[bytes]) -> str:
    line = file.readline(_LONGEST_LINE + 1).decode("latin-1")
    if len(line) > _LONGEST_LINE:
        raise _odd(path, line)
    return line.rstrip("\r\n")


def _odd(path: Path, line: str) -> InputError:
    return InputError(f"{path}: header cannot be read: {line[:60]!r}", MEND)


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """The ``key = value`` lines of a MetaImage header, and its length in bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while len(fields) < _MOST_LINES and (line := _line(path, file)):
            key, separator, value = (part.strip() for part in line.partition("="))
            known = _META.get(key, re.compile(_TEXT))
            if not separator and not fields:
                break  # another kind of file altogether
            is_sound = _META_KEY.fullmatch(key) and known.fullmatch(value) and key not in fields
            if not separator or not is_sound:
                raise _odd(path, line)
            fields[key] = value
            if key == "ElementDataFile":
                break
        return fields, file.tell()


def _is_packed(fields: Mapping[str, str]) -> bool:
    return fields.get("CompressedData", "")[:1] in {"T", "t", "1"}  # as MetaIO judges


def _meta_type(fields: Mapping[str, str]) -> str:
    return _META_TYPES[fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")]


def _meta_bytes(fields: Mapping[str, str]) -> int:
    """The bytes of voxels a MetaImage header promises, 0 where it does not say."""
    if _is_packed(fields):
        return int(fields.get("CompressedDataSize", "0"))
    width = np.dtype(_meta_type(fields)).itemsize
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    return math.prod(int(length) for length in fields["DimSize"].split()) * width * channels
