"""import-nnunet: from the files that nnU-Net leaves to a model file that segments."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from tests.end_to_end.command import flarekd
from tests.nnunet.networks import PublishedTeacher, UNetV1, UNetV2, shaken

from flarekd.errors import InputError, UsageError
from flarekd.imaging.files import read_labels, write_volume
from flarekd.imaging.volume import Geometry, Volume
from flarekd.inference import predictor
from flarekd.modelfile import file_hash, read_card, read_weights
from flarekd.stages.import_nnunet import import_nnunet
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet

STRIDES = ((1, 2, 2), (2, 2, 2))
KERNELS = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
CHANNELS = (4, 6, 8)
HU = {"percentile_00_5": -110.0, "percentile_99_5": 190.0, "mean": 40.0}
BLOCKS = {
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def v2_plans(**changes):
    network = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    configuration = {
        "spacing": [4.0, 1.5, 1.5],
        "patch_size": [8, 16, 16],
        "normalization_schemes": ["CTNormalization"],
        "architecture": {"network_class_name": network, "arch_kwargs": BLOCKS},
        **changes,
    }
    return {
        "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": {**HU, "std": 70.0}},
        "configurations": {"3d_fullres": configuration},
    }


def save_v2(folder, network, labels=("background", "liver", "tumor"), **changes):
    """A training's folder as nnU-Net v2 leaves it; the checkpoint."""
    plans = v2_plans(**changes)
    dataset = {"labels": {name: index for index, name in enumerate(labels)}}
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint.parent.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99)
    saved = {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "_growth_tracker": 3},
        "logging": {"mean_fg_dice": [np.float64(0.5)], "ema_fg_dice": [np.float32(0.25)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1000,
        "init_args": {
            "plans": plans,
            "configuration": "3d_fullres",
            "fold": 0,
            "dataset_json": dataset,
            "device": torch.device("cuda"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(saved, checkpoint)
    return checkpoint


def save_v1(folder, network, patch=(8, 16, 16), name="nnUNetTrainerV2"):
    """A training's folder as nnU-Net v1 leaves it; the checkpoint."""
    checkpoint = folder / "model_final_checkpoint.model"
    folder.mkdir(parents=True, exist_ok=True)
    stage = {"current_spacing": np.array([4.0, 1.5, 1.5]), "patch_size": np.array(patch)}
    plans = {
        "num_modalities": 1,
        "normalization_schemes": OrderedDict([(0, "CT")]),
        "use_mask_for_norm": OrderedDict([(0, False)]),
        "transpose_forward": [0, 1, 2],
        "preprocessor_name": "GenericPreprocessor",
        "plans_per_stage": {0: stage},
        "dataset_properties": {"intensityproperties": {0: {**HU, "sd": np.float64(70.0)}}},
    }
    init = ("plans.pkl", "all", "out", "data", True, 0, True, False, True)
    info = OrderedDict(init=init, name=name, plans=plans)
    checkpoint.with_name(checkpoint.name + ".pkl").write_bytes(pickle.dumps(info, protocol=4))
    state = OrderedDict((f"module.{key}", value) for key, value in network.state_dict().items())
    torch.save(
        {"epoch": 1000, "state_dict": state, "plot_stuff": ([np.float64(-0.8)], []), "amp": None},
        checkpoint,
    )
    return checkpoint


def student_v2(classes=3):
    return shaken(UNetV2(classes, CHANNELS, STRIDES, KERNELS, (2,) * 3, (2,) * 2))


def published():
    return shaken(PublishedTeacher(2, (4, 6, 8, 8, 8, 8, 8, 8)))


def run(checkpoint, out, plans=None, labels=None, orientation=None):
    import_nnunet(checkpoint, plans, out, labels=labels, orientation=orientation)


def logits(path, role, image):
    make = StudentUNet if role == "student" else TeacherUNet
    with torch.no_grad():
        return predictor.load(path, role, make, torch.device("cpu")).network(image)


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def assert_same(ours, theirs):
    assert float(theirs.abs().max()) > 0.1
    assert float((ours - theirs).abs().max()) < 1e-6 * max(1.0, float(theirs.abs().max()))


def test_a_checkpoint_of_v2_becomes_a_student_that_computes_the_same(tmp_path, capsys):
    network = student_v2()
    checkpoint = save_v2(tmp_path, network)
    out = tmp_path / "new" / "student.safetensors"
    run(checkpoint, out)
    card = read_card(out)
    assert card.role == "student"
    assert card.labels == ("background", "liver", "tumor")
    assert card.label_ids == (0, 1, 14)
    assert card.spacing == (4.0, 1.5, 1.5)
    assert card.patch == (8, 16, 16)
    assert card.intensity == (-110.0, 190.0, 40.0, 70.0)
    assert card.clip_first
    assert card.orientation == "LPS"
    assert card.training == {"imported": checkpoint.name, "sha256": file_hash(checkpoint)}
    image = images(2, 1, 8, 16, 16)
    assert_same(logits(out, "student", image), network(image)[0])
    assert "labels: 1 liver, 14 tumor" in capsys.readouterr().err


def test_a_checkpoint_of_v1_becomes_a_student_that_computes_the_same(tmp_path, capsys):
    network = shaken(UNetV1(3, CHANNELS, STRIDES, KERNELS))
    checkpoint = save_v1(tmp_path, network)
    run(checkpoint, tmp_path / "a.safetensors", labels="spleen, bladder")
    card = read_card(tmp_path / "a.safetensors")
    assert card.labels == ("background", "spleen", "bladder")
    assert card.label_ids == (0, 1, 2)
    assert not card.clip_first
    assert "names and ids are as it was trained" in " ".join(capsys.readouterr().err.split())
    image = images(2, 1, 8, 16, 16)
    assert_same(logits(tmp_path / "a.safetensors", "student", image), network(image)[0])
    run(checkpoint, tmp_path / "b.safetensors")
    assert read_card(tmp_path / "b.safetensors").labels == ("background", "label_1", "label_2")


def test_the_published_teacher_is_imported_and_what_is_left_out_is_told(tmp_path, capsys):
    network = published()
    checkpoint = save_v1(tmp_path, network, (512, 512), "nnUNetTrainerV2_Teacher")
    run(checkpoint, tmp_path / "teacher.safetensors", labels="tumor")
    card = read_card(tmp_path / "teacher.safetensors")
    assert card.role == "teacher"
    assert card.label_ids == (0, 14)
    assert card.spacing == (0.0, 1.5, 1.5)
    assert card.patch == (1, 512, 512)
    image = images(1, 1, 128, 256)
    assert_same(logits(tmp_path / "teacher.safetensors", "teacher", image), network(image))
    told = " ".join(capsys.readouterr().err.split())
    dead = [
        value.numel()
        for part in (network.conv_blocks_localization[1:], network.tu[1:])
        for value in part.state_dict().values()
    ]
    assert f"left out {len(dead)} tensors of {sum(dead):,} numbers that never run" in told


def test_a_2d_network_must_be_said_to_find_tumours(tmp_path):
    checkpoint = save_v1(tmp_path, published(), (512, 512))
    for labels, name in ((None, "label_1"), ("liver", "liver")):
        with pytest.raises(InputError, match=f"finds tumours; its output is '{name}'"):
            run(checkpoint, tmp_path / "m.safetensors", labels=labels)
    assert not (tmp_path / "m.safetensors").exists()


def test_plans_of_another_network_are_refused(tmp_path):
    checkpoint = save_v2(tmp_path, student_v2(), patch_size=[8, 16, 18])
    with pytest.raises(InputError, match=r"do not belong together: patch \(8, 16, 18\)"):
        run(checkpoint, tmp_path / "m.safetensors")
    flat = save_v1(tmp_path / "v1", shaken(UNetV1(3, CHANNELS, STRIDES, KERNELS)), (16, 16))
    with pytest.raises(InputError, match="do not belong together"):
        run(flat, tmp_path / "m.safetensors")


def test_a_wrong_number_of_labels_is_refused(tmp_path):
    checkpoint = save_v2(tmp_path, student_v2())
    with pytest.raises(InputError, match="3 names for 2 outputs") as caught:
        run(checkpoint, tmp_path / "m.safetensors", labels="liver,spleen,tumor")
    assert "give --labels with 2 names" in str(caught.value)


def test_an_orientation_that_does_not_exist_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no orientation is called 'XYZ'") as caught:
        run(tmp_path / "x.pth", tmp_path / "m.safetensors", orientation="XYZ")
    assert "LPS" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("saved", [{"weights": {}}, {"state_dict": {}}, {"state_dict": 3}, [1]])
def test_a_file_of_torch_that_is_no_checkpoint_is_refused(tmp_path, saved):
    torch.save(saved, tmp_path / "x.pth")
    with pytest.raises(InputError, match="is no checkpoint of nnU-Net"):
        run(tmp_path / "x.pth", tmp_path / "m.safetensors")


def test_what_is_no_tensor_among_the_weights_is_refused(tmp_path):
    torch.save({"state_dict": {"tu.0.weight": 3}}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"holds 'tu\.0\.weight' among the weights"):
        run(tmp_path / "x.pth", tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("code", "axes"), [("LPS", ()), ("RAS", (-1, -2)), ("RPS", (-1,)), ("LPI", (-3,))]
)
def test_a_network_trained_on_other_axes_sees_and_answers_along_its_own(tmp_path, code, axes):
    network = student_v2()
    checkpoint = save_v2(tmp_path, network)
    run(checkpoint, tmp_path / "m.safetensors", orientation=code)
    assert read_card(tmp_path / "m.safetensors").orientation == code
    image = images(1, 1, 8, 16, 16)
    expected = network(image.flip(axes))[0].flip(axes)
    assert_same(logits(tmp_path / "m.safetensors", "student", image), expected)
    if axes:
        plain = network(image)[0]
        assert float((plain - expected).abs().max()) > 0.1


def sided():
    """A v2 network that answers 1 where its array rises along x and 2 where it falls."""
    network = UNetV2(3, (4, 4), ((1, 2, 2),), ((1, 3, 3), (1, 3, 3)), (1, 1), (1,))
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
        first, last = network.encoder.stages[0][0].convs[0], network.decoder.stages[0].convs[0]
        # channel 0: right neighbour less left neighbour, channel 1 its opposite
        first.conv.weight[0, 0, 0, 1] = torch.tensor([-1.0, 0.0, 1.0])
        first.conv.weight[1, 0, 0, 1] = torch.tensor([1.0, 0.0, -1.0])
        first.norm.weight.fill_(1)
        # of [up, skip] the decoder passes the skip's two channels on
        last.conv.weight[0, 4, 0, 1, 1] = last.conv.weight[1, 5, 0, 1, 1] = 1
        last.norm.weight.fill_(1)
        network.decoder.seg_layers[0].weight[1, 0] = network.decoder.seg_layers[0].weight[2, 1] = 1
    return network.eval()


# a scan stored with x to the patient's right: what lies left lies at low x in the file
GEOMETRY = Geometry((16, 16, 8), (1.5, 1.5, 4.0), (30.0, -20.0, 5.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))


@pytest.mark.parametrize(("code", "left"), [("LPS", 1), ("RAS", 2)])
def test_left_and_right_come_out_right(tmp_path, code, left):
    """A bright plate in the patient's left half has one edge to each side; the network tells them.

    Along its own x, output 1 is a rise and output 2 a fall. In LPS the plate's rise is its right
    edge (x grows to the left); a network trained on RAS sees the array mirrored, so there its rise
    is the plate's left edge.
    """
    # the mean of the intensities all around: zeros, as what pads the windows
    array = np.full(GEOMETRY.shape_zyx, 40, np.int16)
    array[:, :, 9:13] = 150  # LPS: from nearly the middle outwards to the left
    write_volume(tmp_path / "scan.nii.gz", Volume(array, GEOMETRY))
    checkpoint = save_v2(tmp_path, sided())
    model = tmp_path / "m.safetensors"
    run(checkpoint, model, orientation=code)
    flarekd("infer", tmp_path / "scan.nii.gz", "--model", model, "--out", tmp_path / "o")
    row = read_labels(tmp_path / "o" / "scan.nii.gz").array[4, 8]
    rise, fall = {8, 9}, {12, 13}
    ids = {1: 1, 2: 14}
    at = {output: set(np.flatnonzero(row == ids[output]).tolist()) for output in (1, 2)}
    assert at[left] == rise
    assert at[3 - left] == fall


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["checkpoint", "plans"])
def test_the_command_line_runs_nothing_that_is_in_a_pickle(tmp_path, where):
    checkpoint = save_v1(tmp_path, shaken(UNetV1(3, CHANNELS, STRIDES, KERNELS)))
    plans = checkpoint.with_name(checkpoint.name + ".pkl")
    evil = Evil(f"touch {tmp_path / 'canary'}")
    if where == "checkpoint":
        torch.save({"state_dict": {}, "more": evil}, checkpoint)
    else:
        plans.write_bytes(pickle.dumps({"plans": evil}, protocol=4))
    done = flarekd(
        *["import-nnunet", "--checkpoint", checkpoint, "--plans", plans],
        *["--out", tmp_path / "m.safetensors"],
        check=False,
    )
    assert done.returncode == 3
    told = " ".join(done.stderr.split())
    assert "names 'posix.system', which no weights or plans need" in told
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "m.safetensors").exists()


def test_the_command_line_imports(tmp_path):
    checkpoint = save_v2(tmp_path, student_v2())
    out = tmp_path / "m.safetensors"
    done = flarekd(
        *["import-nnunet", "--checkpoint", checkpoint, "--plans", tmp_path / "plans.json"],
        *["--out", out, "--labels", "pancreas,lesion", "--orientation", "RAS"],
    )
    assert "student of" in done.stderr
    card = read_card(out)
    assert card.label_ids == (0, 4, 14)
    assert card.orientation == "RAS"
    assert len(read_weights(out)) == len(StudentUNet(**card.network).state_dict())


@pytest.mark.parametrize(
    ("changes", "labels", "said"),
    [
        ({"patch_size": [8192, 8192, 8192]}, None, "patch .* has more than 16,777,216 voxels"),
        ({"patch_size": [-8, 16, 16]}, None, "patch.0"),
        ({"spacing": [1e-320, 1, 1]}, None, "spacing.0"),
        ({}, ("background", "liver", "a\x1b[2J"), r"'a\\x1b\[2J' is no name of a label"),
    ],
)
def test_what_no_model_file_may_say_is_refused_and_nothing_is_written(
    tmp_path, changes, labels, said
):
    names = labels or ("background", "liver", "tumor")
    checkpoint = save_v2(tmp_path / "nnunet", student_v2(), names, **changes)
    with pytest.raises(InputError, match=f"cannot become a model: {said}"):
        run(checkpoint, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_two_labels_of_one_name_are_refused(tmp_path):
    checkpoint = save_v2(tmp_path / "nnunet", student_v2())
    with pytest.raises(InputError, match="two labels are called 'cyst'"):
        run(checkpoint, tmp_path / "a.safetensors", labels="cyst,cyst")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({f"w{i}": torch.zeros(1) for i in range(5001)}, "holds 5,001 weights"),
        ({"seg_outputs." + "9" * 5000 + ".weight": torch.zeros(1)}, "holds 'seg_outputs.999"),
        ({("a", "b"): torch.zeros(1)}, "holds tuple among the weights"),
    ],
    ids=["many", "long", "tuple"],
)
def test_weights_that_no_network_has_are_refused(tmp_path, state, said):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": state}, path)
    with pytest.raises(InputError, match=said):
        run(path, tmp_path / "a.safetensors")


def test_a_network_of_more_layers_than_any_is_refused_before_it_is_built(tmp_path):
    state = {"encoder.stages.0.0.convs.0.conv.weight": torch.zeros(2, 1, 1, 1, 1)}
    for i in range(1, 1000):
        state[f"encoder.stages.0.0.convs.{i}.conv.weight"] = torch.zeros(2, 2, 1, 1, 1)
    state |= {
        "encoder.stages.1.0.convs.0.conv.weight": torch.zeros(2, 2, 1, 1, 1),
        "decoder.transpconvs.0.weight": torch.zeros(2, 2, 2, 2, 2),
        "decoder.stages.0.convs.0.conv.weight": torch.zeros(2, 4, 1, 1, 1),
        "decoder.seg_layers.0.weight": torch.zeros(2, 2, 1, 1, 1),
    }
    path = tmp_path / "model.pth"
    torch.save({"network_weights": state}, path)
    with pytest.raises(InputError, match=r"cannot be built: network\.convs\.0: .* equal to 16"):
        run(path, tmp_path / "a.safetensors")
