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
from tests.imaging.dicom_series import write_series

from flarekd.imaging.files import read_labels, write_volume
from flarekd.imaging.volume import Geometry, Volume
from flarekd.inference.memory_plan import Need, alone, need, overlapped
from flarekd.modelfile import ModelCard, save_model
from flarekd.student.network import StudentUNet

CLASSES = 15
GB = 10**9
ROUNDED = 0.02
"""What is told has two digits, and two processes differ by 0.005."""

NETWORK = {
    "classes": CLASSES,
    "channels": (2, 2, 4, 4),
    "strides": ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student of 15 outputs at 2 mm, three scans of 400×400×120 and a small one."""
    folder = tmp_path_factory.mktemp("budget")
    torch.manual_seed(0)
    card = ModelCard(
        role="student",
        network=NETWORK,
        labels=("background", *(f"class {i}" for i in range(1, CLASSES))),
        label_ids=tuple(range(CLASSES)),
        spacing=(2.0, 2.0, 2.0),
        patch=(32, 80, 80),
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 1.0, "windows": "full"},
    )
    save_model(folder / "student.safetensors", StudentUNet(**NETWORK).state_dict(), card)
    sizes = {"a": (400, 400, 120), "b": (400, 400, 120), "c": (400, 400, 120), "d": (90, 90, 30)}
    for name, size in sizes.items():
        geometry = Geometry(size, (0.8, 0.8, 1.0))
        z, y, x = np.meshgrid(*map(np.arange, geometry.shape_zyx), indexing="ij", sparse=True)
        array = (300 * np.sin(x / 40) * np.cos(y / 50 + z / 60)).astype(np.int16)
        write_volume(folder / "scans" / f"{name}.nii.gz", Volume(array, geometry))
    return folder


def infer(folder, out, *options, scans=None):
    """Run the verb and return (exit status, bytes at its peak, stderr)."""
    scans = scans or folder / "scans"
    command = ["infer", scans, "--model", folder / "student.safetensors", "--out", out]
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


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A student that finds every class in every corner of noise; the same as MetaImage and DICOM.

    Two DICOM series that SimpleITK gives four and eight bytes a voxel of.
    """
    folder = tmp_path_factory.mktemp("noise")
    spacing = (1.2, 1.2, 2.5)
    # as many features as classes but one: its head is not set apart
    network = NETWORK | {"channels": (CLASSES - 1, 4, 4, 4)}
    card = ModelCard(
        role="student",
        network=network,
        labels=("background", *(f"class {i}" for i in range(1, CLASSES - 1)), "tumor"),
        label_ids=tuple(range(CLASSES)),
        spacing=(5.0, 3.6, 3.6),
        patch=(16, 80, 80),
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 1.0, "windows": "full"},
    )
    torch.manual_seed(0)
    weights = StudentUNet(**network).state_dict()
    # each class wins somewhere: the features are no less than 0
    head = torch.randn(CLASSES, CLASSES - 1)
    head -= head.mean(dim=1, keepdim=True)
    weights["heads.0.weight"] = head.view_as(weights["heads.0.weight"])
    save_model(folder / "student.safetensors", weights, card)
    hu = np.random.default_rng(0).integers(-200, 300, (64, 400, 400), dtype=np.int16)
    write_volume(folder / "meta" / "meta.mha", Volume(hu, Geometry((400, 400, 64), spacing)))
    where = {"gap_mm": spacing[2], "spacing": [spacing[1], spacing[0]]}
    write_series(folder / "wide" / "wide", hu, **where, bits=16)
    write_series(folder / "fractions" / "fractions", hu / 2, **where, slope=0.5)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize(
    ("formats", "extras"),
    [
        (["meta", "fractions"], []),
        (["wide"], ["--statistics", "--preview", "--dicom-seg"]),
    ],
    ids=["plain", "extras"],
)
def test_the_memory_allowed_is_kept_in_every_format_on_noise(noise, tmp_path, formats, extras):
    scans = [next((noise / name).iterdir()) for name in formats]
    together = tmp_path / "scans"
    together.mkdir()
    for scan in scans:
        (together / scan.name).symlink_to(scan)
    _, _, told = infer(noise, tmp_path / "no", "--max-memory", "0.1", *extras, scans=together)
    base = round(float(re.search(r"takes ([\d.]+) GB for one window", told)[1]) + 0.02, 2)
    _, _, told = infer(noise, tmp_path / "o", "--max-memory", str(base), *extras, scans=together)
    needed = dict(re.findall(r"scans/(\w+)\S* takes about ([\d.]+) GB", told))
    for name in formats:
        limit = round(float(needed[name]) + 0.02, 2)
        out = tmp_path / name
        how = ["--max-memory", str(limit), *extras]
        status, peak, told = infer(noise, out, *how, scans=noise / name)
        assert status == 0, told
        assert 0.75 * limit * GB < peak <= limit * GB, told
        assert np.unique(read_labels(out / f"{name}.nii.gz").array).size == CLASSES


WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
import re
import numpy as np
from flarekd.errors import UsageError
from flarekd.inference.exported import content_hash
from flarekd.segmenting import Options, _on_worker, _Order
folder, out = map(Path, sys.argv[1:])
model, scans = folder / "student.safetensors", folder / "scans"
order = _Order("", model, content_hash(model), out, Options("cpu", "torch"), ())
def run(name, limit, case):
    options = replace(order.options, max_memory_gb=limit)
    mine = replace(order, run=name, options=options)
    try:
        return _on_worker(mine, (case, scans / f"{case}.nii.gz")).failed
    except UsageError as error:  # not even the network fits
        return str(error)
limit = 0.3
while "takes about" not in (why := run(str(limit), limit, "a")):
    limit += 0.05
# what a process holds with a network differs by 0.04 from one loading to the next
limit = float(re.search(r"takes about ([\\d.]+) GB", why)[1]) + 0.1
print(run("first", limit, "a"))
for name, case in (("first", "b"), ("second", "c")):
    np.ones(50_000_000)  # what another scan took: 0.4 GB
    print(run(name, limit, case))
"""
"""What a worker of a cluster does, one scan after the other, and then for another run."""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_worker_refuses_no_scan_for_what_earlier_ones_took(folder, tmp_path):
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", WORKER, folder, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split() == ["None"] * 3


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
    limit = round(needed + ROUNDED, 2)
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
    limit = round(needed + ROUNDED, 2)
    status, peak, told = infer(tmp_path, tmp_path / "enough", "--max-memory", str(limit))
    assert status == 0, told
    assert 0.7 * needed * GB < peak <= limit * GB


def test_what_is_stored_and_what_lies_beside_count_by_the_voxel():
    sizes = (100, 200, 200), (50, 100, 100), 15, 50
    plain = need(*sizes, keeps_scan=True)
    voxels = 100 * 200 * 200
    wide = need(*sizes, keeps_scan=True, stored=8, labelling=7, beside=5 * voxels)
    assert wide.reading - plain.reading == (16 - 6) * voxels
    assert wide.waiting - plain.waiting == 2 * voxels
    assert wide.network - plain.network == 2 * voxels + 7
    # labels are written before what lies beside them
    assert wide.writing - plain.writing == (2 + 5 - 2) * voxels


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
