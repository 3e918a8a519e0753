from __future__ import annotations

import gzip
import time
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know

from flarekd.errors import InputError
from flarekd.imaging.files import (
    case_id,
    list_scans,
    read_geometry,
    read_labels,
    read_volume,
    voxel_bytes,
    write_labels,
    write_volume,
)
from flarekd.imaging.orientation import to_stored
from flarekd.imaging.volume import LabelMap, Volume

FORMATS = ["nii", "nii.gz", "mha", "nrrd"]


def itk_image(array_kji, geometry):
    image = sitk.GetImageFromArray(array_kji)
    image.SetSpacing(geometry.spacing_xyz)
    image.SetOrigin(geometry.origin_xyz)
    image.SetDirection(geometry.direction)
    return image


def assert_same_grid(ours, theirs, tolerance=1e-6):
    assert ours.size_xyz == theirs.size_xyz
    np.testing.assert_allclose(ours.spacing_xyz, theirs.spacing_xyz, rtol=tolerance)
    np.testing.assert_allclose(ours.origin_xyz, theirs.origin_xyz, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours.direction, theirs.direction, atol=tolerance)


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (16.0, -9.0, 5.0)], ids=["upright", "oblique"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_all_48_orientations_read_as_one_canonical_array_and_are_written_as_they_were(
    tmp_path, grid, orientations, suffix, turn
):
    content = np.arange(210, dtype=np.int16).reshape(7, 6, 5)
    for order, signs in orientations:
        geometry = grid(order, signs, turn)
        stored = np.ascontiguousarray(to_stored(content, geometry))
        source, copy = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        sitk.WriteImage(itk_image(stored, geometry), str(source))
        volume = read_volume(source)
        np.testing.assert_array_equal(volume.array, content)
        assert_same_grid(volume.geometry, geometry)
        write_volume(copy, volume)
        again = sitk.ReadImage(str(copy))
        original = sitk.ReadImage(str(source))
        assert sitk.GetArrayFromImage(again).tobytes() == stored.tobytes()
        assert again.GetPixelID() == original.GetPixelID()
        np.testing.assert_allclose(again.GetSpacing(), original.GetSpacing(), rtol=1e-7)
        np.testing.assert_allclose(again.GetOrigin(), original.GetOrigin(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(again.GetDirection(), original.GetDirection(), atol=1e-6)
        twice = read_volume(copy)
        np.testing.assert_array_equal(twice.array, content)
        assert_same_grid(twice.geometry, volume.geometry)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_marker_stays_at_its_place_in_the_patient(tmp_path, grid, orientations, suffix):
    """Left stays left: world positions by SimpleITK, the canonical index by hand."""
    for order, signs in orientations:
        geometry = grid(order, signs, (16.0, -9.0, 5.0))
        image = itk_image(np.zeros(geometry.size_xyz[::-1], np.int16), geometry)
        marker = (1, 2, 3)  # stored i, j, k
        image[marker] = 1000
        place = np.asarray(image.TransformIndexToPhysicalPoint(marker))
        sitk.WriteImage(image, str(tmp_path / f"a.{suffix}"))
        volume = read_volume(tmp_path / f"a.{suffix}")
        (found,) = np.argwhere(volume.array == 1000)
        canonical = itk_image(np.ones(volume.array.shape, np.int16), grid((0, 1, 2), (1, 1, 1)))
        upright = grid((0, 1, 2), (1, 1, 1), (16.0, -9.0, 5.0))
        canonical.SetDirection(upright.direction)
        canonical.SetOrigin(upright.origin_xyz)
        there = canonical.TransformIndexToPhysicalPoint([int(index) for index in found[::-1]])
        np.testing.assert_allclose(there, place, atol=1e-4)
        write_volume(tmp_path / f"b.{suffix}", volume)
        again = sitk.ReadImage(str(tmp_path / f"b.{suffix}"))
        assert again[marker] == 1000
        np.testing.assert_allclose(again.TransformIndexToPhysicalPoint(marker), place, atol=1e-4)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_geometry_is_read_from_the_header_alone(tmp_path, oblique, voxels, suffix):
    path = tmp_path / f"a.{suffix}"
    write_volume(path, Volume(voxels, oblique))
    assert read_geometry(path) == read_volume(path).geometry
    assert_same_grid(read_geometry(path), oblique)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([-1024, 0, 3071], np.int32), np.int16),
        (np.array([-1024, 0, 3071], np.float64), np.int16),
        (np.array([0, 32767, 5], np.uint16), np.int16),
        (np.array([0, 40000, 5], np.uint16), np.float32),
        (np.array([-1000.5, 0, 1], np.float32), np.float32),
    ],
)
def test_integers_that_fit_become_int16_and_the_rest_float32(
    tmp_path, oblique, voxels, values, dtype
):
    array = np.resize(values, voxels.shape)
    write_volume(tmp_path / "a.nii.gz", Volume(array, oblique))
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array, array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_count(tmp_path, oblique, voxels, bad):
    array = voxels.astype(np.float32)
    array[2, 1, 0] = array[0, 0, 0] = bad
    write_volume(tmp_path / "a.nii.gz", Volume(array, oblique))
    with pytest.raises(InputError, match=r"a\.nii\.gz: 2 of 210 voxels are NaN or infinite"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
@pytest.mark.parametrize("suffix", FORMATS)
def test_labels_come_back_as_uint8(tmp_path, oblique, suffix, dtype):
    ids = np.resize(np.arange(15), oblique.shape_zyx).astype(dtype)
    write_volume(tmp_path / f"a.{suffix}", Volume(ids, oblique))
    labels = read_labels(tmp_path / f"a.{suffix}")
    assert labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.array, ids)
    write_labels(tmp_path / f"b.{suffix}", labels)
    assert sitk.ReadImage(str(tmp_path / f"b.{suffix}")).GetPixelID() == sitk.sitkUInt8


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, r"labels are no integers: 1 of 210 voxels, such as 0\.5"),
        (-1, "labels run from -1 to 0"),
        (256, "labels run from 0 to 256"),
    ],
)
def test_what_are_no_labels_is_refused(tmp_path, oblique, value, message):
    array = np.zeros(oblique.shape_zyx, np.float32)
    array[0, 0, 0] = value
    write_volume(tmp_path / "a.nii.gz", Volume(array, oblique))
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "a.nii.gz")


def test_labels_that_are_not_uint8_are_not_written(tmp_path, oblique, voxels):
    with pytest.raises(ValueError, match="int16, not uint8"):
        write_labels(tmp_path / "a.nii.gz", LabelMap(voxels, oblique))
    assert list(tmp_path.iterdir()) == []


def test_the_same_volume_gives_the_same_bytes_a_second_later(tmp_path, oblique, voxels):
    for suffix in FORMATS:
        write_volume(tmp_path / f"a.{suffix}", Volume(voxels, oblique))
    time.sleep(1.1)  # gzip's clock ticks in seconds
    for suffix in FORMATS:
        write_volume(tmp_path / f"b.{suffix}", Volume(voxels, oblique))
        first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
        assert first == second


@pytest.mark.parametrize("suffix", [*FORMATS, "mhd"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "torn"])
def test_damaged_files_are_refused_by_name_and_quietly(tmp_path, capfd, suffix, damage):
    path = tmp_path / f"case.{suffix}"
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 30, 40)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), useCompression=suffix != "mhd")
    torn = tmp_path / "case.raw" if suffix == "mhd" else path
    whole = torn.read_bytes()
    if damage == "torn":
        torn.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_bytes(b"" if damage == "empty" else b"<html>not found</html>\n" * 100)
    with pytest.raises(InputError, match=rf"case\.{suffix}: ") as error:
        read_volume(path)
    assert error.value.mend
    assert capfd.readouterr() == ("", "")


def test_every_cut_of_a_gzip_file_is_noticed(tmp_path, oblique, voxels):
    path = tmp_path / "a.nii.gz"
    write_volume(path, Volume(voxels, oblique))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.nii\.gz"):
            read_volume(path)


def test_a_gzip_file_whose_sum_is_wrong_is_refused(tmp_path, oblique, voxels):
    path = tmp_path / "a.nii.gz"
    write_volume(path, Volume(voxels, oblique))
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="torn: CRC check failed"):
        read_volume(path)


def test_every_damaged_byte_of_a_gzip_file_is_noticed_or_harmless(tmp_path, oblique, voxels):
    path = tmp_path / "a.nii.gz"
    write_volume(path, Volume(voxels, oblique))
    whole = path.read_bytes()
    for place in range(10, len(whole)):  # before it the header: a time, a system, nothing checked
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"a\.nii\.gz"):
            read_volume(path)


def test_a_gzip_file_of_several_members_is_one_scan(tmp_path, oblique, voxels):
    write_volume(tmp_path / "a.nii", Volume(voxels, oblique))
    plain = (tmp_path / "a.nii").read_bytes()
    members = [gzip.compress(plain[i : i + 500]) for i in range(0, len(plain), 500)]
    path = tmp_path / "b.nii.gz"
    path.write_bytes(b"".join(members))
    np.testing.assert_array_equal(read_volume(path).array, voxels)
    path.write_bytes(b"".join(members[:-1]))
    with pytest.raises(InputError, match=r"b\.nii\.gz: the file is torn"):
        read_volume(path)


def test_a_gzip_file_is_read_by_others_and_names_no_file_and_no_time(tmp_path, oblique, voxels):
    for name in ("a.nii", "a.nii.gz"):
        write_volume(tmp_path / name, Volume(voxels, oblique))
    packed = (tmp_path / "a.nii.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "a.nii").read_bytes()
    # RFC 1952: magic, deflate, no optional fields, then four bytes of time
    assert packed[:8] == b"\x1f\x8b\x08\x00" + bytes(4)


def test_the_content_counts_where_the_name_forgets_gzip(tmp_path, oblique, voxels):
    write_volume(tmp_path / "a.nii", Volume(voxels, oblique))
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    (tmp_path / "c.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    for name in ("b.nii.gz", "c.nii"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, voxels)


@pytest.mark.parametrize("suffix", FORMATS)
def test_flat_coloured_and_serial_images_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    flat = sitk.GetImageFromArray(np.zeros((8, 9), np.int16))
    colour = sitk.GetImageFromArray(np.zeros((4, 8, 9, 3), np.uint8), isVector=True)
    series = sitk.JoinSeries([sitk.Image(9, 8, 4, sitk.sitkInt16)] * 2)
    for image in (flat, colour, series):
        sitk.WriteImage(image, str(path))
        with pytest.raises(InputError, match=rf"a\.{suffix}: "):
            read_volume(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_fourth_axis_of_one_volume_is_dropped(tmp_path, oblique, voxels, suffix):
    stored = np.ascontiguousarray(to_stored(voxels, oblique))
    image = sitk.JoinSeries([itk_image(stored, oblique)])
    sitk.WriteImage(image, str(tmp_path / f"a.{suffix}"))
    volume = read_volume(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(volume.array, voxels)
    assert_same_grid(volume.geometry, oblique)


def test_what_is_not_there_or_of_no_known_format_says_how_to_mend(tmp_path):
    with pytest.raises(InputError, match=r"gone\.nii\.gz: no such file · check the path"):
        read_volume(tmp_path / "gone.nii.gz")
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"unknown format '\.png' · use \.nii\.gz"):
        read_volume(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.mhd", "a.png", "a"])
def test_other_endings_are_not_written(tmp_path, oblique, voxels, name):
    with pytest.raises(InputError, match=r"cannot write .* name it \.nii\.gz"):
        write_volume(tmp_path / name, Volume(voxels, oblique))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_an_input_error(tmp_path, oblique, voxels):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written"):
        write_volume(tmp_path / "file" / "a.nii.gz", Volume(voxels, oblique))


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("FLARE23_0001_0000.nii.gz", "FLARE23_0001"),
        ("FLARE23_0001.nii.gz", "FLARE23_0001"),
        ("a.b.nii", "a.b"),
        ("A.NII.GZ", "A"),
        ("x.mha", "x"),
        ("x_0000.nrrd", "x"),
        ("_0000.nii.gz", "_0000"),
        ("folder", "folder"),
    ],
)
def test_the_case_is_the_name_without_ending_and_channel(tmp_path, name, case):
    assert case_id(tmp_path / name) == case


def test_scans_are_listed_by_case_and_left_overs_are_not(tmp_path):
    names = ["b_0000.nii.gz", "a.mha", "c.nrrd", "d.mhd", "e.nii"]
    for name in [*names, ".tmp-12-f.nii.gz", "._a.mha", "d.raw", "notes.txt"]:
        (tmp_path / name).touch()
    (tmp_path / "empty_folder").mkdir()
    found = list_scans(tmp_path)
    assert list(found) == ["a", "b", "c", "d", "e"]
    assert found["b"] == tmp_path / "b_0000.nii.gz"


def test_two_scans_of_one_case_are_refused(tmp_path):
    (tmp_path / "a_0000.nii.gz").touch()
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(InputError, match=r"a\.nii\.gz and a_0000\.nii\.gz are both case 'a'"):
        list_scans(tmp_path)


def test_a_folder_that_is_not_there_is_refused_and_an_empty_one_is_empty(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        list_scans(tmp_path / "gone")
    assert list_scans(tmp_path) == {}


@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd"])
def test_what_itk_hands_on_of_another_format_is_no_damage(tmp_path, suffix):
    """ITK writes the header of the file that it read into the next: keys such as ``dim[0]``."""
    source, path = tmp_path / "nifti.nii", tmp_path / f"a.{suffix}"
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    sitk.WriteImage(image, str(source))
    image = sitk.ReadImage(str(source))
    for tag in ("0008|0060", "0020|000d"):
        image.SetMetaData(tag, "CT")
    sitk.WriteImage(image, str(path))
    header = path.read_bytes()[:5000]
    assert b"dim[0]" in header
    assert b"0008|0060" in header
    np.testing.assert_array_equal(read_volume(path).array, read_volume(source).array)


@pytest.mark.parametrize(
    "where", ["/etc/passwd", "../a.raw", "deep/a.raw", "..", "C:a.raw", "LIST"]
)
@pytest.mark.parametrize("suffix", ["mha", "mhd"])
def test_a_metaimage_reads_no_file_but_one_beside_it(tmp_path, suffix, where):
    path = tmp_path / f"a.{suffix}"
    header = "NDims = 3\nDimSize = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = "
    path.write_text(f"{header}{where}\n/etc/passwd\n", encoding="utf-8")
    with pytest.raises(InputError, match="its voxels lie in"):
        read_volume(path)


@pytest.mark.parametrize("field", ["data file: /etc/passwd", "DATAFILE: b.raw", "data file: LIST"])
def test_a_nrrd_reads_no_other_file(tmp_path, field):
    path = tmp_path / "a.nrrd"
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1 1 1\nencoding: raw\n"
    path.write_text(f"{header}{field}\n\n", encoding="utf-8")
    with pytest.raises(InputError, match="its voxels lie in"):
        read_volume(path)


def test_a_pair_of_header_and_voxels_is_read(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.mhd"))
    assert (tmp_path / "a.raw").exists()
    assert sorted(read_volume(tmp_path / "a.mhd").array.ravel()) == list(range(60))


META = {
    "NDims": "3",
    "DimSize": "2 2 2",
    "ElementSpacing": "1 1 2.5",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "ElementType": "MET_SHORT",
    "BinaryData": "True",
    "ElementDataFile": "LOCAL",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "2 2 2",
    "space directions": "(1,0,0) (0,1,0) (0,0,2.5)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(0,0,0)",
}
LONG = "x" * 5000


EIGHT = np.arange(-3, 5, dtype="<i2").tobytes()


def write_header(path, fields, voxels=EIGHT):
    separator, begin, end = (" = ", "", "") if path.suffix == ".mha" else (": ", "NRRD0004\n", "\n")
    lines = "".join(f"{key}{separator}{value}\n" for key, value in fields.items())
    path.write_bytes(f"{begin}{lines}{end}".encode() + voxels)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("a.mha", {"NDims": "99999"}),  # ITK's own parser ends the process
        ("a.mha", {"NDims": "0"}),
        ("a.mha", {"DimSize": "2 2"}),
        ("a.mha", {"DimSize": "2 2 -2"}),
        ("a.mha", {"DimSize": "2 2 0"}),
        ("a.mha", {"ElementSpacing": "1 1 nan"}),
        ("a.mha", {"TransformMatrix": "1 0 0 0 1 0 0 0"}),
        ("a.mha", {"ElementType": LONG}),
        ("a.mha", {LONG: "1"}),
        ("a.mha", {"Comment": LONG}),
        ("a.mha", {"DimSize: 7 8 9": "x"}),  # which MetaIO would take for a DimSize of its own
        ("a.mha", {"ElementDataFile: /etc/passwd": "x"}),
        ("a.nrrd", {"kinds": LONG}),  # so does this one
        ("a.nrrd", {"type": LONG}),
        ("a.nrrd", {"dimension": "16"}),
        ("a.nrrd", {"sizes": "2 2"}),
        ("a.nrrd", {"space directions": "(1,0,0) (0,1,0) 5"}),
        ("a.nrrd", {"unheard": "of"}),
        ("a.nrrd", {f"own {index}": "=text" for index in range(500)}),
    ],
)
def test_headers_that_nobody_writes_are_refused_before_itk_sees_them(tmp_path, name, changes):
    sound = META if name == "a.mha" else NRRD
    write_header(tmp_path / name, sound)
    assert read_volume(tmp_path / name).array.ravel().tolist() == list(range(-3, 5))
    write_header(tmp_path / name, changes | sound | changes)
    with pytest.raises(InputError, match=f"{name}: "):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_compressed_voxels_that_are_damaged_are_refused(tmp_path, oblique, voxels, suffix, capfd):
    """MetaIO says so on the screen and goes on, or waits for ever (a zlib stream's bit FDICT)."""
    path = tmp_path / f"a.{suffix}"
    write_volume(path, Volume(voxels, oblique))
    whole = path.read_bytes()
    begin = whole.index(b"LOCAL\n" if suffix == "mha" else b"\n\n") + (6 if suffix == "mha" else 2)
    for at in [*range(begin, begin + 12), len(whole) - 9, len(whole) - 3]:
        for bit in (1, 32, 128):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            try:
                found = read_volume(path).array
            except InputError as error:
                found = str(error)
            if isinstance(found, str):
                assert "voxels cannot be read" in found
            else:  # a time or an operating system in gzip's header
                assert np.array_equal(found, voxels)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "f4", ">f8"])
@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_compressed_voxels_of_every_type_and_order_are_itks(tmp_path, suffix, dtype):
    array = np.random.default_rng(0).integers(0, 250, (3, 4, 5)).astype(dtype)
    packed = zlib.compress(array.tobytes()) if suffix == "mha" else gzip.compress(array.tobytes())
    is_big = dtype.startswith(">")
    names = {
        "u1": "UCHAR",
        "i2": "SHORT",
        "u2": "USHORT",
        "i4": "INT",
        "f4": "FLOAT",
        "f8": "DOUBLE",
    }
    name = names[dtype.removeprefix(">")]
    if suffix == "mha":
        fields = META | {
            "DimSize": "5 4 3", "ElementType": f"MET_{name}", "CompressedData": "True",
            "CompressedDataSize": str(len(packed)),
            "BinaryDataByteOrderMSB": str(is_big),
        }  # fmt: skip
        fields["ElementDataFile"] = fields.pop("ElementDataFile")
    else:
        fields = NRRD | {
            "sizes": "5 4 3", "type": name.lower(), "encoding": "gzip",
            "endian": "big" if is_big else "little",
        }  # fmt: skip
    path = tmp_path / f"a.{suffix}"
    write_header(path, fields, packed)
    mine = read_volume(path).array
    assert np.array_equal(mine.ravel(), array.ravel())
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), array)


def test_a_header_of_numbers_is_checked_in_no_time(tmp_path):
    """A pattern that could split numbers in several ways would try them all."""
    began = time.monotonic()
    write_header(tmp_path / "a.mha", {"Offset": "1234567890 " * 49 + "x", **META})
    with pytest.raises(InputError, match="header cannot be read"):
        read_volume(tmp_path / "a.mha")
    assert time.monotonic() - began < 20


def test_scale_factors_beyond_any_number_are_refused_without_a_warning(tmp_path, oblique, voxels):
    path = tmp_path / "a.nii"
    write_volume(path, Volume(voxels, oblique))
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([3e38, 3e38], "<f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match="voxels are NaN or infinite"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_bytes_a_voxel_are_known_from_the_header(tmp_path, suffix, kind):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), kind)), path)
    assert voxel_bytes(path) == np.dtype(kind).itemsize


@pytest.mark.parametrize("suffix", [".nii", ".mha"])
def test_values_beyond_float32_are_refused(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    array = np.zeros((3, 4, 5))
    array[1, 2, 3] = -1e300
    sitk.WriteImage(sitk.GetImageFromArray(array), path)
    with pytest.raises(InputError, match=r"values run from -1e\+300"):
        read_volume(path)
