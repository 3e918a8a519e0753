"""Names in a label map's header: there for who looks, in the way of nobody."""

from __future__ import annotations

import gzip
import struct
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know

from flarekd.imaging.files import read_geometry, read_labels, write_labels
from flarekd.imaging.label_names import extension
from flarekd.imaging.orientation import to_stored
from flarekd.imaging.volume import LabelMap
from flarekd.labels import LABELS

NAMES = {label.id: label.name for label in LABELS}


@pytest.fixture
def case(oblique):
    """Every voxel another id, so that a wrong first byte shows."""
    count = int(np.prod(oblique.shape_zyx))
    return LabelMap(np.arange(count, dtype=np.uint8).reshape(oblique.shape_zyx), oblique)


def raw(path):
    return (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes())


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("names", [NAMES, {1: "x" * 7}, {1: "Düodenum <&> ]]>"}, {}])
def test_voxels_and_grid_are_read_as_without_names(tmp_path, case, name, names):
    write_labels(tmp_path / name, case, names)
    again = read_labels(tmp_path / name)
    np.testing.assert_array_equal(again.array, case.array)
    assert again.geometry.mismatch(case.geometry) is None
    assert read_geometry(tmp_path / name) == again.geometry
    image = sitk.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(image), to_stored(case.array, case.geometry)
    )
    np.testing.assert_allclose(image.GetOrigin(), case.geometry.origin_xyz, rtol=1e-6)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_extension_lies_where_the_standard_says(tmp_path, case, name):
    write_labels(tmp_path / name, case, NAMES)
    data = raw(tmp_path / name)
    (offset,) = struct.unpack("<f", data[108:112])
    assert data[348:352] == b"\1\0\0\0"
    length, code = struct.unpack("<ii", data[352:360])
    assert code == 0
    assert length % 16 == 0
    assert offset == 352 + length
    assert data[int(offset) :] == to_stored(case.array, case.geometry).tobytes()
    root = Xml.fromstring(data[360 : int(offset)].rstrip(b"\0").decode("utf-8"))
    assert root.tag == "CaretExtension"
    table = root.findall("VolumeInformation/LabelTable/Label")
    assert {int(entry.get("Key", "")): entry.text for entry in table} == NAMES
    liver = table[0]
    rgb = [float(liver.get(channel, "")) * 255 for channel in ("Red", "Green", "Blue")]
    np.testing.assert_allclose(rgb, LABELS[0].color, atol=0.02)
    assert root.findtext("VolumeInformation/VolumeType") == "Label"


def test_without_names_the_file_has_no_extension(tmp_path, case):
    write_labels(tmp_path / "a.nii", case)
    data = raw(tmp_path / "a.nii")
    assert struct.unpack("<f", data[108:112]) == (352.0,)
    assert data[348:352] == bytes(4)
    assert len(data) == 352 + case.array.size


def test_other_formats_leave_the_names_out(tmp_path, case):
    write_labels(tmp_path / "a.mha", case, NAMES)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.mha").array, case.array)


@pytest.mark.parametrize("length", range(1, 40))
def test_any_length_of_name_is_padded_to_sixteen_bytes(length):
    data = extension({1: "n" * length})
    assert len(data) % 16 == 0
    assert struct.unpack("<i", data[:4]) == (len(data),)
