"""A model file made ready: the network sees at inference what it saw in training, or is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from flarekd.errors import InputError
from flarekd.imaging.files import read_volume, write_labels, write_volume
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.inference import predictor
from flarekd.inference.predictor import Predictor
from flarekd.labels import NAMES
from flarekd.modelfile import ModelCard, file_hash, read_card, read_weights, save_model
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet
from flarekd.training.batches import Batches
from flarekd.training.prepare import Grid, Source, prepare

CPU = torch.device("cpu")
COS, SIN = np.cos(0.28), np.sin(0.28)
# (x, y, z) stored along z, x, y and partly backwards, oblique, anisotropic, off the origin
PERMUTED = Geometry(
    (12, 28, 24), (3.0, 0.75, 1.25), (-31.0, 45.5, 112.0), (0, COS, -SIN, 0, -SIN, -COS, -1, 0, 0)
)
TILTED = Geometry(
    (28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
)
INTENSITY = (-110.0, 190.0, 40.0, 70.0)
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
NETWORKS = {
    "student": (StudentUNet, {"classes": 3, "channels": (4, 4, 8, 8), "strides": STRIDES}),
    "teacher": (TeacherUNet, {"classes": 2, "channels": (4, 4, 8, 8, 8), "attention": "published"}),
}
SPACING = {"student": (4.0, 1.5, 1.5), "teacher": (0.0, 1.5, 1.5)}


pytestmark = pytest.mark.usefixtures("one_processor")


def card(role, **changes):
    _, network = NETWORKS[role]
    labels = tuple(f"class_{index}" for index in range(network["classes"]))
    facts = {
        "role": role,
        "network": network,
        "labels": labels,
        "label_ids": tuple(range(len(labels))),
        "spacing": SPACING[role],
        "patch": (8, 16, 16) if role == "student" else (1, 32, 32),
        "intensity": INTENSITY,
    }
    return ModelCard(**facts | changes)


def model(folder, role, **changes):
    """Write a model file with random weights."""
    torch.manual_seed(0)
    build, network = NETWORKS[role]
    path = folder / f"{role}.safetensors"
    save_model(path, build(**network).state_dict(), card(role, **changes))
    return path


def load(path, role):
    return predictor.load(path, role, NETWORKS[role][0], CPU)


def scan(folder, geometry):
    """A scan between -500 and 500 HU, and its labels: some tumour."""
    noise = np.random.default_rng(0).integers(-500, 500, geometry.shape_zyx)
    labels = np.zeros(geometry.shape_zyx, np.uint8)
    labels[3:7, 5:15, 6:18] = 14
    paths = folder / "case_a_0000.nii.gz", folder / "case_a.nii.gz"
    write_volume(paths[0], Volume(noise.astype(np.int16), geometry))
    write_labels(paths[1], LabelMap(labels, geometry))
    return Source("case_a", *paths)


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("geometry", [TILTED, PERMUTED])
def test_the_network_sees_what_the_training_store_holds(tmp_path, role, geometry):
    source = scan(tmp_path, geometry)
    grid = Grid(SPACING[role], (8, 16, 16), tumor_only=role == "teacher")
    (case,), _ = prepare([source], tmp_path / "store", grid, 1, lambda *_: None)
    ready = load(model(tmp_path, role), role)
    seen = ready.network_input(read_volume(source.image)).numpy()
    assert seen.dtype == np.float32
    assert seen.shape == case.shape_zyx == ((9, 20, 14) if role == "student" else (12, 20, 14))
    z, y, x = seen.shape
    hu, _ = case.read((slice(0, z), slice(0, y), slice(0, x)))
    trained = IntensityStatistics(*INTENSITY).normalize(hu)
    # the store rounds to whole HU, no more
    assert np.abs(seen - trained).max() <= 0.5 / INTENSITY[3] + 1e-5
    assert seen.min() == pytest.approx((INTENSITY[0] - INTENSITY[2]) / INTENSITY[3])
    assert seen.max() == pytest.approx((INTENSITY[1] - INTENSITY[2]) / INTENSITY[3])


def test_scans_are_clipped_before_or_after_resampling_as_the_card_says(tmp_path):
    geometry = Geometry((8, 4, 4), (1.0, 1.0, 1.0))
    array = np.full(geometry.shape_zyx, 100, np.int16)
    array[:, :, 4:] = -1000
    # voxels of half the size about the border: three quarters of one side, a quarter of the other
    mixed = np.array([-175, -725]), np.array([25, -125])
    for clip_first, hu in zip((False, True), mixed, strict=True):
        card = ModelCard(
            role="student",
            network={"classes": len(NAMES)},
            labels=NAMES,
            label_ids=tuple(range(len(NAMES))),
            spacing=(1.0, 1.0, 0.5),
            patch=(8, 16, 16),
            intensity=(-200.0, 300.0, 50.0, 100.0),
            clip_first=clip_first,
        )
        ready = Predictor(nn.Identity(), card, torch.device("cpu"), "")
        seen = ready.network_input(Volume(array, geometry))[2, 2, 7:9]
        expected = (np.clip(hu, -200, 300) - 50) / 100
        torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float32))


def test_a_training_batch_is_a_crop_of_what_the_network_sees_at_inference(tmp_path, quick_student):
    source = scan(tmp_path, TILTED)
    grid = Grid(SPACING["student"], (8, 16, 16), tumor_only=False)
    cases, _ = prepare([source], tmp_path / "store", grid, 1, lambda *_: None)
    ready = load(model(tmp_path, "student"), "student")
    seen = ready.network_input(read_volume(source.image))
    batch, _ = Batches(cases, quick_student, IntensityStatistics(*INTENSITY), 3)(0)
    patch = batch[0, 0]
    # the middle of the patch lies in the scan for certain: find it there by its values
    middle = patch[2:6, 6:10, 5:9]
    windows = seen.unfold(0, 4, 1).unfold(1, 4, 1).unfold(2, 4, 1)
    distance = (windows - middle).abs().amax((-1, -2, -3))
    assert distance.min() <= 0.5 / INTENSITY[3] + 1e-5
    assert (distance < 1).sum() == 1


@pytest.fixture
def quick_student():
    """A student's training without any augmentation."""
    from flarekd import config

    names = config.load(config.builtin("quick")).student.augmentation.model_dump()
    off = [
        f"student.augmentation.{name}=0"
        for name, value in names.items()
        if isinstance(value, float)
    ]
    small = ["patch=[8, 16, 16]", "oversize=[8, 16, 16]", "foreground=1.0"]
    settings = [*off, *(f"student.{setting}" for setting in small)]
    return config.load(config.builtin("quick"), settings).student


def test_the_teacher_keeps_each_cases_slices(tmp_path):
    ready = load(model(tmp_path, "teacher"), "teacher")
    for thickness in (0.9, 3.0, 5.0):
        geometry = Geometry((28, 24, 7), (0.75, 1.25, thickness))
        volume = Volume(np.zeros(geometry.shape_zyx, np.int16), geometry)
        assert ready.network_input(volume).shape == (7, 20, 14)


def test_air_is_below_its_own_threshold_even_where_air_is_clipped(tmp_path):
    air = np.full(8, -1000, np.int16)
    for lower in (-972.0, -110.0):
        intensity = (lower, *INTENSITY[1:])
        ready = load(model(tmp_path, "student", intensity=intensity), "student")
        statistics = IntensityStatistics(*intensity)
        assert (statistics.normalize(air) <= ready.air).all()
        assert (statistics.normalize(np.asarray([-90])) > ready.air).all()


def test_a_loaded_network_is_the_saved_one_ready_for_inference(tmp_path):
    path = model(tmp_path, "student")
    ready = load(path, "student")
    torch.manual_seed(0)
    expected = StudentUNet(**NETWORKS["student"][1]).state_dict()
    assert not ready.network.training
    assert all(torch.equal(value, expected[k]) for k, value in ready.network.state_dict().items())
    assert ready.sha256 == file_hash(path)
    assert ready.card.model_dump_json() == card("student").model_dump_json()


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="torch 2.8 itself does"
)
def test_loading_imports_no_computer_algebra(tmp_path):
    """Drawing weights on the meta device does, and takes longer than all else of the start."""
    path = model(tmp_path, "student")
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from flarekd.student.segment import Student\n"
        f"Student.load(Path({str(path)!r}), device=torch.device('cpu'), runtime='torch')\n"
        "assert 'sympy' not in sys.modules, 'sympy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("role", "code", "axes"),
    [
        ("student", "RAS", (-1, -2)),
        ("student", "LPI", (-3,)),
        ("teacher", "RAI", (-1, -2)),  # slices have no z to turn
        ("teacher", "LAS", (-2,)),
    ],
)
def test_a_network_of_other_axes_runs_on_windows_turned_round(tmp_path, role, code, axes):
    image = torch.randn(1, 1, *((8, 16, 16) if role == "student" else (32, 32)))
    plain = load(model(tmp_path, role), role).network
    turned = load(model(tmp_path, role, orientation=code), role).network
    assert not turned.training
    with torch.no_grad():
        assert torch.equal(turned(image), plain(image.flip(axes)).flip(axes))
        assert not torch.equal(turned(image), plain(image))


@pytest.mark.parametrize(("is_a", "needed"), [("teacher", "student"), ("student", "teacher")])
def test_a_model_of_the_other_role_is_refused(tmp_path, is_a, needed):
    path = model(tmp_path, is_a)
    with pytest.raises(InputError, match=f"is a {is_a}, a {needed} is needed") as caught:
        load(path, needed)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "network",
    [
        {"classes": 3, "channels": (4, 4, 8), "strides": STRIDES[1:]},
        {"classes": 3, "channels": (4, 4, 8), "strides": STRIDES},
        {"classes": 3, "channels": (4, 4, 8, 8), "strides": STRIDES, "convs": (2, 2)},
    ],
)
def test_weights_that_do_not_fit_their_card_are_refused(tmp_path, network):
    path = model(tmp_path, "student", network=network)
    with pytest.raises(InputError, match="do not fit its card") as caught:
        load(path, "student")
    assert str(path) in str(caught.value)


def test_a_torn_model_is_refused(tmp_path):
    path = model(tmp_path, "student")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is not a model file"):
        load(path, "student")


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a model file"):
        load(tmp_path / "none.safetensors", "student")


def test_a_card_that_asks_for_more_weights_than_its_file_holds_builds_nothing(tmp_path):
    path = model(tmp_path, "student")
    card = read_card(path)
    network = card.network | {"channels": [3000] * len(card.network["channels"])}
    save_model(path, read_weights(path), card.model_copy(update={"network": network}))
    with pytest.raises(InputError, match=r"do not fit its card: it asks for [\d,]+ weights"):
        load(path, "student")


def refused_student(tmp_path, **changes):
    """What is said of a student whose card says something else."""
    path = model(tmp_path, "student")
    card = read_card(path)
    save_model(path, read_weights(path), card.model_copy(update=changes))
    with pytest.raises(InputError) as caught:
        load(path, "student")
    return str(caught.value)


def test_a_patch_that_the_network_cannot_take_is_refused(tmp_path):
    said = refused_student(tmp_path, patch=(8, 15, 16))
    assert "do not fit its card: patch (8, 15, 16) is no multiple of (4, 8, 8)" in said
    assert "or no larger" in refused_student(tmp_path, patch=(4, 8, 8))


def test_a_window_that_takes_gigabytes_is_refused(tmp_path):
    network = {"classes": 3, "channels": (40, 1), "strides": ((1, 1, 1),), "convs": (1, 1)}
    network |= {"kernels": ((1, 1, 1),) * 2, "decoder_kernels": ((1, 1, 1),)}
    torch.manual_seed(0)
    path = tmp_path / "wide.safetensors"
    wide = card("student", network=network, patch=(256, 256, 256))
    save_model(path, StudentUNet(**network).state_dict(), wide)
    with pytest.raises(InputError, match="takes 1,342,177,280 numbers at once"):
        load(path, "student")


def test_attention_over_more_pixels_than_memory_holds_is_refused(tmp_path):
    network = {"classes": 2, "channels": (2, 2, 2, 2), "attention": "published"}
    path = tmp_path / "teacher.safetensors"
    many = card("teacher", labels=("background", "tumor"), label_ids=(0, 14), network=network,
                patch=(1, 1024, 1024))  # fmt: skip
    save_model(path, TeacherUNet(**network).state_dict(), many)
    with pytest.raises(InputError, match="takes 17,179,869,184 numbers at once"):
        load(path, "teacher")


def test_what_a_window_becomes_on_the_way_is_counted(tmp_path):
    sizes = []

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            given = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(given) if t is not None)
            return given

    for network, window in (
        (StudentUNet(3, (4, 8, 16), ((1, 2, 2), (2, 2, 2))), (8, 16, 24)),
        (TeacherUNet(2, (4, 8, 8, 8)), (64, 96)),  # attention takes most
        (TeacherUNet(2, (4, 8, 8, 8, 8, 8), "none"), (64, 96)),
    ):
        sizes.clear()
        with torch.no_grad(), Seen():
            network.eval()(torch.zeros(1, 1, *window))
        assert network.most_numbers(window) == max(sizes)


def test_a_scan_that_the_models_spacing_would_blow_up_is_refused():
    fine = card("student", spacing=(0.05, 0.05, 0.05))
    ready = Predictor(nn.Identity(), fine, torch.device("cpu"), "")
    with pytest.raises(InputError, match=r"this scan has 80,000,000,000 voxels.* coarser"):
        ready.grid(Geometry((400, 400, 500), (0.5, 0.5, 0.5)))
    assert ready.grid(Geometry((4, 4, 5), (0.5, 0.5, 0.5))) == (50, 40, 40)
