"""A CT series as a scanner would store it, for tests of reading and of what is written on it."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

TILT = np.radians(16)
ROW = np.array([1.0, 0.0, 0.0])
COLUMN = np.array([0.0, np.cos(TILT), np.sin(TILT)])


def write_series(folder, hu, **options):
    """Write (k, j, i) HU as CT slices, with file names in another order than the positions."""
    given = {
        "row": ROW,
        "column": COLUMN,
        "origin": np.array([-30.0, 12.5, -101.0]),
        "gap_mm": 2.5,
        "drift": np.zeros(3),
        "modality": "CT",
        "description": "abdomen",
        "intercept": -1024,
        "slope": 1,
        "bits": 12,
        "spacing": [0.9, 0.7],
        "prefix": "IM",
    } | options
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(given["row"], given["column"])
    series, frame = generate_uid(), generate_uid()
    names = np.random.default_rng(0).permutation(len(hu))
    for index, plane in enumerate(hu):
        position = given["origin"] + index * (given["gap_mm"] * normal + given["drift"])
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID = data.FrameOfReferenceUID = frame
        data.SeriesInstanceUID = series
        data.Modality, data.SeriesDescription = given["modality"], given["description"]
        data.PatientID, data.InstanceNumber = "phantom", int(names[index]) + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImagePositionPatient = [f"{place:.6f}" for place in position]
        data.ImageOrientationPatient = [f"{c:.10f}" for c in (*given["row"], *given["column"])]
        data.PixelSpacing = given["spacing"]  # between rows, between columns
        data.SliceThickness = 5.0  # slices overlap: not the distance between them
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.PixelRepresentation = 16, 0
        data.BitsStored, data.HighBit = given["bits"], given["bits"] - 1
        data.RescaleSlope, data.RescaleIntercept = given["slope"], given["intercept"]
        data.PixelData = ((plane - given["intercept"]) / given["slope"]).astype("<u2").tobytes()
        data.save_as(folder / f"{given['prefix']}{names[index]:04d}", enforce_file_format=True)
    return folder
