from __future__ import annotations

import resource
import tracemalloc

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know
from pydicom.uid import generate_uid
from tests.imaging.dicom_series import COLUMN, ROW, write_series

from flarekd.errors import InputError
from flarekd.imaging.dicom_slice import _is_torn
from flarekd.imaging.files import (
    list_scans,
    read_geometry,
    read_volume,
    voxel_bytes,
    write_volume,
)


@pytest.fixture
def hu():
    return np.random.default_rng(1).integers(-1000, 1000, (6, 8, 9)).astype(np.int16)


@pytest.fixture
def folder(tmp_path, hu):
    return write_series(tmp_path / "case_0000", hu)


def test_a_series_is_read_in_hu_sorted_by_position(folder, hu):
    volume = read_volume(folder)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, hu)
    geometry = volume.geometry
    assert geometry.size_xyz == (9, 8, 6)
    np.testing.assert_allclose(geometry.spacing_xyz, (0.7, 0.9, 2.5), atol=1e-5)
    np.testing.assert_allclose(geometry.origin_xyz, (-30.0, 12.5, -101.0), atol=1e-5)
    expected = np.stack([ROW, COLUMN, np.cross(ROW, COLUMN)], axis=1)
    np.testing.assert_allclose(np.reshape(geometry.direction, (3, 3)), expected, atol=1e-6)
    assert read_geometry(folder) == geometry


def test_itk_reads_the_same_series_on_the_same_grid(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    geometry = read_geometry(folder)
    assert image.GetSize() == geometry.size_xyz
    np.testing.assert_allclose(image.GetSpacing(), geometry.spacing_xyz, atol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), geometry.origin_xyz, atol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), geometry.direction, atol=1e-5)


def test_slices_stored_head_first_or_sagittal_become_canonical(tmp_path, hu):
    upside_down = write_series(tmp_path / "a", hu, row=-ROW)  # the normal points down
    assert read_volume(upside_down).array.shape == (6, 8, 9)
    np.testing.assert_array_equal(read_volume(upside_down).array, hu[::-1, :, ::-1])
    sagittal = write_series(
        tmp_path / "b", hu, row=np.array([0.0, 1, 0]), column=np.array([0.0, 0, -1])
    )
    np.testing.assert_array_equal(read_volume(sagittal).array, hu.transpose(1, 2, 0)[::-1, :, ::-1])


def test_a_series_is_written_as_nifti_on_the_same_grid(folder, tmp_path):
    volume = read_volume(folder)
    write_volume(tmp_path / "a.nii.gz", volume)
    again = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(again.array, volume.array)
    assert again.geometry.mismatch(volume.geometry) is None


def test_a_missing_slice_is_refused_with_its_place(folder):
    read = [(pydicom.dcmread(path), path) for path in folder.iterdir()]
    positions = sorted(float(data.ImagePositionPatient[2]) for data, _ in read)
    for data, path in read:
        if float(data.ImagePositionPatient[2]) == positions[3]:
            path.unlink()
    expected = (
        rf"1 slice missing between {positions[2]:.2f} and {positions[4]:.2f} mm: a gap of 5.00"
    )
    with pytest.raises(InputError, match=expected):
        read_volume(folder)


def test_two_slices_at_one_place_are_refused(folder):
    path = min(folder.iterdir())
    data = pydicom.dcmread(path)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.PixelData = bytes(data.PixelData[2:] + data.PixelData[:2])  # another phase
    data.save_as(folder / "other")
    with pytest.raises(InputError, match=rf"both lie at {data.ImagePositionPatient[2]:.2f} mm"):
        read_volume(folder)


def test_a_slice_that_is_there_twice_is_left_out(folder, hu):
    path = min(folder.iterdir())
    (folder / "copy").write_bytes(path.read_bytes())
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, hu)
    (note,) = [note for note in volume.notes if note.severity == "mended"]
    assert note.what.startswith("1 slices are there twice")
    assert read_geometry(folder) == volume.geometry


def test_uneven_slices_are_refused(folder):
    paths = sorted(folder.iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])
    data = pydicom.dcmread(paths[2])
    shift = 1.0 * np.cross(ROW, COLUMN)
    data.ImagePositionPatient = [
        f"{place - step:.6f}" for place, step in zip(data.ImagePositionPatient, shift, strict=True)
    ]
    data.save_as(paths[2])
    with pytest.raises(InputError, match=r"uneven slices|missing between"):
        read_volume(folder)


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path, hu):
    drift = 2.5 * np.tan(np.radians(12)) * COLUMN
    folder = write_series(tmp_path / "a", hu, drift=drift)
    with pytest.raises(InputError, match=r"gantry was tilted: slices shift by 12\.0°"):
        read_volume(folder)


def test_mixed_orientations_and_sizes_are_refused(folder):
    path = min(folder.iterdir())
    data = pydicom.dcmread(path)
    turned = list(data.ImageOrientationPatient)
    data.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    data.save_as(path)
    with pytest.raises(InputError, match="differ in orientation"):
        read_volume(folder)
    data.ImageOrientationPatient = turned
    data.PixelSpacing = [0.9, 0.8]
    data.save_as(path)
    with pytest.raises(InputError, match="differ in size or spacing"):
        read_volume(folder)


def test_one_axial_ct_among_other_series_is_chosen(folder, hu):
    write_series(folder, hu[:1], prefix="LOC", description="scout")
    write_series(folder, hu[:4], prefix="MR", modality="MR", description="t1")
    coronal = {"row": np.array([1.0, 0, 0]), "column": np.array([0.0, 0, -1])}
    write_series(folder, hu[:3], prefix="COR", description="coronal", **coronal)
    np.testing.assert_array_equal(read_volume(folder).array, hu)


def test_two_axial_cts_are_refused_and_listed(folder, hu):
    write_series(folder, hu[:4], prefix="ART", description="arterial")
    with pytest.raises(InputError) as error:
        read_volume(folder)
    assert "holds 2 series, 2 of them axial CT" in error.value.what
    assert "'abdomen' (CT, 9×8×6)" in error.value.what
    assert "'arterial' (CT, 9×8×4)" in error.value.what
    assert error.value.mend == "give each series a folder of its own"


def test_a_torn_file_is_refused_by_name(folder, capfd):
    path = sorted(folder.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=path.name):
        read_volume(folder)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("is_explicit", [True, False])
def test_a_torn_file_is_known_whatever_itk_says(folder, tmp_path, is_explicit):
    content = sorted(folder.iterdir())[2].read_bytes()
    if not is_explicit:
        content = content.replace(b"\xe0\x7f\x10\x00OW\0\0", b"\xe0\x7f\x10\x00")
    path = tmp_path / "slice"
    for missing, is_torn in ((0, False), (1, True), (60, True)):
        path.write_bytes(content[: len(content) - missing])
        assert _is_torn(path, 9 * 8 * 2) == is_torn
    assert not _is_torn(path, 9 * 8)  # packed voxels are others' business


def test_files_that_are_not_dicom_are_passed_over(folder, hu):
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_bytes(b"x")
    np.testing.assert_array_equal(read_volume(folder).array, hu)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no DICOM files"):
        read_volume(tmp_path)


def test_dicom_folders_are_listed_beside_files(folder, tmp_path):
    (tmp_path / "b.nii.gz").touch()
    (tmp_path / "empty").mkdir()
    assert list_scans(tmp_path) == {"b": tmp_path / "b.nii.gz", "case": folder}
    assert list_scans(folder) == {"case": folder}


def edit(path, **changes):
    data = pydicom.dcmread(path)
    for name, value in changes.items():
        if value is None:
            data.pop(name, None)
        else:
            setattr(data, name, value)
    data.save_as(path)


@pytest.mark.parametrize("spacing", [None, [0, 0]])
def test_a_slice_that_does_not_say_how_far_apart_its_voxels_are_is_refused(folder, spacing):
    edit(min(folder.iterdir()), PixelSpacing=spacing)
    with pytest.raises(InputError, match=r"how far apart|differ in size or spacing"):
        read_volume(folder)
    for path in folder.iterdir():
        edit(path, PixelSpacing=spacing)
    with pytest.raises(InputError, match=r"how far apart its voxels are"):
        read_volume(folder)


def test_an_orientation_of_zeros_is_none(folder):
    for path in folder.iterdir():
        edit(path, ImageOrientationPatient=[0, 0, 0, 0, 0, 0])
    with pytest.raises(InputError, match="does not say where in the patient it lies"):
        read_volume(folder)


def test_a_scale_of_zero_is_doubted_like_one_that_is_not_there(folder):
    for path in folder.iterdir():
        edit(path, RescaleSlope=0)
    with_zero = read_volume(folder).notes
    for path in folder.iterdir():
        edit(path, RescaleSlope=None)
    assert with_zero == read_volume(folder).notes
    assert with_zero


def test_voxels_that_a_header_promises_and_no_file_holds_are_refused_before_there_is_room(folder):
    for path in folder.iterdir():
        edit(path, Rows=60000, Columns=60000)
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="voxels are missing"):
        read_volume(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began < 200_000  # KiB


@pytest.mark.parametrize(
    ("options", "bytes_", "dtype"),
    [({}, 2, np.int16), ({"bits": 16}, 4, np.int16), ({"slope": 0.5}, 4, np.float32)],
    ids=["12 bits", "16 bits", "fractions"],
)
def test_slices_are_read_into_one_array_of_few_bytes(tmp_path, options, bytes_, dtype):
    hu = np.random.default_rng(2).integers(-1000, 1000, (20, 96, 96)).astype(np.float32)
    hu = hu / 2 if "slope" in options else hu
    folder = write_series(tmp_path / "a", hu, **options)
    read_volume(folder)  # loads what is loaded once
    tracemalloc.start()
    found = read_volume(folder).array
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, hu)
    assert voxel_bytes(folder) == bytes_
    assert peak < max(6, 2 * bytes_) * hu.size


def test_a_late_slice_of_fractions_keeps_the_ones_before(tmp_path):
    hu = np.random.default_rng(2).integers(-1000, 1000, (3, 8, 8)).astype(np.int16)
    folder = write_series(tmp_path / "a", hu)
    last = max(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    data = pydicom.dcmread(last)
    data.RescaleSlope = 0.25
    data.save_as(last)
    found = read_volume(folder).array
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:2], hu[:2])
    np.testing.assert_array_equal(found[2], (hu[2] + 1024) * np.float32(0.25) - 1024)
