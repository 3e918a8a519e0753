"""A label map as DICOM Segmentation: what a PACS and its viewers show on the series it came from.

Binary segments, one frame a slice and class, only where there is something: the kind that all
viewers read. What each segment is, is said in SNOMED CT codes; the codes are data of that standard,
and the tests hold them against pydicom's own dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flarekd import __version__
from flarekd.errors import InputError, UsageError
from flarekd.imaging.atomic import replacing
from flarekd.imaging.orientation import to_stored
from flarekd.imaging.volume import LabelMap
from flarekd.labels import LABELS

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

RIGHT, LEFT = ("24028007", "Right"), ("7771000", "Left")
ANATOMY = ("91723000", "Anatomical Structure")
ABNORMAL = ("49755003", "Morphologically Abnormal Structure")

CONCEPTS: dict[str, tuple[tuple[str, str], tuple[str, str] | None]] = {
    "liver": (("10200004", "Liver"), None),
    "right_kidney": (("64033007", "Kidney"), RIGHT),
    "spleen": (("78961009", "Spleen"), None),
    "pancreas": (("15776009", "Pancreas"), None),
    "aorta": (("15825003", "Aorta"), None),
    "ivc": (("64131007", "Inferior vena cava"), None),
    "right_adrenal": (("23451007", "Adrenal gland"), RIGHT),
    "left_adrenal": (("23451007", "Adrenal gland"), LEFT),
    "gallbladder": (("28231008", "Gallbladder"), None),
    "esophagus": (("32849002", "Esophagus"), None),
    "stomach": (("69695003", "Stomach"), None),
    "duodenum": (("38848004", "Duodenum"), None),
    "left_kidney": (("64033007", "Kidney"), LEFT),
    "tumor": (("108369006", "Neoplasm"), None),
}
"""SNOMED CT code and meaning of a class, and of its side. A class of another name is ANATOMY."""

_COLORS = {label.name: label.color for label in LABELS}
_NEEDED = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID",
)  # fmt: skip
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip
"""What the standard lets be empty but not be missing; anonymisers take it out all the same."""

_FRAME_BYTES, _SLICE_BYTES = 12_000, 50_000
"""Of what a SEG says of each frame, and of a slice's header."""

SERIES_STEP = 1000
"""Added to the number of the source's series: listed after the scanner's own."""


def require_highdicom() -> None:
    """Say before any work is done that DICOM SEG cannot be written.

    Raises:
        UsageError: If highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401 -- whether it is there
    except ImportError as error:
        what = "DICOM SEG is written by highdicom, which is not installed"
        raise UsageError(what, "pip install 'flarekd[dicom]'") from error


def working_bytes(shape: tuple[int, int, int], classes: int) -> int:
    """Bytes that writing takes at most, where every slice has something of every class.

    Args:
        shape: Of the scan (z, y, x).
        classes: How many there may be in it.
    """
    frames, slices = shape[0] * classes, shape[0]
    voxels = prod(shape)
    return voxels + 2 * voxels * classes // 8 + _FRAME_BYTES * frames + _SLICE_BYTES * slices


def rehearse() -> None:
    """Make a SEG of a few voxels, so that what it takes is loaded and a plan of memory sees it.

    Raises:
        UsageError: If highdicom is not installed.
    """
    require_highdicom()
    from pydicom import Dataset
    from pydicom.uid import CTImageStorage, generate_uid

    plane = Dataset()
    for name in (*_NEEDED, *_MAY_BE_EMPTY):
        setattr(plane, name, generate_uid() if name in _NEEDED else None)
    plane.SOPClassUID = CTImageStorage
    plane.ImagePositionPatient, plane.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    plane.Rows, plane.Columns = 8, 8
    plane.PixelSpacing, plane.SliceThickness = [1, 1], 1
    _build([plane], np.ones((1, 8, 8), np.uint8), [_segment(1, "liver")])


def write_seg(path: Path, source: Path, labels: LabelMap, names: Mapping[int, str]) -> list[str]:
    """Write a label map as one DICOM SEG file on the series it was made from, whole or not at all.

    Patient, study and frame of reference are those of the series, and every frame names the slice
    it was drawn on.

    Args:
        path: The file to write, ``.dcm``.
        source: The folder that the scan was read from; holds its series.
        labels: uint8, canonical, on the grid of that series.
        names: Id to name of the classes to write; ids without a name are left out.

    Returns:
        The names of the segments. Empty where no class was found: the standard knows no SEG without
        a segment, so none is written, and one of an earlier run is removed.

    Raises:
        UsageError: If highdicom is not installed.
        InputError: If `source` is no folder with one DICOM series, the label map lies on another
            grid, the series lacks what a SEG must refer to, or the file cannot be written.
    """
    require_highdicom()
    with _reading(source):
        planes = _planes(source, labels)
    present = [label for label in sorted(names) if label and (labels.array == label).any()]
    if not present:
        path.unlink(missing_ok=True)
        return []
    # segments are numbered from 1 without gaps
    numbers = np.zeros(256, np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    found = to_stored(labels.array, labels.geometry)
    stored = np.empty(found.shape, np.uint8)
    for index, plane in enumerate(found):  # picked by numbers, each voxel takes eight bytes more
        stored[index] = numbers[plane]
    segments = [_segment(number, names[label]) for number, label in enumerate(present, start=1)]
    with _reading(source):
        seg = _build(planes, stored, segments)
    try:
        with replacing(path) as temporary:
            seg.save_as(temporary)
    except OSError as error:
        mend = "is there space on the disk, and may you write there?"
        raise InputError(f"{path}: cannot be written: {error.strerror or error}", mend) from error
    return [names[label] for label in present]


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Make what pydicom and highdicom say of a header the failure of its series."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"{source}: no DICOM SEG can be made on this series: {error}"
        raise InputError(what, "mend its headers, or leave DICOM SEG out") from error


def _planes(source: Path, labels: LabelMap) -> list[Dataset]:
    """The headers of the series, in stored order."""
    from pydicom import dcmread

    from flarekd.imaging import dicom

    if not source.is_dir():
        what = f"{source}: is no folder of DICOM files, and a DICOM SEG refers to those"
        raise InputError(what, "give the DICOM folder as input, or leave DICOM SEG out")
    paths, geometry = dicom.read_stack(source)
    mismatch = geometry.mismatch(labels.geometry)
    if mismatch:
        what = f"{source}: the label map is not on the grid of the series: {mismatch}"
        raise InputError(what, "segment the folder as it is now")
    planes: list[Dataset] = [dcmread(path, stop_before_pixels=True) for path in paths]
    for plane, path in zip(planes, paths, strict=True):
        missing = [name for name in _NEEDED if not plane.get(name)]
        if missing:
            what = f"{path}: lacks {', '.join(missing)}, to which a DICOM SEG must refer"
            raise InputError(what, "export the series again, or anonymise it with UIDs kept")
        if not plane.get("SliceThickness"):
            plane.SliceThickness = geometry.spacing_xyz[2]
        for name in _MAY_BE_EMPTY:
            if name not in plane:
                setattr(plane, name, None)
    return planes


def _segment(number: int, name: str) -> SegmentDescription:
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    concept, side = CONCEPTS.get(name, (ANATOMY, None))
    color = _COLORS.get(name)
    segment = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=_code(ABNORMAL if name == "tumor" else ANATOMY),
        segmented_property_type=_code(concept),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name="flarekd", version=__version__, family=codes.cid7162.ArtificialIntelligence
        ),
        display_color=CIELabColor.from_rgb(*color) if color else None,
    )
    if side:
        modifier = CodedConcept(side[0], "SCT", side[1])
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return segment


def _code(concept: tuple[str, str]) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(concept[0], "SCT", concept[1])


def _build(
    planes: list[Dataset], stored: NDArray[np.uint8], segments: list[SegmentDescription]
) -> Dataset:
    from highdicom import UID
    from highdicom.seg import Segmentation, SegmentationTypeValues

    first = planes[0]
    return Segmentation(
        source_images=planes,
        pixel_array=stored,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=UID(),
        series_number=int(first.get("SeriesNumber") or 0) + SERIES_STEP,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="flarekd",
        manufacturer_model_name="flarekd",
        software_versions=__version__,
        device_serial_number="none",
        content_label="SEGMENTATION",
        content_description="organs and tumours",
        series_description="flarekd: organs and tumours",
    )
