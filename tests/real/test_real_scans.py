"""Real scans, where they are at hand: read right, written back exactly, CT told from the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know
from tests.stages.test_infer import student

from flarekd.foreign import DATASETS, relabel
from flarekd.imaging.files import read_geometry, read_labels, read_volume, write_volume
from flarekd.imaging.intensity import Histogram, foreground_sample, not_ct_reason, statistics
from flarekd.labels import NAMES
from flarekd.stages.infer import Options, infer
from flarekd.volumetry import measure

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SCANS = {
    "ct_abdomen_3mm/image.nii.gz": (112, 101, 122),
    "ct_abdomen_slab_3mm/image.nii.gz": (30, 101, 122),
    "ct_abdomen_pelvis/image.nii.gz": (160, 256, 256),
    "mr_abdomen_not_ct/image.nii.gz": (20, 91, 117),
    "ct_oblique_phantom/image.nii.gz": (58, 248, 175),
    "ct_thorax_coarse_mha/image.mha": (64, 78, 57),
}
NOT_CT = {
    "mr_abdomen_not_ct/image.nii.gz": "an MR",
    "ct_oblique_phantom/image.nii.gz": "a picture of 0 to 255",
}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real scans at {DATA}")


@pytest.mark.parametrize("name", SCANS)
def test_a_real_scan_is_canonical_and_written_back_exactly(tmp_path, name):
    volume = read_volume(DATA / name)
    assert volume.array.shape == SCANS[name]
    assert volume.array.dtype == np.int16
    original = sitk.ReadImage(str(DATA / name))
    canonical = sitk.GetArrayFromImage(sitk.DICOMOrient(original, "LPS"))
    np.testing.assert_array_equal(volume.array, canonical)
    assert read_geometry(DATA / name) == volume.geometry
    copy = tmp_path / Path(name).name
    write_volume(copy, volume)
    written = sitk.ReadImage(str(copy))
    assert written.GetSize() == original.GetSize()
    assert written.GetSpacing() == original.GetSpacing()
    assert written.GetOrigin() == original.GetOrigin()
    np.testing.assert_allclose(written.GetDirection(), original.GetDirection(), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(original))


def test_every_real_scan_gets_a_label_map_exactly_on_its_grid(tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in SCANS:
        path = DATA / name
        suffix = "".join(path.suffixes)
        (scans / f"{path.parent.name}_0000{suffix}").symlink_to(path)
    model = student(tmp_path / "student.safetensors", spacing=(12.0, 8.0, 8.0))
    infer([scans], model, tmp_path / "out", Options("cpu", "torch"))
    for name in SCANS:
        scan = sitk.ReadImage(str(DATA / name))
        labels = sitk.ReadImage(str(tmp_path / "out" / f"{(DATA / name).parent.name}.nii.gz"))
        assert labels.GetSize() == scan.GetSize()
        # a MetaImage writes its numbers as text, NIfTI as float32
        for ours, theirs in (
            (labels.GetSpacing(), scan.GetSpacing()),
            (labels.GetOrigin(), scan.GetOrigin()),
            (labels.GetDirection(), scan.GetDirection()),
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert len(np.unique(sitk.GetArrayViewFromImage(labels))) > 1
    told = capsys.readouterr().err
    assert told.count("does not look like CT") == len(NOT_CT)


@pytest.mark.parametrize("name", SCANS)
def test_ct_passes_and_what_is_none_is_told(name):
    reason = not_ct_reason(read_volume(DATA / name).array)
    if name in NOT_CT:
        assert NOT_CT[name] in (reason or "")
    else:
        assert reason is None


def test_organs_lie_on_their_scan_and_on_the_right_side():
    image = read_volume(DATA / "ct_abdomen_3mm/image.nii.gz")
    organs = read_labels(DATA / "ct_abdomen_3mm/organs.nii.gz")
    assert image.geometry.mismatch(organs.geometry) is None
    centre = {
        label: np.argwhere(organs.array == label).mean(axis=0) for label in (1, 2, 3, 5, 6, 13)
    }
    # x grows to the patient's left: liver and right kidney before spleen and left kidney
    assert centre[1][2] < centre[3][2]
    assert centre[2][2] < centre[13][2]
    # the vena cava lies to the right of the aorta
    assert centre[6][2] < centre[5][2]
    found = statistics(Histogram.of(foreground_sample(image.array, organs.array)))
    assert 0 < found.mean < 80  # no contrast


def test_the_organs_that_the_top_slice_cuts_are_flagged_and_no_others():
    image = read_volume(DATA / "ct_abdomen_3mm/image.nii.gz")
    organs = read_labels(DATA / "ct_abdomen_3mm/organs.nii.gz")
    spacing = image.geometry.spacing_zyx
    found = measure(organs.array, image.array, spacing, dict(enumerate(NAMES[1:], start=1)))
    cut = {entry.name: entry.cut_off for entry in found.classes if entry.cut_off}
    top = ("liver", "spleen", "stomach", "aorta", "ivc")
    assert cut == dict.fromkeys(top, ("head",))
    hu = {entry.name: entry.mean_hu for entry in found.classes}
    assert 40 < hu["liver"] < 75  # no contrast
    assert hu["gallbladder"] < 25


def test_real_kidneys_under_one_id_are_told_apart_by_their_side():
    organs = read_labels(DATA / "ct_abdomen_3mm/organs.nii.gz")
    kidneys = np.where(np.isin(organs.array, [2, 13]), organs.array, 0)
    for kept in ([2, 13], [2], [13]):  # both, and after a nephrectomy
        truth = np.where(np.isin(kidneys, kept), kidneys, 0).astype(np.uint8)
        as_kits = (truth > 0).astype(np.uint8)
        found, doubt = relabel(as_kits, DATASETS["kits23"], organs.geometry.spacing_zyx[2])
        np.testing.assert_array_equal(found, truth)
        assert doubt == ""
