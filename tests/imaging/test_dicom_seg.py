"""DICOM SEG by round trip: each voxel back at its place in the patient, read by other libraries."""

from __future__ import annotations

import sys

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from tests.imaging.dicom_series import COLUMN, ROW, write_series

from flarekd.errors import InputError, UsageError
from flarekd.imaging.dicom_seg import CONCEPTS, write_seg
from flarekd.imaging.files import read_volume
from flarekd.imaging.volume import LabelMap
from flarekd.labels import LABELS

NAMES = {label.id: label.name for label in LABELS}
Y, Z = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
ORIENTATIONS = {
    "oblique axial": {},
    "upright axial": {"column": Y},
    "head first": {"row": -ROW},  # the normal points to the feet
    "sagittal": {"row": Y, "column": -Z},
    "coronal": {"column": -Z},
    "oblique sagittal": {"row": COLUMN, "column": -np.cross(ROW, COLUMN)},
}


@pytest.fixture
def hu():
    return np.random.default_rng(1).integers(-1000, 1000, (6, 8, 9)).astype(np.int16)


def label_map(folder):
    """A few voxels of some classes, no slice like another; class 3 in the last slice only."""
    volume = read_volume(folder)
    generator = np.random.default_rng(2)
    array = generator.choice(np.array([0, 1, 2, 14], np.uint8), volume.array.shape)
    array[1] = 0
    array[-1, 0, 0] = 3
    return LabelMap(array, volume.geometry)


def places(labels: LabelMap, label):
    """World positions (n, 3) of a class's voxels, mm, sorted."""
    index = np.argwhere(labels.array == label)
    world = np.c_[index, np.ones(len(index))] @ labels.geometry.affine_zyx().T
    return sorted(np.round(world, 3).tolist())


def places_in_seg(path, number):
    """The same from the file alone, frame by frame, by the formula of the standard (C.7.6.2.1)."""
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)
    ).astype(float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = []
    for frame, group in zip(
        data.pixel_array.reshape(-1, data.Rows, data.Columns),
        data.PerFrameFunctionalGroupsSequence,
        strict=True,
    ):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        origin = np.asarray(group.PlanePositionSequence[0].ImagePositionPatient, float)
        j, i = np.nonzero(frame)
        world = origin + np.outer(i * between_columns, row) + np.outer(j * between_rows, column)
        found += np.round(world, 3).tolist()
    return sorted(found)


@pytest.mark.parametrize("options", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_every_voxel_lies_where_it_lay_in_the_patient(tmp_path, hu, options):
    folder = write_series(tmp_path / "scan", hu, **options)
    labels = label_map(folder)
    segments = write_seg(tmp_path / "a.dcm", folder, labels, NAMES)
    assert segments == ["liver", "right_kidney", "spleen", "tumor"]
    for number, label in enumerate((1, 2, 3, 14), start=1):
        expected = places(labels, label)
        assert len(expected) > 0
        np.testing.assert_allclose(places_in_seg(tmp_path / "a.dcm", number), expected, atol=2e-3)


@pytest.mark.parametrize("options", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_highdicom_gives_the_labels_back_on_the_source_slices(tmp_path, hu, options):
    folder = write_series(tmp_path / "scan", hu, **options)
    labels = label_map(folder)
    write_seg(tmp_path / "a.dcm", folder, labels, NAMES)
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    sources = [pydicom.dcmread(path) for path in folder.iterdir()]
    uids = [data.SOPInstanceUID for data in sources]
    assert {uid for _, _, uid in seg.get_source_image_uids()} == set(uids)
    frames = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    ids = np.array([0, 1, 2, 3, 14], np.uint8)[frames]
    for data, frame in zip(sources, ids, strict=True):
        # back through our own reader: the slice's HU tell which slice of the scan it is
        k = next(
            k
            for k, plane in enumerate(hu)
            if np.array_equal(plane, data.pixel_array.astype(int) - 1024)
        )
        stored = from_canonical(labels, k)
        np.testing.assert_array_equal(frame, stored)


def from_canonical(labels: LabelMap, k):
    """Slice k of the series (j, i) of a canonical label map, voxel by voxel in world positions."""
    i_count, j_count, _ = labels.geometry.size_xyz
    cosines = np.reshape(labels.geometry.direction, (3, 3))
    to_index = np.linalg.inv(labels.geometry.affine_zyx()[:, :3])
    plane = np.zeros((j_count, i_count), np.uint8)
    for j in range(j_count):
        for i in range(i_count):
            step = cosines @ (np.array([i, j, k]) * labels.geometry.spacing_xyz)
            world = np.array(labels.geometry.origin_xyz) + step
            index = to_index @ (world - labels.geometry.affine_zyx()[:, 3])
            plane[j, i] = labels.array[tuple(np.rint(index).astype(int))]
    return plane


def test_patient_and_study_are_the_sources_and_missing_ones_are_empty(tmp_path, hu):
    folder = write_series(tmp_path / "scan", hu)
    write_seg(tmp_path / "a.dcm", folder, label_map(folder), NAMES)
    seg, source = pydicom.dcmread(tmp_path / "a.dcm"), pydicom.dcmread(min(folder.iterdir()))
    assert seg.Modality == "SEG"
    assert seg.SegmentationType == "BINARY"
    assert seg.PatientID == "phantom"
    assert not seg.PatientName
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    # nothing in slice 1, and spleen in one slice only
    assert seg.NumberOfFrames == 5 * 3 + 1


def test_segments_say_what_they_are_in_codes_and_colour(tmp_path, hu):
    folder = write_series(tmp_path / "scan", hu)
    write_seg(tmp_path / "a.dcm", folder, label_map(folder), NAMES | {3: "gland of a model"})
    liver, kidney, other, tumor = highdicom.seg.segread(tmp_path / "a.dcm").SegmentSequence
    assert liver.segmented_property_type == codes.SCT.Liver
    assert liver.segmented_property_category == codes.cid7150.AnatomicalStructure
    assert kidney.segmented_property_type == codes.SCT.Kidney
    (side,) = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert (side.CodeValue, side.CodeMeaning) == ("24028007", "Right")
    assert other.segment_label == "gland of a model"
    assert other.segmented_property_type == codes.SCT.AnatomicalStructure
    assert "RecommendedDisplayCIELabValue" not in other
    assert tumor.segmented_property_type == codes.SCT.Neoplasm
    assert tumor.segmented_property_category == codes.cid7150.MorphologicallyAbnormalStructure
    stored = highdicom.color.CIELabColor.from_dicom_value(tumor.RecommendedDisplayCIELabValue)
    np.testing.assert_allclose(stored.to_rgb(), (0, 255, 0), atol=2)


def test_every_class_has_its_code_in_the_dictionary_of_the_standard():
    keywords = {
        "liver": "Liver", "right_kidney": "Kidney", "spleen": "Spleen", "pancreas": "Pancreas",
        "aorta": "Aorta", "ivc": "InferiorVenaCava", "right_adrenal": "AdrenalGland",
        "left_adrenal": "AdrenalGland", "gallbladder": "Gallbladder", "esophagus": "Esophagus",
        "stomach": "Stomach", "duodenum": "Duodenum", "left_kidney": "Kidney", "tumor": "Neoplasm",
    }  # fmt: skip
    assert list(CONCEPTS) == [label.name for label in LABELS]
    for name, (concept, side) in CONCEPTS.items():
        code = getattr(codes.SCT, keywords[name])
        assert concept == (code.value, code.meaning)
        expected = {"right": codes.SCT.Right, "left": codes.SCT.Left}.get(name.split("_")[0])
        assert side == (expected and (expected.value, expected.meaning))


def test_a_scan_of_one_slice_has_a_seg(tmp_path, hu):
    folder = write_series(tmp_path / "scan", hu[:1])
    volume = read_volume(folder)
    labels = LabelMap((volume.array > 0).astype(np.uint8), volume.geometry)
    write_seg(tmp_path / "a.dcm", folder, labels, NAMES)
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "a.dcm").pixel_array, hu[0] > 0)


def test_where_nothing_was_found_no_file_is_left(tmp_path, hu):
    folder = write_series(tmp_path / "scan", hu)
    labels = label_map(folder)
    write_seg(tmp_path / "a.dcm", folder, labels, NAMES)
    empty = LabelMap(np.zeros_like(labels.array), labels.geometry)
    assert write_seg(tmp_path / "a.dcm", folder, empty, NAMES) == []
    assert not (tmp_path / "a.dcm").exists()


def test_what_is_no_dicom_folder_is_refused(tmp_path, hu):
    folder = write_series(tmp_path / "scan", hu)
    labels = label_map(folder)
    (tmp_path / "scan.nii.gz").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is no folder of DICOM files") as error:
        write_seg(tmp_path / "a.dcm", tmp_path / "scan.nii.gz", labels, NAMES)
    assert "leave DICOM SEG out" in error.value.mend
    with pytest.raises(InputError, match="holds no DICOM files"):
        write_seg(tmp_path / "a.dcm", tmp_path / "empty", labels, NAMES)
    other = write_series(tmp_path / "other", hu[:5])
    with pytest.raises(InputError, match="not on the grid of the series"):
        write_seg(tmp_path / "a.dcm", other, labels, NAMES)
    assert not (tmp_path / "a.dcm").exists()


def changed(folder, change):
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)


@pytest.mark.parametrize("name", ["FrameOfReferenceUID", "SOPClassUID", "SOPInstanceUID"])
def test_a_series_without_what_a_seg_refers_to_is_refused_by_name(tmp_path, hu, name):
    folder = write_series(tmp_path / "scan", hu)
    labels = label_map(folder)
    changed(folder, lambda data: delattr(data, name))
    with pytest.raises(InputError, match=f"lacks {name}"):
        write_seg(tmp_path / "a.dcm", folder, labels, NAMES)


def test_a_series_without_a_slice_thickness_has_that_of_its_steps(tmp_path, hu):
    folder = write_series(tmp_path / "scan", hu)
    labels = label_map(folder)
    changed(folder, lambda data: delattr(data, "SliceThickness"))
    write_seg(tmp_path / "a.dcm", folder, labels, NAMES)
    shared = pydicom.dcmread(tmp_path / "a.dcm").SharedFunctionalGroupsSequence[0]
    assert float(shared.PixelMeasuresSequence[0].SliceThickness) == pytest.approx(2.5)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom's, of the same values
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SeriesNumber", b"x "),
        ("StudyDate", b"yesterday "),
        ("PatientBirthDate", b"1.1.1970"),
        ("PatientSex", b"unknown "),
        ("StudyTime", b"noon"),
        ("SOPClassUID", b"1.2.3\0"),
    ],
)
def test_a_header_that_no_seg_can_be_made_of_is_its_series_failure(tmp_path, hu, name, value):
    folder = write_series(tmp_path / "scan", hu)
    tag = Tag(tag_for_keyword(name))
    entry = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    # as it may come from a scanner: pydicom itself would not write it
    changed(folder, lambda data: data._dict.update({tag: entry}))
    labels = label_map(folder)
    with pytest.raises(InputError, match=r"scan: no DICOM SEG can be made .* · mend its headers"):
        write_seg(tmp_path / "a.dcm", folder, labels, NAMES)
    assert not (tmp_path / "a.dcm").exists()


def test_without_highdicom_the_extra_is_named(tmp_path, hu, monkeypatch):
    folder = write_series(tmp_path / "scan", hu)
    labels = label_map(folder)
    monkeypatch.setitem(sys.modules, "highdicom", None)  # what Python itself does: not importable
    with pytest.raises(UsageError) as error:
        write_seg(tmp_path / "a.dcm", folder, labels, NAMES)
    assert error.value.mend == "pip install 'flarekd[dicom]'"
