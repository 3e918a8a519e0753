"""`--max-memory` is planned from headers and kept: the real process is watched by the kernel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from flarekd.imaging.files import write_volume
from flarekd.imaging.volume import Geometry, Volume
from flarekd.inference.memory_plan import Need, alone, need, overlapped
from flarekd.modelfile import ModelCard, save_model
from flarekd.student.network import StudentUNet

CLASSES = 15
GB = 10**9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student of 15 outputs at 2 mm, three scans of 400×400×120 and a small one."""
    folder = tmp_path_factory.mktemp("budget")
    torch.manual_seed(0)
    strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    arguments = {"classes": CLASSES, "channels": (2, 2, 4, 4), "strides": strides}
    card = ModelCard(
        role="student",
        network=arguments,
        labels=("background", *(f"class {i}" for i in range(1, CLASSES))),
        label_ids=tuple(range(CLASSES)),
        spacing=(2.0, 2.0, 2.0),
        patch=(32, 80, 80),
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 1.0, "windows": "full"},
    )
    save_model(folder / "student.safetensors", StudentUNet(**arguments).state_dict(), card)
    sizes = {"a": (400, 400, 120), "b": (400, 400, 120), "c": (400, 400, 120), "d": (90, 90, 30)}
    for name, size in sizes.items():
        geometry = Geometry(size, (0.8, 0.8, 1.0))
        z, y, x = np.meshgrid(*map(np.arange, geometry.shape_zyx), indexing="ij", sparse=True)
        array = (300 * np.sin(x / 40) * np.cos(y / 50 + z / 60)).astype(np.int16)
        write_volume(folder / "scans" / f"{name}.nii.gz", Volume(array, geometry))
    return folder


def infer(folder, out, *options):
    """Run the verb and return (exit status, bytes at its peak, stderr)."""
    command = ["infer", folder / "scans", "--model", folder / "student.safetensors", "--out", out]
    how = ["--device", "cpu", "--runtime", "torch", *options]
    peak = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
        child = subprocess.Popen(
            [sys.executable, "-m", "flarekd", *map(str, command), *how], stderr=told
        )
        status = Path(f"/proc/{child.pid}/status")
        # by the kernel's own mark while it lives: wait4 would count what this process holds, too
        while child.poll() is None:
            marks = re.findall(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))
            peak = max(peak, *map(int, marks), 0)
            time.sleep(0.02)
        told.seek(0)
        return child.returncode, peak * 1024, told.read()


WIDE = """
import sys
from pathlib import Path
import numpy as np
import SimpleITK as sitk
path = Path(sys.argv[1])
z, y, x = np.meshgrid(*map(np.arange, (200, 400, 400)), indexing="ij", sparse=True)
image = sitk.GetImageFromArray((300 * np.sin(x / 40) * np.cos(y / 50 + z / 60)))
image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))  # turned as it is read
image.SetSpacing((0.4, 0.4, 0.4))
path.parent.mkdir()
sitk.WriteImage(image, path)
"""
"""Writes a scan of 200×400×400 voxels of float64 that are no integers."""


def failed(out):
    return json.loads((out / "report.json").read_text(encoding="utf-8"))["failed"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_memory_allowed_is_kept_and_what_cannot_keep_to_it_is_named(folder, tmp_path):
    status, peak, told = infer(folder, tmp_path / "first", "--max-memory", "0.1")
    assert status == 2, told
    base = float(re.search(r"takes ([\d.]+) GB for one window", told)[1])
    assert peak / GB == pytest.approx(base, rel=0.25)
    # room for the scan of 90×90×30, not for those of 400×400×120
    limit = round(base + 0.03, 2)
    status, peak, told = infer(folder, tmp_path / "little", "--max-memory", str(limit))
    assert status == 4, told
    assert peak <= limit * GB
    assert set(failed(tmp_path / "little")) == {"a", "b", "c"}
    needed = float(re.search(r"takes about ([\d.]+) GB, --max-memory allows", told)[1])
    assert (tmp_path / "little" / "d.nii.gz").exists()
    # room for one large scan at a time
    limit = round(needed + 0.01, 2)
    status, peak, told = infer(folder, tmp_path / "enough", "--max-memory", str(limit))
    assert status == 0, told
    assert peak <= limit * GB
    assert not failed(tmp_path / "enough")
    # a plan that is far too careful helps nobody
    assert needed * GB < 1.35 * peak


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_wide_numbers_are_planned_for(folder, tmp_path):
    # in a process of its own: what this one holds would count as what its children held
    path = tmp_path / "scans" / "wide.nii"
    subprocess.run([sys.executable, "-c", WIDE, path], check=True)
    (tmp_path / "student.safetensors").symlink_to(folder / "student.safetensors")
    _, _, told = infer(tmp_path, tmp_path / "first", "--max-memory", "0.1")
    base = float(re.search(r"takes ([\d.]+) GB for one window", told)[1])
    status, _, told = infer(tmp_path, tmp_path / "little", "--max-memory", str(base + 0.05))
    assert status == 4, told
    needed = float(re.search(r"takes about ([\d.]+) GB, --max-memory allows", told)[1])
    limit = round(needed + 0.01, 2)
    status, peak, told = infer(tmp_path, tmp_path / "enough", "--max-memory", str(limit))
    assert status == 0, told
    assert 0.7 * needed * GB < peak <= limit * GB


def test_what_is_stored_and_what_lies_beside_count_by_the_voxel():
    sizes = (100, 200, 200), (50, 100, 100), 15, 50
    plain = need(*sizes, keeps_scan=True)
    wide = need(*sizes, keeps_scan=True, stored=8, beside=5)
    voxels = 100 * 200 * 200
    assert wide.reading - plain.reading == (16 - 6) * voxels
    assert wide.waiting - plain.waiting == 2 * voxels
    assert wide.writing - plain.writing == (2 + 5) * voxels


def test_what_a_case_takes_grows_with_its_voxels_and_not_with_classes_times_voxels():
    small = need((100, 200, 200), (50, 100, 100), 15, 50, keeps_scan=False)
    large = need((100, 400, 400), (50, 100, 100), 15, 50, keeps_scan=False)
    voxels = 100 * (400 * 400 - 200 * 200)
    assert large.network - small.network == voxels
    many = need((100, 400, 400), (50, 100, 100), 120, 50, keeps_scan=False)
    assert many.network - large.network == 105 * 4 * 50 * 100 * 100
    assert many.reading == large.reading
    few = need((100, 400, 400), (50, 100, 100), 120, 34, keeps_scan=False)
    assert many.network - few.network == 121 * 4 * 16 * 100 * 100
    kept = need((100, 400, 400), (50, 100, 100), 15, 50, keeps_scan=True)
    assert kept.network - large.network == 2 * 100 * 400 * 400


def test_overlapping_adds_what_the_neighbours_take():
    cases = [Need(5, 1, 10, 3), Need(7, 1, 8, 4)]
    assert [alone(case) for case in cases] == [10, 8]
    assert overlapped(cases) == 7 + 10 + 4
    assert overlapped(cases[:1]) == 10
