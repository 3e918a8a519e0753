from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know

from flarekd.imaging.orientation import to_canonical
from flarekd.imaging.volume import Geometry, Volume


def test_spacing_and_shape_follow_the_canonical_axes(grid, orientations):
    for order, signs in orientations:
        geometry = grid(order, signs, (16.0, -9.0, 5.0))
        assert geometry.shape_zyx == (7, 6, 5)
        assert geometry.spacing_zyx == (2.5, 0.9, 0.7)
        assert tuple(order[axis] for axis in geometry.axes) == (0, 1, 2)


def test_corners_span_the_same_box_however_it_is_stored(grid, orientations):
    expected = np.sort(grid((0, 1, 2), (1, 1, 1)).corners(), axis=0)
    for order, signs in orientations:
        np.testing.assert_allclose(
            np.sort(grid(order, signs).corners(), axis=0), expected, atol=1e-9
        )


def test_another_size_or_place_is_a_mismatch_told_in_words(oblique):
    assert oblique.mismatch(oblique) is None
    x, y, z = oblique.origin_xyz
    assert oblique.mismatch(replace(oblique, origin_xyz=(x + 1e-4, y, z))) is None
    assert oblique.mismatch(replace(oblique, origin_xyz=(x, y + 2, z))) == (
        "another origin, the farthest corner lies 2.00 mm off"
    )
    x_mm, y_mm, z_mm = oblique.spacing_xyz
    coarser = replace(oblique, spacing_xyz=(x_mm, y_mm, z_mm + 0.5), origin_xyz=(x, y + 2, z))
    assert (oblique.mismatch(coarser) or "").startswith("another spacing and origin, the farthest")
    turned = replace(oblique, direction=tuple(-cosine for cosine in oblique.direction))
    assert (oblique.mismatch(turned) or "").startswith("another direction, the farthest corner")
    assert oblique.mismatch(replace(oblique, size_xyz=(7, 5, 9))) == (
        "7×5×9 voxels against 7×5×6, the farthest corner lies 2.70 mm off"  # three rows of 0.9 mm
    )
    assert "nan" in (oblique.mismatch(replace(oblique, origin_xyz=(np.nan, y, z))) or "")


def test_the_spacing_of_a_single_slice_is_compared_too():
    one, other = (Geometry((7, 5, 1), (1.0, 1.0, mm)) for mm in (2.5, 5.0))
    assert one.mismatch(other) == "another spacing, the farthest corner lies 2.50 mm off"


def test_an_array_of_another_shape_is_no_volume():
    with pytest.raises(ValueError, match=r"its geometry \(4, 3, 2\)"):
        Volume(np.zeros((2, 3, 4)), Geometry((2, 3, 4), (1.0, 1.0, 1.0)))


def test_an_affine_leads_every_voxel_to_where_itk_sees_it(grid, orientations):
    for order, signs in orientations:
        geometry = grid(order, signs, (16.0, -9.0, 5.0))
        image = sitk.Image(geometry.size_xyz, sitk.sitkInt32)
        image.SetSpacing(geometry.spacing_xyz)
        image.SetOrigin(geometry.origin_xyz)
        image.SetDirection(geometry.direction)
        stored = np.arange(5 * 6 * 7).reshape(geometry.size_xyz[::-1])
        canonical = to_canonical(stored, geometry)
        index = (5, 1, 3)
        k, j, i = np.argwhere(stored == canonical[index])[0].tolist()
        np.testing.assert_allclose(
            geometry.affine_zyx() @ [*index, 1],
            image.TransformIndexToPhysicalPoint((i, j, k)),
            atol=1e-9,
        )
