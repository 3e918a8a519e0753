"""A scan that a program holds is taken as from a file, or refused with what to do instead."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know
import torch

from flarekd.errors import InputError, UsageError
from flarekd.imaging.files import read_volume, write_volume
from flarekd.imaging.given import scan_given
from flarekd.imaging.volume import Geometry, Volume

MM = (3.0, 1.5, 1.25)
HU = np.random.default_rng(0).normal(0, 150, (9, 10, 11)).astype(np.int16)


def image(array=HU, **changes):
    """A SimpleITK image."""
    found = sitk.GetImageFromArray(array)
    found.SetSpacing(changes.get("spacing", MM[::-1])[: found.GetDimension()])
    return found


@pytest.mark.parametrize(
    "array",
    [
        HU,
        HU.astype(">i2"),
        HU.astype(np.float64),
        HU.astype(np.int64),
        np.asfortranarray(HU),
        HU[::-1, :, ::-1].copy()[::-1, :, ::-1],
        HU.tolist(),
        torch.from_numpy(HU),
    ],
    ids=["int16", "big-endian", "float64", "int64", "fortran", "view", "list", "tensor"],
)
@pytest.mark.parametrize("spacing", [MM, list(MM), np.array(MM)], ids=["tuple", "list", "array"])
def test_an_array_is_what_a_file_of_it_would_be(array, spacing):
    found = scan_given(array, spacing)
    assert found.array.dtype == np.int16
    assert (found.array == HU).all()
    assert found.array.flags.c_contiguous
    assert found.geometry == Geometry((11, 10, 9), (1.25, 1.5, 3.0))


def test_fractions_are_float32_and_what_was_given_is_not_changed():
    given = HU + 0.5
    found = scan_given(given, MM)
    assert found.array.dtype == np.float32
    assert given.dtype == np.float64
    np.testing.assert_array_equal(found.array, given.astype(np.float32))


def test_an_image_lies_where_a_file_of_it_would(tmp_path, oblique):
    array = np.arange(np.prod(oblique.shape_zyx), dtype=np.int16).reshape(oblique.shape_zyx)
    write_volume(tmp_path / "a.mha", Volume(array, oblique))
    expected = read_volume(tmp_path / "a.mha")
    found = scan_given(sitk.ReadImage(tmp_path / "a.mha"))
    assert (found.array == expected.array).all()
    assert found.geometry == expected.geometry
    assert found.notes == expected.notes


def test_what_is_doubtful_is_noted():
    assert any("only 2 slices" in note.what for note in scan_given(HU[:2], MM).notes)


@pytest.mark.parametrize(
    ("given", "spacing", "message"),
    [
        (HU, (np.nan, 1, 1), "spacing_zyx is (nan, 1, 1), not three positive numbers · give spac"),
        (HU, (np.inf, 1, 1), "spacing_zyx is (inf, 1, 1), not three positive numbers"),
        (HU, (0, 1, 1), "spacing_zyx is (0, 1, 1), not three positive numbers"),
        (HU, 1.5, "spacing_zyx is 1.5, not three positive numbers"),
        (HU, (1.0, 1.0), "spacing_zyx is (1.0, 1.0), not three positive numbers"),
        (HU, (1.0, 1.0, 1.0, 1.0), "not three positive numbers"),
        (HU, "abc", "spacing_zyx is 'abc', not three positive numbers"),
        (HU, (1e6, 1e6, 1e6), "the array: 11×10×9 voxels of 1e+06×1e+06×1e+06 mm are"),
        (HU + 1j, MM, "the array: voxels are complex128, not one number each"),
        (HU.astype(object), MM, "the array: voxels are object, not one number each"),
        (HU.astype(str), MM, "not one number each"),
        (HU[0], MM, "the scan (ndarray) has 2 axes, not 3 · give an array (z, y, x)"),
        (HU[None], MM, "the scan (ndarray) has 4 axes, not 3"),
        (None, None, "the scan (NoneType) has 0 axes, not 3"),
        (b"scan.nii.gz", None, "the scan (bytes) has 0 axes"),
        ([[1], [1, 2]], MM, "list is no array: "),
        (np.zeros((0, 3, 4)), MM, "the array: 4×3×0 voxels (x, y, z): there are none"),
        (np.full(HU.shape, np.nan), MM, "the array: 990 of 990 voxels are NaN or infinite"),
        (HU * 1e300, MM, "the array: values run from "),
        (image(HU[0]), None, "the image: 11×10 voxels, 2D; a scan is 3D"),
        (sitk.Image([4, 4, 4], sitk.sitkVectorInt16, 3), None, "the image: 3 numbers a voxel, not"),
        (
            image(HU + 1j),
            None,
            "the image: voxels are complex of 64-bit float, not one number each",
        ),
        (sitk.Image([4, 4, 4], sitk.sitkLabelUInt8), None, "the image: voxels are label of 8-bit"),
        (image(spacing=(1e6, 1, 1)), None, "the image: 11×10×9 voxels of 1e+06×1×1 mm are"),
        (
            Volume(np.full((9, 10, 11), np.nan), Geometry((11, 10, 9), MM)),
            None,
            "the Volume: 990 of 990 voxels are NaN",
        ),
        (Volume(HU * 1e300, Geometry((11, 10, 9), MM)), None, "the Volume: values run from"),
        (
            Volume(HU, Geometry((11, 10, 9), (1.0, np.nan, 1.0))),
            None,
            "the Volume: spacing is 1×nan×1 mm",
        ),
        ("none.nii.gz", None, "none.nii.gz: no such file"),
    ],
)
def test_what_is_no_scan_is_refused_with_what_to_give(given, spacing, message):
    with pytest.raises(InputError) as caught:
        scan_given(given, spacing)
    assert message in str(caught.value)
    assert caught.value.mend


def test_a_spacing_is_needed_with_an_array_and_refused_with_all_that_has_one():
    with pytest.raises(UsageError, match="an array is given without its spacing · give spacing"):
        scan_given(HU)
    for given in ("scan.nii.gz", image(), Volume(HU, Geometry((11, 10, 9), MM))):
        with pytest.raises(UsageError, match="the scan has a spacing of its own · leave it out"):
            scan_given(given, MM)


def test_an_array_is_taken_without_loading_simpleitk():
    code = (
        "import sys, numpy; from flarekd.imaging.given import scan_given; "
        "scan_given(numpy.zeros((9, 9, 9)), (1, 1, 1)); print('SimpleITK' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
