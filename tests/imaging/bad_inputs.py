"""Every kind of bad input, as a real file made on the spot, with the outcome that is decided.

``docs/inputs.md`` has the same rows; ``tests/stages/test_check.py`` compares.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flarekd.imaging.nifti_header import _CODES, _layout

SIZE = (20, 18, 12)  # i, j, k
SPACING = (0.8, 0.9, 2.5)
TURN = np.radians(9)
ROTATION = np.array(
    [[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1.0]]
)
ORIGIN = np.array([-31.0, 12.0, 101.0])


@dataclass(frozen=True)
class Bad:
    """One kind of input.

    Attributes:
        name: Its row in docs/inputs.md.
        outcome: What becomes of it, as `check` says.
        said: Regular expression that the finding matches; empty where nothing is found.
        make: Writes it into a folder; returns what to give to `check`.
        kind: A scan, a label map alone, or a label map with its scan.
        reads: What the reader makes of it, where that is not `outcome`.
        holds: The voxels (k, j, i) that are read, None to leave them alone.
        repaired: Whether --fix writes a copy.
    """

    name: str
    outcome: Literal["refused", "doubtful", "mended", "fine"]
    said: str
    make: Callable[[Path], Path]
    kind: Literal["scan", "labels", "pair"] = "scan"
    reads: str = ""
    holds: Callable[[], Any] | None = None
    repaired: bool = False


def ct(shape=SIZE[::-1], noise=9):
    """A block of tissue and fat in air, (k, j, i), HU."""
    hu = np.full(shape, -1000, np.int16)
    hu[:, 3:-3, 3:-3] = -100
    hu[:, 5:-5, 5:-5] = 40
    hu += np.random.default_rng(0).integers(-noise, noise + 1, shape).astype(np.int16)
    return hu


def organs():
    """Ids 0 to 14, (k, j, i)."""
    ids = np.zeros(SIZE[::-1], np.uint8)
    for label in range(15):
        ids[2:4, 3, 2 + label] = label
    return ids


def srow(rotation=ROTATION, spacing=SPACING, origin=ORIGIN):
    return np.column_stack([rotation * spacing, origin])


def nifti(name, array=None, version=348, **fields):
    """Something that writes a NIfTI file; keywords replace fields of a sound header."""

    def make(folder):
        voxels = ct() if array is None else array()
        size = voxels.shape[::-1]
        header = np.zeros(1, _layout(version, "<"))
        values = {
            "sizeof_hdr": version,
            "dim": [len(size), *size, *[1] * (7 - len(size))],
            "datatype": _CODES[voxels.dtype],
            "bitpix": voxels.dtype.itemsize * 8,
            "pixdim": [1, *SPACING, 1, 1, 1, 1],
            "vox_offset": version + 4,
            "scl_slope": 1,
            "xyzt_units": 2,
            "qform_code": 1,
            "sform_code": 1,
            "quatern": [0, 0, np.sin(TURN / 2)],
            "qoffset": ORIGIN,
            "srow": srow(),
            "magic": b"n+1" if version == 348 else b"n+2",
        } | fields
        for key, value in values.items():
            header[0][key] = value
        content = header.tobytes() + b"\0" * 4 + voxels.tobytes()
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
        return path

    return make


def changed(change, name="a.nii.gz"):
    """A sound file whose bytes are changed afterwards."""

    def make(folder):
        path = nifti(name)(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def labelled(array, **fields):
    """A label map beside its scan."""

    def make(folder):
        nifti("images/a_0000.nii.gz")(folder)
        return nifti("labels/a.nii.gz", array, **fields)(folder)

    return make


def edited(hu, *edits):
    """Voxels with some of them replaced."""

    def array():
        voxels = hu().astype(np.float32)
        for where, value in edits:
            voxels[where] = value
        return voxels

    return array


def giant(folder):
    """512×512×1500, one gzip member a slice: small on the disk, as large as any in memory.

    Its axes are LPS, so that nothing has to be turned.
    """
    dim = [3, 512, 512, 1500, 1, 1, 1, 1]
    axes = srow(rotation=np.diag([-1.0, -1.0, 1.0]))
    make = nifti("a.nii.gz", lambda: ct((1, 512, 512), noise=0), dim=dim, srow=axes, qform_code=0)
    path = make(folder)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:352]) + gzip.compress(content[352:], 1) * 1500)
    return path


def shifted(mm):
    origin = ORIGIN + np.array([mm, 0, 0])
    return labelled(organs, srow=srow(origin=origin), qoffset=origin)


def stretched(mm):
    spacing = np.array(SPACING) + np.array([0, 0, mm])
    return labelled(organs, srow=srow(spacing=spacing), pixdim=[1, *spacing, 1, 1, 1, 1])


def shear(degrees):
    sheared = ROTATION.copy()
    sheared[:, 2] += np.tan(np.radians(degrees)) * sheared[:, 1]
    return sheared / np.linalg.norm(sheared, axis=0)


def only_qform(**fields):
    return {"sform_code": 0} | fields


def pixdim(mm):
    return [1, SPACING[0], SPACING[1], mm, 1, 1, 1, 1]


RIM = (slice(None), 0)
MIDDLE = (6, 9, 10)
MIRROR = np.diag([-1.0, 1, 1])
PADDED = {hu: edited(ct, (RIM, hu)) for hu in (-2048, -3024)}

FILES = [
    Bad("truncated gzip", "refused", "torn", changed(lambda data: data[: len(data) // 2])),
    Bad(
        "gzip with a wrong checksum",
        "refused",
        "torn",
        changed(lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]),
    ),
    Bad("0 bytes", "refused", "the file is empty", changed(lambda _: b"")),
    Bad("wrong magic", "refused", "is no NIfTI file", nifti("a.nii", magic=b"xyz")),
    Bad("NIfTI-2", "fine", "", nifti("a.nii.gz", version=540), holds=ct),
    Bad(
        "4D with one volume",
        "mended",
        "20×18×12×1 voxels · axes of length 1 are dropped",
        nifti("a.nii.gz", dim=[4, *SIZE, 1, 1, 1, 1]),
        holds=ct,
        repaired=True,
    ),
    Bad(
        "4D with several volumes",
        "refused",
        "holds 2 volumes",
        nifti("a.nii.gz", lambda: np.stack([ct(), ct()])),
    ),
    Bad("2D", "refused", "2D; a scan is 3D", nifti("a.nii.gz", lambda: ct()[0])),
    Bad("RGB", "refused", "voxels are RGB", nifti("a.nii.gz", datatype=128, bitpix=24)),
]

VALUES = [
    Bad(
        "NaN or infinity at the border only",
        "refused",
        "216 of 4,320 voxels are NaN or infinite",
        nifti("a.nii.gz", edited(ct, ((slice(None), 0, slice(18)), np.nan))),
        repaired=True,
    ),
    Bad(
        "NaN or infinity inside",
        "refused",
        "1 of 4,320 voxels are NaN or infinite · replace them",
        nifti("a.nii.gz", edited(ct, (MIDDLE, np.inf))),
    ),
    Bad(
        "constant volume",
        "doubtful",
        "every voxel is 7",
        nifti("a.nii.gz", lambda: np.full(SIZE[::-1], 7, np.int16)),
        reads="fine",
    ),
    Bad("scl_slope 0", "fine", "", nifti("a.nii.gz", scl_slope=0), holds=ct),
    Bad(
        "scl_slope 0 with an offset",
        "doubtful",
        "scale factor 0, offset -1024 · voxels are taken as stored",
        nifti("a.nii.gz", scl_slope=0, scl_inter=-1024),
        holds=ct,
    ),
    Bad(
        "scl_slope NaN",
        "mended",
        "scale factor nan, offset 0",
        nifti("a.nii.gz", scl_slope=np.nan),
        holds=ct,
        repaired=True,
    ),
    Bad(
        "uint8 with a scale",
        "fine",
        "",
        nifti(
            "a.nii.gz", lambda: ((ct() + 1024) // 8).astype(np.uint8), scl_slope=8, scl_inter=-1024
        ),
        holds=lambda: (ct() + 1024) // 8 * 8 - 1024,
    ),
    Bad(
        "int16 that overflows when scaled",
        "fine",
        "",
        nifti("a.nii.gz", lambda: edited(ct, (MIDDLE, 32767))().astype(np.int16), scl_slope=2),
        holds=lambda: 2 * edited(ct, (MIDDLE, 32767))(),
    ),
    Bad(
        "uint16 with offset",
        "fine",
        "",
        nifti("a.nii.gz", lambda: (ct() + 1024).astype(np.uint16), scl_inter=-1024),
        holds=ct,
    ),
    *(
        Bad(f"padding {hu}", "fine", "", nifti("a.nii.gz", PADDED[hu]), holds=PADDED[hu])
        for hu in PADDED
    ),
    Bad(
        "values 0 to 255",
        "doubtful",
        "a picture of 0 to 255",
        nifti("a.nii.gz", lambda: (ct() + 1024).clip(0, 255).astype(np.uint8)),
        reads="fine",
    ),
    Bad(
        "MR",
        "doubtful",
        "an MR, it seems",
        nifti("a.nii.gz", lambda: np.abs(ct() % 700)),
        reads="fine",
    ),
]

GRIDS = [
    *(
        Bad(
            f"spacing {mm}, qform only",
            "refused",
            "spacing is",
            nifti("a.nii.gz", **only_qform(pixdim=pixdim(mm))),
        )
        for mm in (0.0, -1.0, np.nan)
    ),
    *(
        Bad(
            f"spacing {mm}, a sound sform",
            "mended",
            "sform 0.8×0.9×2.5 mm · the sform's is taken",
            nifti("a.nii.gz", pixdim=pixdim(mm)),
            holds=ct,
            repaired=True,
        )
        for mm in (0.0, -1.0, np.nan)
    ),
    Bad(
        "pixdim ≠ steps of the sform",
        "doubtful",
        r"pixdim says 0\.8×0\.9×3 mm \(x, y, z\), sform 0\.8×0\.9×2\.5 mm",
        nifti("a.nii.gz", pixdim=pixdim(3.0)),
    ),
    Bad(
        "spacing 100 mm, 1.2 m in all",
        "doubtful",
        "spacing is 0.8×0.9×100 mm",
        nifti("a.nii.gz", **only_qform(pixdim=pixdim(100.0))),
        holds=ct,
    ),
    Bad(
        "spacing 100 mm, more than 4 m in all",
        "refused",
        "20×45×12 voxels of 0.8×100×2.5 mm are 4.5 m long",
        nifti(
            "a.nii.gz",
            lambda: ct((12, 45, 20)),
            **only_qform(pixdim=[1, 0.8, 100, 2.5, 1, 1, 1, 1]),
        ),
    ),
    Bad(
        "sform ≠ qform",
        "mended",
        "sform and qform lie 3.00 mm apart.* · the sform is taken",
        nifti("a.nii.gz", qoffset=ORIGIN + np.array([3, 0, 0])),
        holds=ct,
        repaired=True,
    ),
    Bad(
        "sform ≠ qform, mirrored",
        "doubtful",
        "turned or mirrored · the sform is taken",
        nifti("a.nii.gz", srow=srow(ROTATION @ MIRROR)),
        holds=ct,
    ),
    Bad(
        "sform and qform code 0",
        "doubtful",
        "says nothing of orientation",
        nifti("a.nii.gz", sform_code=0, qform_code=0),
    ),
    Bad(
        "left-handed directions",
        "fine",
        "",
        nifti("a.nii.gz", qform_code=0, srow=srow(ROTATION @ MIRROR)),
    ),
    Bad("oblique directions", "fine", "", nifti("a.nii.gz"), holds=ct),
    Bad(
        "directions sheared by up to 2°",
        "mended",
        "its axes are sheared by 1.00°",
        nifti("a.nii.gz", qform_code=0, srow=srow(shear(2))),
        holds=ct,
        repaired=True,
    ),
    Bad(
        "directions sheared by more",
        "refused",
        "its axes are sheared: 5.0° from perpendicular",
        nifti("a.nii.gz", qform_code=0, srow=srow(shear(10))),
    ),
    *(
        Bad(
            f"{count} slice{'s' * (count > 1)}",
            "doubtful",
            f"only {count} slice",
            nifti("a.nii.gz", lambda count=count: ct((count, 18, 20))),
            holds=lambda count=count: ct((count, 18, 20)),
        )
        for count in (1, 3)
    ),
    Bad(
        "1×1×N",
        "refused",
        r"1×1×12 voxels \(x, y, z\): a line, not a scan",
        nifti("a.nii.gz", lambda: np.arange(12, dtype=np.int16).reshape(12, 1, 1)),
    ),
    Bad("512×512×1500", "fine", "", giant),
]

LABELS = [
    Bad(
        "label ids above 14",
        "refused",
        r"label ids \[15\] are not among 0..14",
        nifti("labels/a.nii.gz", edited(organs, (MIDDLE, 15))),
        kind="labels",
        reads="fine",
    ),
    Bad(
        "label id 255",
        "doubtful",
        "255 is what `fuse --ignore`, or a data set's ignore label, leaves open",
        nifti("labels/a.nii.gz", edited(organs, (MIDDLE, 255))),
        kind="labels",
        reads="fine",
    ),
    Bad(
        "negative label ids",
        "refused",
        "labels run from -1 to 14",
        nifti("labels/a.nii.gz", edited(organs, (MIDDLE, -1))),
        kind="labels",
    ),
    Bad(
        "13.9999 for a label",
        "mended",
        "labels are up to 0.0001 off whole numbers · rounded",
        nifti("labels/a.nii.gz", edited(organs, (MIDDLE, 13.9999))),
        kind="labels",
        holds=edited(organs, (MIDDLE, 14)),
        repaired=True,
    ),
    Bad(
        "13.5 for a label",
        "refused",
        "labels are no integers",
        nifti("labels/a.nii.gz", edited(organs, (MIDDLE, 13.5))),
        kind="labels",
    ),
    Bad(
        "NaN or infinity in a label map",
        "refused",
        "1 of 4,320 voxels are NaN or infinite · set them to 0 where nothing is labelled",
        nifti("labels/a.nii.gz", edited(organs, (MIDDLE, np.nan))),
        kind="labels",
    ),
    Bad(
        "RGB label map",
        "refused",
        "voxels are RGB, not one number each · give one number a voxel: .*the ids of a label map",
        nifti("labels/a.nii.gz", organs, datatype=128, bitpix=24),
        kind="labels",
    ),
    Bad(
        "empty label map",
        "doubtful",
        "nothing is labelled",
        nifti("labels/a.nii.gz", lambda: np.zeros(SIZE[::-1], np.uint8)),
        kind="labels",
        reads="fine",
    ),
    Bad(
        "label map of another size than its scan",
        "refused",
        "label and image do not match: 20×18×11 voxels against 20×18×12",
        labelled(lambda: organs()[:-1]),
        kind="pair",
    ),
    *(
        Bad(f"label map's origin off by {mm:g} mm", "fine", "", shifted(mm), kind="pair")
        for mm in (1e-7, 1e-3)
    ),
    *(
        Bad(f"label map's spacing off by {mm:g} mm", "fine", "", stretched(mm), kind="pair")
        for mm in (1e-7,)
    ),
    Bad(
        "label map's origin off by 0.3 mm",
        "refused",
        "the farthest corner lies 0.30 mm off · less than half a voxel",
        shifted(0.3),
        kind="pair",
        repaired=True,
    ),
    Bad(
        "label map's spacing off by 0.03 mm",
        "refused",
        "the farthest corner lies 0.33 mm off · less than half a voxel",
        stretched(0.03),
        kind="pair",
        repaired=True,
    ),
    Bad(
        "label map's origin off by 5 mm",
        "refused",
        "the farthest corner lies 5.00 mm off · draw or export it again",
        shifted(5),
        kind="pair",
    ),
    Bad(
        "label map's spacing off by 5 mm",
        "refused",
        "the farthest corner lies 55.00 mm off · draw or export it again",
        stretched(5),
        kind="pair",
    ),
]
