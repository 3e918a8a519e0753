"""The calls for Python users give what the command line writes, and say what is wrong with them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 -- the name its users know
import torch

import flarekd
from flarekd.errors import InputError, UsageError
from flarekd.imaging.files import read_labels, read_volume, write_volume
from flarekd.imaging.findings import Finding
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.modelfile import ModelCard, save_model
from flarekd.stages.infer import Options, infer
from flarekd.student.network import StudentUNet
from flarekd.student.segment import WindowSettings

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
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


@pytest.fixture
def student(model):
    return flarekd.load(model, device="cpu", runtime="torch")


def test_it_gives_what_the_command_line_writes(tmp_path, model, scan):
    infer([scan], model, tmp_path / "out", Options("cpu", "torch"))
    written = read_labels(tmp_path / "out" / "a.nii.gz")
    found = flarekd.segment(str(scan), str(model), device="cpu", runtime="torch")
    assert (found.array == written.array).all()
    assert set(np.unique(found.array)) <= {0, 1, 14}
    assert len(np.unique(found.array)) > 1
    assert found.geometry == read_volume(scan).geometry


def test_a_loaded_student_volumes_and_arrays_do_as_well(scan, student):
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


def test_an_image_of_simpleitk_is_taken_with_its_own_grid_and_its_labels_given_back(scan, student):
    image = sitk.ReadImage(scan)
    found = flarekd.segment(image, student)
    assert (found.array == flarekd.segment(scan, student).array).all()
    assert found.geometry.mismatch(read_volume(scan).geometry) is None
    labels = flarekd.to_simpleitk(found)
    for fact in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(labels, fact)() == getattr(image, fact)()
    # this scan is stored from the back to the front, and from above
    assert (sitk.GetArrayFromImage(labels) == found.array[::-1, ::-1]).all()


def test_the_page_does_what_it_shows(tmp_path, model, scan, monkeypatch):
    shutil.copy(model, tmp_path / "model.safetensors")
    shutil.copy(scan, tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    code = "".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    grid = read_volume(scan).geometry
    assert read_labels(tmp_path / "labels.nii.gz").geometry == grid
    assert names["on_the_image"].GetOrigin() == grid.origin_xyz
    assert read_labels(tmp_path / "out" / "scan.nii.gz").array.shape == GEOMETRY.shape_zyx


def test_windows_step_and_method_are_those_of_the_command_line(tmp_path, model, scan, student):
    settings = {"windows": "efficient", "step": 1.0, "method": "nearest"}
    infer([scan], model, tmp_path / "out", Options("cpu", "torch", WindowSettings(**settings)))
    written = read_labels(tmp_path / "out" / "a.nii.gz").array
    assert (flarekd.segment(scan, student, **settings).array == written).all()
    assert (flarekd.segment(scan, student).array != written).any()
    other = flarekd.load(model, device="cpu", runtime="torch", **settings)
    assert (flarekd.segment(scan, other).array == written).all()


def test_labels_are_written_as_the_command_line_writes_them(tmp_path, model, scan, student):
    infer([scan], model, tmp_path / "out", Options("cpu", "torch"))
    assert student.names == {1: "liver", 14: "tumor"}
    mine = str(tmp_path / "mine" / "a.nii.gz")
    flarekd.write_labels(mine, flarekd.segment(scan, student), student.names)
    assert Path(mine).read_bytes() == (tmp_path / "out" / "a.nii.gz").read_bytes()
    with pytest.raises(UsageError, match="ndarray is no label map · give what flarekd"):
        flarekd.write_labels(mine, np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(InputError, match="labels are float64, not uint8"):
        flarekd.write_labels(mine, LabelMap(np.zeros(GEOMETRY.shape_zyx), GEOMETRY))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtime": "foo"}, "no runtime is called 'foo' · use auto, torch, openvino, onnx"),
        ({"device": "xpu9x"}, "no device is called 'xpu9x' · use auto, cpu"),
        ({"device": None}, "no device is called None · use auto, cpu"),
        ({"windows": "most"}, "windows is 'most'"),
        ({"model": None}, "a model is a file, not a NoneType · give its path"),
    ],
)
def test_what_there_is_not_is_told_with_its_remedy(scan, model, arguments, message):
    with pytest.raises(UsageError) as caught:
        flarekd.segment(scan, **({"model": model} | arguments))
    assert message in str(caught.value)


def test_a_loaded_model_stays_where_it_is(scan, student):
    with pytest.raises(UsageError, match=r"once a model is loaded · give them to flarekd\.load"):
        flarekd.segment(scan, student, device="cuda")


def test_importing_the_package_imports_no_framework():
    told = "import flarekd, sys; print('torch' in sys.modules, 'segment' in dir(flarekd))"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
    with pytest.raises(AttributeError, match="no attribute 'cut'"):
        flarekd.cut  # noqa: B018 (the access is the test)
