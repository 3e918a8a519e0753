"""The one call for Python users gives what the command line writes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import flarekd
from flarekd.errors import InputError
from flarekd.imaging.files import read_labels, read_volume, write_volume
from flarekd.imaging.findings import Finding
from flarekd.imaging.volume import Geometry, Volume
from flarekd.modelfile import ModelCard, save_model
from flarekd.stages.infer import Options, infer
from flarekd.student.network import StudentUNet
from flarekd.student.segment import Student, windows_together

NAMES = ("background", "liver", "tumor")
GEOMETRY = Geometry((20, 18, 9), (1.5, 1.25, 3.0), (5.0, -3.0, 70.0), (1, 0, 0, 0, -1, 0, 0, 0, -1))


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(3)
    strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    arguments = {"classes": 3, "channels": (4, 4, 8, 8), "strides": strides}
    card = ModelCard(
        role="student",
        network=arguments,
        labels=NAMES,
        label_ids=(0, 1, 14),
        spacing=(4.0, 2.0, 2.0),
        patch=(8, 16, 16),
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 0.5, "windows": "full"},
    )
    save_model(tmp_path / "student.safetensors", StudentUNet(**arguments).state_dict(), card)
    return tmp_path / "student.safetensors"


@pytest.fixture
def scan(tmp_path):
    array = np.random.default_rng(0).normal(0, 150, GEOMETRY.shape_zyx).astype(np.int16)
    write_volume(tmp_path / "a_0000.nii.gz", Volume(array, GEOMETRY))
    return tmp_path / "a_0000.nii.gz"


def test_it_gives_what_the_command_line_writes(tmp_path, model, scan):
    infer([scan], model, tmp_path / "out", Options("cpu", "torch"))
    written = read_labels(tmp_path / "out" / "a.nii.gz")
    found = flarekd.segment(str(scan), str(model), device="cpu", runtime="torch")
    assert (found.array == written.array).all()
    assert set(np.unique(found.array)) <= {0, 1, 14}
    assert len(np.unique(found.array)) > 1
    assert found.geometry == read_volume(scan).geometry


def test_a_loaded_student_volumes_and_arrays_do_as_well(model, scan):
    student = Student.load(model, device=torch.device("cpu"), runtime="torch")
    volume = read_volume(scan)
    expected = flarekd.segment(scan, student).array
    assert (flarekd.segment(volume, student).array == expected).all()
    found = flarekd.segment(volume.array, student, spacing_zyx=(3.0, 1.25, 1.5))
    assert (found.array == expected).all()
    assert found.geometry.spacing_zyx == (3.0, 1.25, 1.5)


def test_what_is_amiss_in_a_scan_is_warned_of(model, scan):
    volume = read_volume(scan)
    with pytest.warns(UserWarning, match="the scan does not look like CT in Hounsfield units: "):
        flarekd.segment(Volume(np.abs(volume.array), GEOMETRY), model, device="cpu")
    mended = Finding("mended", "scl_slope is NaN", "taken as stored")
    with pytest.warns(UserWarning, match="scl_slope is NaN"):
        flarekd.segment(Volume(volume.array, GEOMETRY, (mended,)), model, device="cpu")


def test_gpus_are_given_as_many_voxels_as_a_window_of_the_published_student():
    cuda = torch.device("cuda")
    assert windows_together((32, 128, 192), cuda) == 1
    assert windows_together((64, 128, 192), cuda) == 1
    assert windows_together((16, 32, 40), cuda) == 38
    assert windows_together((16, 32, 40), torch.device("cpu")) == 1


def test_arrays_that_are_no_scan_are_refused(model):
    student = Student.load(model, device=torch.device("cpu"), runtime="torch")
    with pytest.raises(InputError, match="an array of 3 axes with spacing None"):
        flarekd.segment(np.zeros((3, 4, 5)), student)
    with pytest.raises(InputError, match="2 axes"):
        flarekd.segment(np.zeros((4, 5)), student, spacing_zyx=(1, 1, 1))
    with pytest.raises(InputError, match="NaN"):
        flarekd.segment(np.full((3, 4, 5), np.nan), student, spacing_zyx=(1, 1, 1))


def test_importing_the_package_imports_no_framework():
    told = "import flarekd, sys; print('torch' in sys.modules, 'segment' in dir(flarekd))"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
    with pytest.raises(AttributeError, match="no attribute 'cut'"):
        flarekd.cut  # noqa: B018 (the access is the test)
