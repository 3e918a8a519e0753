from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know

from flarekd.errors import InputError
from flarekd.imaging import nifti
from flarekd.imaging.nifti_header import _FIELDS, _layout, build, parse
from flarekd.imaging.volume import Geometry


def raw_header(version=348, order="<", **fields):
    """A 4×5×6 int16 header with sform and qform at different places; keywords replace fields."""
    header = np.zeros(1, _layout(version, order))
    values = {
        "sizeof_hdr": version,
        "dim": [3, 4, 5, 6, 1, 1, 1, 1],
        "datatype": 4,
        "bitpix": 16,
        "pixdim": [1, 2, 1, 3, 1, 1, 1, 1],
        "vox_offset": 352 if version == 348 else 544,
        "xyzt_units": 2,
        "qform_code": 0,
        "sform_code": 0,
        "quatern": [0, 0, 0],
        "qoffset": [1, 2, 3],
        "srow": [[0, -1, 0, 10], [2, 0, 0, 20], [0, 0, 3, 30]],
        "magic": b"n+1" if version == 348 else b"n+2",
    } | fields
    for name, value in values.items():
        header[0][name] = value
    voxels = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    gap = b"\0" * 4
    return header.tobytes() + gap + voxels.astype(np.dtype("i2").newbyteorder(order)).tobytes()


def itk_header(path):
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


@pytest.fixture(autouse=True)
def _quiet():
    sitk.ProcessObject.SetGlobalWarningDisplay(False)


def test_the_header_is_found_where_the_standard_says():
    """Offsets by hand from nifti1.h and nifti2.h."""
    one = {name: offset for name, _, offset in _FIELDS[348]}
    assert (one["dim"], one["pixdim"], one["srow"], one["magic"]) == (40, 76, 280, 344)
    two = {name: offset for name, _, offset in _FIELDS[540]}
    assert (two["magic"], two["dim"], two["srow"], two["xyzt_units"]) == (4, 16, 400, 500)


@pytest.mark.parametrize(("sform", "qform"), list(itertools.product(range(5), range(3))))
def test_sform_and_qform_are_chosen_as_itk_does(tmp_path, sform, qform):
    path = tmp_path / "a.nii"
    path.write_bytes(raw_header(sform_code=sform, qform_code=qform))
    geometry, theirs = nifti.read_header(path).geometry, itk_header(path)
    np.testing.assert_allclose(geometry.origin_xyz, theirs.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(geometry.spacing_xyz, theirs.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(geometry.direction, theirs.GetDirection(), atol=1e-6)


@pytest.mark.parametrize("qfac", [1, -1])
@pytest.mark.parametrize("units", [0, 1, 2, 3, 10])
def test_quaternions_mirrors_and_units_are_understood_as_itk_does(tmp_path, qfac, units):
    path = tmp_path / "a.nii"
    pixdim = [qfac, 0.5, 0.25, 2, 1, 1, 1, 1]
    path.write_bytes(
        raw_header(qform_code=1, quatern=[0.1, -0.7, 0.3], pixdim=pixdim, xyzt_units=units)
    )
    geometry, theirs = nifti.read_header(path).geometry, itk_header(path)
    np.testing.assert_allclose(geometry.origin_xyz, theirs.GetOrigin(), rtol=1e-6)
    np.testing.assert_allclose(geometry.spacing_xyz, theirs.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(geometry.direction, theirs.GetDirection(), atol=1e-6)


def test_a_half_turn_is_a_rotation_for_all_its_rounding():
    half = raw_header(qform_code=1, quatern=[np.float32(0.6), np.float32(0.8), 1e-4])
    geometry = parse("a.nii", half).geometry
    cosines = np.reshape(geometry.direction, (3, 3))
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("version", [348, 540])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders_are_read(tmp_path, version, order):
    path = tmp_path / "a.nii"
    path.write_bytes(raw_header(version, order, sform_code=1))
    array, geometry, _ = nifti.read(path)
    assert array.dtype == np.int16
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, np.arange(120).reshape(6, 5, 4))
    assert geometry.origin_xyz == (-10.0, -20.0, 30.0)
    assert geometry.spacing_xyz == (2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "shift"),
    [(1, -1024, 1, -1024), (0.5, 3, 0.5, 3), (0, 7, 1, 0), (np.nan, 0, 1, 0), (2, 0, 2, 0)],
)
def test_slope_and_intercept_are_applied_where_they_mean_something(
    tmp_path, slope, intercept, factor, shift
):
    path = tmp_path / "a.nii"
    path.write_bytes(raw_header(sform_code=1, scl_slope=slope, scl_inter=intercept))
    np.testing.assert_array_equal(
        nifti.read(path)[0], np.arange(120).reshape(6, 5, 4) * factor + shift
    )


@pytest.mark.parametrize("offset", [0, -1, 352])
def test_voxels_begin_after_the_header_whatever_an_old_writer_says(tmp_path, offset):
    path = tmp_path / "a.nii"
    path.write_bytes(raw_header(sform_code=1, vox_offset=offset))
    np.testing.assert_array_equal(nifti.read(path)[0], np.arange(120).reshape(6, 5, 4))


def test_cosines_that_rounding_sheared_are_straightened_where_itk_gives_up(tmp_path):
    path = tmp_path / "a.nii"
    srow = [[2, 0.01, 0, 10], [0, 1, 0.02, 20], [0, 0, 3, 30]]
    path.write_bytes(raw_header(sform_code=1, srow=srow))
    with pytest.raises(RuntimeError, match="orthonormal"):
        itk_header(path)
    array, geometry, _ = nifti.read(path)
    cosines = np.reshape(geometry.direction, (3, 3))
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(cosines, np.diag([-1, -1, 1]), atol=0.01)
    nifti.write(tmp_path / "b.nii", array, geometry)
    assert itk_header(tmp_path / "b.nii").GetSize() == (4, 5, 6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"srow": [[2, 0, 0, 0], [0, 1, 1, 0], [0, 0, 3, 0]], "sform_code": 1}, "sheared"),
        ({"srow": np.zeros((3, 4)), "sform_code": 1}, "do not span space"),
        ({"srow": np.full((3, 4), np.nan), "sform_code": 1}, "are not numbers"),
        ({"quatern": [np.nan] * 3, "qform_code": 1}, "are not numbers"),
        ({"dim": [2, 4, 5, 1, 1, 1, 1, 1]}, "4×5 voxels, 2D"),
        ({"dim": [4, 4, 5, 6, 2, 1, 1, 1]}, r"holds 2 volumes \(4×5×6×2\)"),
        ({"dim": [3, 4, 0, 6, 1, 1, 1, 1]}, "a scan is 3D"),
        ({"vox_offset": 1e20}, "begin at byte 1e"),
        ({"datatype": 128}, "voxels are RGB"),
        ({"datatype": 32}, "voxels are complex"),
        ({"datatype": 999}, "voxels are type 999"),
        ({"magic": b"ni1"}, "header of a pair"),
        ({"magic": b"xx"}, "is no NIfTI file"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "do not fit into memory|torn"),
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path, fields, message):
    path = tmp_path / "a.nii"
    path.write_bytes(raw_header(**fields))
    with pytest.raises(InputError, match=message):
        nifti.read(path)


@pytest.mark.parametrize("spacing", [0.0, -1.0, np.nan, np.inf])
def test_a_spacing_that_is_none_is_refused(tmp_path, spacing):
    from flarekd.imaging.files import read_geometry, read_volume

    path = tmp_path / "a.nii"
    path.write_bytes(raw_header(qform_code=1, pixdim=[1, 2, spacing, 3, 1, 1, 1, 1]))
    for read in (read_volume, read_geometry):
        with pytest.raises(InputError, match=r"a\.nii: spacing is"):
            read(path)


def test_what_the_header_says_in_sform_and_qform_is_the_same(tmp_path, oblique):
    """Programs differ in which they read."""
    stored = np.zeros(oblique.size_xyz[::-1], np.int16)
    for code in ("sform_code", "qform_code"):
        header = np.frombuffer(build(stored, oblique)[:348], _layout(348, "<")).copy()
        header[0][code] = 0
        geometry = parse("a.nii", header.tobytes()).geometry
        np.testing.assert_allclose(geometry.direction, oblique.direction, atol=1e-6)
        np.testing.assert_allclose(geometry.origin_xyz, oblique.origin_xyz, rtol=1e-6)


def test_a_dtype_nifti_does_not_know_is_refused():
    with pytest.raises(ValueError, match="does not hold float16"):
        build(np.zeros((2, 2, 2), np.float16), Geometry((2, 2, 2), (1.0, 1.0, 1.0)))
