"""predict.sh in folders laid out as the image is, with a network of the quick size."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its usual name)
import torch

from flarekd import config
from flarekd.labels import NAMES
from flarekd.modelfile import ModelCard, save_model
from flarekd.student.network import StudentUNet

DOCKER = Path(__file__).parents[2] / "docker"
DIRECTION = (0.96, -0.28, 0, -0.28, -0.96, 0, 0, 0, 1)
DASH = "dash" if shutil.which("dash") else "sh"


def save_quick_student(path):
    quick = config.load(config.builtin("quick"), []).student
    torch.manual_seed(0)
    arguments = {
        "classes": len(NAMES),
        "channels": tuple(quick.channels),
        "strides": tuple(map(tuple, quick.strides)),
    }
    card = ModelCard(
        role="student",
        network=arguments,
        labels=NAMES,
        label_ids=tuple(range(len(NAMES))),
        spacing=tuple(quick.spacing),
        patch=tuple(quick.patch),
        intensity=(-200.0, 300.0, 50.0, 100.0),
    )
    save_model(path, StudentUNet(**arguments).state_dict(), card)


def save_scan(path, seed):
    noise = np.random.default_rng(seed).normal(0, 40, (12, 40, 48))
    _, y, x = np.meshgrid(*map(np.arange, noise.shape), indexing="ij")
    image = sitk.GetImageFromArray((300 * np.sin(x / 6) * np.cos(y / 8) + noise).astype(np.int16))
    image.SetSpacing((2.5, 3.0, 5.0))
    image.SetOrigin((-31.0, 45.5, 112.0))
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_quick_student(path)
    return path


@pytest.fixture
def workspace(tmp_path, model):
    """The image's /workspace, with a space in its path, and the program it has on its path."""
    root = tmp_path / "an image" / "workspace"
    for name in ("inputs", "outputs"):
        (root / name).mkdir(parents=True)
    shutil.copy(DOCKER / "predict.sh", root)
    shutil.copy(model, root)
    tool = tmp_path / "bin" / "flarekd"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flarekd "$@"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return root


def predict(workspace, shell, *arguments):
    path = f"{workspace.parents[1] / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        ["/usr/bin/env", f"PATH={path}", shell, "predict.sh", *arguments],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


LAID_OUT = ("inputs", "outputs", "model.safetensors")


def test_a_scan_becomes_the_label_map_that_the_challenge_wants(workspace):
    save_scan(workspace / "inputs" / "FLARETs_0001_0000.nii.gz", seed=1)
    done = predict(workspace, DASH, *LAID_OUT)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (workspace / "outputs").iterdir()] == ["FLARETs_0001.nii.gz"]
    scan = sitk.ReadImage(workspace / "inputs" / "FLARETs_0001_0000.nii.gz")
    labels = sitk.ReadImage(workspace / "outputs" / "FLARETs_0001.nii.gz")
    assert labels.GetPixelID() == sitk.sitkUInt8
    assert labels.GetSize() == scan.GetSize()
    np.testing.assert_allclose(labels.GetSpacing(), scan.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(labels.GetOrigin(), scan.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(labels.GetDirection(), scan.GetDirection(), atol=1e-6)
    found = np.unique(sitk.GetArrayFromImage(labels))
    assert len(found) > 1
    assert found.max() <= 14
    before = (workspace / "outputs" / "FLARETs_0001.nii.gz").read_bytes()
    done = predict(workspace, DASH, *LAID_OUT)  # into a folder that an earlier container filled
    assert done.returncode == 0, done.stderr
    assert (workspace / "outputs" / "FLARETs_0001.nii.gz").read_bytes() == before


def test_a_broken_scan_fails_the_run_and_the_others_are_done(workspace):
    inputs, outputs = workspace / "inputs", workspace / "outputs"
    save_scan(inputs / "a_0000.nii.gz", seed=1)
    save_scan(inputs / "c_0000.nii.gz", seed=2)
    (inputs / "b_0000.nii.gz").write_bytes((inputs / "a_0000.nii.gz").read_bytes()[:900])
    done = predict(workspace, "bash" if shutil.which("bash") else "sh", *LAID_OUT)
    assert done.returncode == 4
    assert "b_0000.nii.gz" in done.stderr
    assert sorted(path.name for path in outputs.iterdir()) == ["a.nii.gz", "c.nii.gz"]


def test_what_cannot_begin_ends_with_the_programs_status(workspace):
    done = predict(workspace, DASH, *LAID_OUT)
    assert done.returncode == 3
    assert "no scan in" in done.stderr
    assert not list((workspace / "outputs").iterdir())


def test_what_an_earlier_container_left_is_replaced_or_kept_and_never_in_the_way(workspace):
    inputs, outputs = workspace / "inputs", workspace / "outputs"
    save_scan(inputs / "a_0000.nii.gz", seed=1)
    save_scan(inputs / 'an odd "name" & $1.nii.gz', seed=2)
    (outputs / "a.nii.gz").write_bytes(b"of an earlier one")
    (outputs / "labels.txt").write_text("a stranger's")
    good = workspace / "model.safetensors"
    good.rename(workspace / "moved.safetensors")
    done = predict(workspace, DASH, *LAID_OUT)  # which ends before it begins
    assert done.returncode == 3
    assert (outputs / "a.nii.gz").read_bytes() == b"of an earlier one"
    (workspace / "moved.safetensors").rename(good)
    (outputs / "labels.txt").write_text("a stranger's")
    done = predict(workspace, DASH, *LAID_OUT)
    assert done.returncode == 0, done.stderr
    names = ["a.nii.gz", 'an odd "name" & $1.nii.gz']
    assert sorted(path.name for path in outputs.iterdir()) == names
    assert (outputs / "a.nii.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_without_arguments_the_images_own_folders_are_taken(workspace):
    if Path("/workspace").exists():
        pytest.skip("this machine has a /workspace")
    done = predict(workspace, DASH)
    assert done.returncode == 3
    assert "/workspace/inputs" in done.stderr


def test_the_image_copies_only_what_is_there_and_let_through():
    root = DOCKER.parent
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    ignored = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    assert "${MODEL}" in words
    for word in set(words) - {"${MODEL}"}:
        assert (root / word).exists()
        assert word.split("/")[0] in let_through
    assert lines.count('CMD ["sh", "predict.sh"]') == 1


def test_an_image_with_extras_holds_the_graph_that_its_containers_run(model, tmp_path):
    pytest.importorskip("openvino")
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    (line,) = [line for line in text.splitlines() if line.startswith('RUN if [ -n "$EXTRAS"')]
    shutil.copy(model, tmp_path / "model.safetensors")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = os.environ | {"EXTRAS": "cpu", "HOME": str(tmp_path / "home"), "PATH": path}
    made = set()
    for _ in range(2):  # the second as in a container, which makes none
        words = ["sh", "-c", line.removeprefix("RUN ")]
        subprocess.run(words, cwd=tmp_path, env=environment, check=True)
        (graph,) = tmp_path.glob("model.safetensors.graph-*.onnx")
        made.add((graph.name, graph.stat().st_mtime_ns))
    assert len(made) == 1
    assert len((tmp_path / "home/.cache/flarekd/graphs.txt").read_text("ascii").split()) == 1


def test_a_container_that_is_stopped_ends_its_program(workspace, tmp_path):
    """A shell as process 1 takes SIGTERM for itself, and would be killed after ten seconds."""
    tool = tmp_path / "bin" / "flarekd"
    tool.write_text(
        "#!/bin/sh\ntrap 'echo ended; exit 143' TERM\necho begun\nwhile :; do sleep 0.1; done\n"
    )
    process = subprocess.Popen(
        ["/usr/bin/env", f"PATH={tool.parent}:/usr/bin:/bin", DASH, "predict.sh", *LAID_OUT],
        cwd=workspace,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)  # the trap of the shell comes after its start
    process.terminate()
    said, _ = process.communicate(timeout=30)
    assert (said, process.returncode) == ("ended\n", 143)
