"""Bad DICOM folders, made with pydicom, with the outcome that is decided for each."""

from __future__ import annotations

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 -- the name its users know
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2KLossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from tests.imaging.bad_inputs import Bad, ct
from tests.imaging.dicom_series import COLUMN, write_series

UPRIGHT = {"column": np.array([0.0, 1.0, 0.0])}


def series(folder, **options):
    return write_series(folder / "a", ct(), **UPRIGHT | options)


def by_place(folder):
    return sorted(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


def each(edit):
    """A series every file of which is edited."""

    def make(folder):
        for path in series(folder).iterdir():
            data = pydicom.dcmread(path)
            edit(data)
            data.save_as(path)
        return folder / "a"

    return make


def one(edit):
    """A series whose fourth slice is edited: given its file's path."""

    def make(folder):
        edit(by_place(series(folder))[3])
        return folder / "a"

    return make


def other_phase(path):
    data = pydicom.dcmread(path)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.PixelData = bytes(data.PixelData[2:] + data.PixelData[:2])
    data.save_as(path.with_name("other"))


def other_spacing(path):
    data = pydicom.dcmread(path)
    data.PixelSpacing = [0.9, 0.8]
    data.save_as(path)


def through_gdcm(compressor):
    """A series that ITK's DICOM writer compresses."""

    def make(folder):
        for path in series(folder).iterdir():
            image = sitk.ReadImage(str(path))
            writer = sitk.ImageFileWriter()
            writer.SetFileName(f"{path}.dcm")
            writer.SetImageIO("GDCMImageIO")
            writer.KeepOriginalImageUIDOn()
            writer.UseCompressionOn()
            writer.SetCompressor(compressor)
            writer.Execute(image)
            path.unlink()
        return folder / "a"

    return make


def unreadable_syntax(data):
    data.file_meta.TransferSyntaxUID = HTJ2KLossless
    data.PixelData = encapsulate([b"\xff\x4f no code stream"])
    data["PixelData"].is_undefined_length = True


def colour(data):
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.Modality, data.SamplesPerPixel, data.PhotometricInterpretation = "XC", 3, "RGB"
    data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelData = bytes(3 * data.Rows * data.Columns)
    del data.RescaleSlope, data.RescaleIntercept


def capture_beside(folder):
    """A CT with a colour picture in the same folder, as a series of its own."""
    data = pydicom.dcmread(by_place(series(folder))[0])
    colour(data)
    data.SeriesInstanceUID, data.SOPInstanceUID = generate_uid(), generate_uid()
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    del data.ImagePositionPatient, data.ImageOrientationPatient
    data.save_as(folder / "a" / "capture")
    return folder / "a"


def without_scale(data):
    del data.RescaleSlope, data.RescaleIntercept


def two_phases(folder):
    series(folder)
    return series(folder, prefix="ART", description="arterial")


DICOM = [
    Bad("DICOM: missing slice", "refused", "1 slice missing between", one(lambda p: p.unlink())),
    Bad(
        "DICOM: duplicate position, the same voxels",
        "mended",
        "1 slices are there twice",
        one(lambda path: path.with_name("copy").write_bytes(path.read_bytes())),
        holds=ct,
        repaired=True,
    ),
    Bad("DICOM: duplicate position, other voxels", "refused", "both lie at", one(other_phase)),
    Bad(
        "DICOM: gantry tilt",
        "refused",
        r"the gantry was tilted: slices shift by 12\.0°",
        lambda folder: write_series(
            folder / "a", ct(), drift=2.5 * np.tan(np.radians(12)) * COLUMN
        ),
    ),
    Bad(
        "DICOM: several series, one an axial CT",
        "mended",
        "holds 2 series · the only axial CT is taken, 'abdomen' of 12 slices",
        capture_beside,
        holds=ct,
        repaired=True,
    ),
    Bad("DICOM: several axial CTs", "refused", "2 of them axial CT", two_phases),
    Bad("DICOM: mixed spacing", "refused", "differ in size or spacing", one(other_spacing)),
    Bad(
        "DICOM: compressed, JPEG-LS",
        "fine",
        "",
        each(lambda data: data.compress(JPEGLSLossless)),
        holds=ct,
    ),
    Bad(
        "DICOM: compressed, RLE",
        "fine",
        "",
        each(lambda data: data.compress(RLELossless)),
        holds=ct,
    ),
    Bad("DICOM: compressed, JPEG lossless", "fine", "", through_gdcm("JPEG"), holds=ct),
    Bad("DICOM: compressed, JPEG 2000", "fine", "", through_gdcm("JPEG2000"), holds=ct),
    Bad(
        "DICOM: compressed, a syntax that is not known",
        "refused",
        r"1\.2\.840\.10008\.1\.2\.4\.201",
        each(unreadable_syntax),
    ),
    Bad(
        "DICOM: compressed with loss",
        "doubtful",
        "was compressed with loss",
        each(lambda data: setattr(data, "LossyImageCompression", "01")),
        holds=ct,
    ),
    Bad("DICOM: RGB secondary capture", "refused", "3 numbers a voxel", each(colour)),
    Bad(
        "DICOM: no RescaleSlope",
        "doubtful",
        "12 of 12 slices lack RescaleSlope or RescaleIntercept",
        each(without_scale),
        holds=lambda: ct() + 1024,
    ),
]
