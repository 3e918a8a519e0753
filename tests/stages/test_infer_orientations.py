"""`infer` on one patient stored in all 48 ways: the same labels at the same places."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its usual name)
import torch

from flarekd.labels import NAMES
from flarekd.modelfile import ModelCard, save_model
from flarekd.stages.infer import Options, infer
from flarekd.student.network import StudentUNet

CODES = [
    "".join(letters) for axes in permutations(("LR", "PA", "SI")) for letters in product(*axes)
]
STRIDES = ((1, 2, 2), (2, 2, 2))


def student(path, windows):
    """Random weights: labels that are nonsense, and depend on every voxel and its place."""
    torch.manual_seed(0)
    arguments = {"classes": len(NAMES), "channels": (4, 4, 8), "strides": STRIDES}
    card = ModelCard(
        role="student",
        network=arguments,
        labels=NAMES,
        label_ids=tuple(range(len(NAMES))),
        spacing=(4.0, 1.5, 1.5),
        patch=(8, 16, 16),
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 0.5, "windows": windows},
    )
    save_model(path, StudentUNet(**arguments).state_dict(), card)
    return path


def patient():
    """An image along LPS, of three unlike sizes and spacings, unlike in every direction."""
    z, y, x = np.meshgrid(np.arange(12), np.arange(22), np.arange(26), indexing="ij")
    hu = 300 * np.sin(x / 4) * np.cos(y / 5 + z / 6) + 5 * x - 3 * y + 8 * z
    hu += np.random.default_rng(0).normal(0, 40, hu.shape)
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing((0.75, 1.25, 3.0))
    image.SetOrigin((-31.0, 45.5, 112.0))
    return image


@pytest.mark.parametrize("windows", ["full", "efficient"])
def test_all_48_orientations_of_a_patient_get_the_same_labels(tmp_path, windows):
    (tmp_path / "scans").mkdir()
    image = patient()
    for code in CODES:
        stored = sitk.DICOMOrient(image, code)
        sitk.WriteImage(stored, str(tmp_path / "scans" / f"{code}_0000.nii.gz"))
    model = student(tmp_path / "student.safetensors", windows)
    infer([tmp_path / "scans"], model, tmp_path / "out", Options("cpu", "torch"))
    turned = {}
    for code in CODES:
        labels = sitk.ReadImage(str(tmp_path / "out" / f"{code}.nii.gz"))
        scan = sitk.ReadImage(str(tmp_path / "scans" / f"{code}_0000.nii.gz"))
        assert labels.GetSize() == scan.GetSize()
        for ours, its in (
            (labels.GetSpacing(), scan.GetSpacing()),
            (labels.GetOrigin(), scan.GetOrigin()),
            (labels.GetDirection(), scan.GetDirection()),
        ):
            np.testing.assert_allclose(ours, its, atol=1e-4)
        # turned back by another library
        turned[code] = sitk.GetArrayFromImage(sitk.DICOMOrient(labels, "LPS"))
    assert len(turned) == 48
    expected = turned["LPS"]
    assert len(np.unique(expected)) > 5
    # labels that look alike from another side would hide a turn that was forgotten
    for axis in range(3):
        assert (np.flip(expected, axis) != expected).mean() > 0.3
    for found in turned.values():
        np.testing.assert_array_equal(found, expected)
