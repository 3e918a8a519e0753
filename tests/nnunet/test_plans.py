"""Plans say what a network expects; what flarekd would do otherwise is refused with its reason."""

from __future__ import annotations

import copy
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from flarekd.errors import InputError
from flarekd.imaging.intensity import FLARE22_STATISTICS
from flarekd.nnunet.plans import Plans, find_plans, read_plans

PERCENTILES = {"percentile_00_5": -972.0, "percentile_99_5": 294.0, "mean": 79.43}
BLOCKS = {
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": BLOCKS,
}
FULL = {
    "spacing": [4.0, 1.2, 1.2],
    "patch_size": [32, 128, 192],
    "normalization_schemes": ["CTNormalization"],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "architecture": ARCHITECTURE,
}
V2 = {
    "transpose_forward": [0, 1, 2],
    "image_reader_writer": "SimpleITKIO",
    "foreground_intensity_properties_per_channel": {"0": {**PERCENTILES, "std": 142.0}},
    "configurations": {
        "2d": {**FULL, "spacing": [0.8, 0.7], "patch_size": [512, 448]},
        "3d_fullres": FULL,
        "3d_big": {"inherits_from": "3d_fullres", "patch_size": [64, 128, 128]},
        "3d_cascade": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
}
LABELS = {"background": 0, "tumor": 2, "liver": 1, "ignore": 3}


def content(configuration="3d_fullres", trainer="nnUNetTrainer", labels=None):
    said = {"configuration": configuration, "dataset_json": {"labels": labels or LABELS}}
    return {"network_weights": {}, "init_args": said, "trainer_name": trainer}


def changed(facts, *changes):
    """A deep copy with ``(key, key, …, value)`` set."""
    facts = copy.deepcopy(facts)
    for *keys, last, value in changes:
        place = facts
        for key in keys:
            place = place[key]
        place[last] = value
    return facts


def read_v2(folder, plans, **said):
    path = folder / "plans.json"
    path.write_text(json.dumps(plans))
    return read_plans(path, content(**said))


def test_plans_of_v2_are_read(tmp_path):
    assert read_v2(tmp_path, V2) == Plans(
        (4.0, 1.2, 1.2),
        (32, 128, 192),
        FLARE22_STATISTICS,
        ("background", "liver", "tumor"),
        clip_first=True,
    )


def test_a_configuration_that_inherits_is_filled_from_its_parent(tmp_path):
    found = read_v2(tmp_path, V2, configuration="3d_big")
    assert found.patch == (64, 128, 128)
    assert found.spacing == (4.0, 1.2, 1.2)


def test_a_2d_configuration_keeps_each_cases_slices(tmp_path):
    found = read_v2(tmp_path, V2, configuration="2d")
    assert found.spacing == (0.0, 0.8, 0.7)
    assert found.patch == (1, 512, 448)


def test_plans_of_an_older_v2_name_their_network_alone(tmp_path):
    older = {key: value for key, value in FULL.items() if key != "architecture"}
    older["UNet_class_name"] = "PlainConvUNet"
    plans = changed(V2, ("configurations", "3d_fullres", older))
    assert read_v2(tmp_path, plans).patch == (32, 128, 192)
    older["UNet_class_name"] = "ResidualEncoderUNet"
    plans = changed(V2, ("configurations", "3d_fullres", older))
    with pytest.raises(InputError, match="its network is a ResidualEncoderUNet"):
        read_v2(tmp_path, plans)


def test_a_reader_that_reorients_says_the_orientation(tmp_path):
    assert read_v2(tmp_path, V2).orientation is None
    plans = changed(V2, ("image_reader_writer", "NibabelIOWithReorient"))
    assert read_v2(tmp_path, plans).orientation == "RAS"


FULLRES = ("configurations", "3d_fullres")
IN_BLOCKS = (*FULLRES, "architecture", "arch_kwargs")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((*FULLRES, "normalization_schemes", ["ZScoreNormalization"]), "normalises by 'ZScore'"),
        ((*FULLRES, "normalization_schemes", ["CTNormalization"] * 2), "2 input channels"),
        ((*FULLRES, "resampling_fn_data", "no_resampling_data_or_seg_to_shape"), "not resample"),
        ((*FULLRES, "architecture", "network_class_name", "a.ResidualEncoderUNet"), "Residual"),
        ((*IN_BLOCKS, "norm_op", "torch.nn.BatchNorm3d"), "instance norm and leaky ReLU"),
        ((*IN_BLOCKS, "nonlin", "torch.nn.ReLU"), "instance norm and leaky ReLU"),
        ((*IN_BLOCKS, "nonlin_kwargs", {"negative_slope": 0.2}), "instance norm and leaky ReLU"),
        ((*IN_BLOCKS, "nonlin_first", True), "instance norm and leaky ReLU"),
        (("transpose_forward", [2, 0, 1]), r"turns axes \(transpose_forward \[2, 0, 1\]\)"),
    ],
)
def test_what_flarekd_would_do_otherwise_than_v2_is_refused(tmp_path, change, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read_v2(tmp_path, changed(V2, change))
    assert str(tmp_path / "plans.json") in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"configuration": "3d_cascade"}, "'3d_cascade' is the second stage of a cascade"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "overlapping regions"),
        ({"trainer": "nnUNetTrainerReLU"}, "'nnUNetTrainerReLU' changes activation or norm"),
        ({"configuration": "3d_other"}, "is no plans file for this checkpoint: KeyError"),
        ({"labels": {"background": 0, "liver": 2}}, r"labels \[0, 2\] are not 0, 1, 2"),
    ],
)
def test_what_a_checkpoint_of_v2_says_beside_its_plans_is_heeded(tmp_path, said, reason):
    with pytest.raises(InputError, match=reason):
        read_v2(tmp_path, V2, **said)


STAGE = {
    "current_spacing": np.array([4.0, 1.2, 1.2]),
    "patch_size": np.array([32, 128, 192]),
    "pool_op_kernel_sizes": [[1, 2, 2]] * 5,
}
LOW = {**STAGE, "current_spacing": np.array([6.0, 2.0, 2.0]), "patch_size": np.array([64] * 3)}
V1 = {
    "num_modalities": 1,
    "normalization_schemes": OrderedDict([(0, "CT")]),
    "use_mask_for_norm": OrderedDict([(0, False)]),
    "transpose_forward": [0, 1, 2],
    "preprocessor_name": "GenericPreprocessor",
    "plans_per_stage": {0: STAGE},
    "dataset_properties": {
        "intensityproperties": OrderedDict(
            [
                (
                    0,
                    OrderedDict(
                        **{key: np.float64(value) for key, value in PERCENTILES.items()},
                        sd=np.float64(142.0),
                        local_props=OrderedDict(case=OrderedDict(mean=np.float32(3))),
                    ),
                )
            ]
        )
    },
}


def read_v1(folder, plans):
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(plans, protocol=4))
    return read_plans(path, {"state_dict": {}})


def trained(plans, stage, name="nnUNetTrainerV2"):
    """What v1 writes beside a checkpoint: the trainer's name and arguments, and the plans."""
    init = ("plans.pkl", "all", "out", "data", True, stage, True, False, True)
    return OrderedDict(init=init, name=name, plans=plans)


def test_plans_of_v1_are_read(tmp_path):
    expected = Plans((4.0, 1.2, 1.2), (32, 128, 192), FLARE22_STATISTICS)
    assert read_v1(tmp_path, V1) == expected
    assert read_v1(tmp_path, trained(V1, 0, "nnUNetTrainerV2_FLARE_Small")) == expected


def test_the_stage_of_v1_is_that_of_the_trainer(tmp_path):
    plans = changed(V1, ("plans_per_stage", {0: LOW, 1: STAGE}))
    assert read_v1(tmp_path, trained(plans, 1)).patch == (32, 128, 192)
    assert read_v1(tmp_path, trained(plans, 0)).patch == (64, 64, 64)
    with pytest.raises(InputError, match=r"which one this is only \*.model.pkl says"):
        read_v1(tmp_path, plans)


def test_2d_plans_of_v1_keep_each_cases_slices(tmp_path):
    flat = {"current_spacing": np.array([2.5, 0.8164, 0.8164]), "patch_size": np.array([512, 448])}
    found = read_v1(tmp_path, changed(V1, ("plans_per_stage", {0: flat})))
    assert found.spacing == (0.0, 0.8164, 0.8164)
    assert found.patch == (1, 512, 448)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("normalization_schemes", 0, "nonCT"), "normalises by 'nonCT'"),
        (("use_mask_for_norm", 0, True), "outside a mask are set to zero"),
        (("transpose_forward", [1, 0, 2]), "turns axes"),
        (("preprocessor_name", "PreprocessorFor3D_NoResampling"), "does not resample"),
    ],
)
def test_what_flarekd_would_do_otherwise_than_v1_is_refused(tmp_path, change, reason):
    with pytest.raises(InputError, match=reason):
        read_v1(tmp_path, changed(V1, change))


def test_two_modalities_of_v1_are_refused(tmp_path):
    plans = changed(V1, ("num_modalities", 2), ("normalization_schemes", {0: "CT", 1: "CT"}))
    with pytest.raises(InputError, match="2 input channels"):
        read_v1(tmp_path, plans)


@pytest.mark.parametrize(
    "name",
    ["nnUNetTrainerV2_ReLU", "nnUNetTrainerV2_Mish", "nnUNetTrainerV2_GN", "nnUNetTrainerV2_FRN"],
)
def test_a_trainer_that_changes_its_blocks_unseen_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"trainer '{name}' changes activation or norm"):
        read_v1(tmp_path, trained(V1, 0, name))


@pytest.mark.parametrize("plans", [{}, [], {"plans_per_stage": {}}, {"plans": 3}, 7])
def test_a_pickle_that_is_no_plans_file_is_refused(tmp_path, plans):
    with pytest.raises(InputError, match="is no plans file for this checkpoint"):
        read_v1(tmp_path, plans)


def test_a_plans_json_that_is_none_is_refused(tmp_path):
    (tmp_path / "plans.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_plans(tmp_path / "plans.json", content())


@pytest.mark.parametrize(
    ("checkpoint", "plans"),
    [
        ("fold_0/checkpoint_final.pth", "plans.json"),
        ("all/model_final_checkpoint.model", "all/model_final_checkpoint.model.pkl"),
        ("all/model_final_checkpoint.model", "plans.pkl"),
    ],
)
def test_plans_are_found_where_nnu_net_leaves_them(tmp_path, checkpoint, plans):
    (tmp_path / checkpoint).parent.mkdir()
    with pytest.raises(InputError, match="no plans beside"):
        find_plans(tmp_path / checkpoint)
    (tmp_path / plans).touch()
    assert find_plans(tmp_path / checkpoint) == tmp_path / plans


@pytest.mark.parametrize("parents", [{"a": "a"}, {"a": "b", "b": "c", "c": "a"}])
def test_configurations_that_inherit_in_a_ring_are_refused(tmp_path, parents):
    ring = {name: {"inherits_from": parent} for name, parent in parents.items()}
    plans = changed(V2, ("configurations", ring))
    with pytest.raises(InputError, match="configuration 'a' inherits without end"):
        read_v2(tmp_path, plans, configuration="a")


@pytest.mark.parametrize(
    "change",
    [
        ("spacing", ["a", 1, 1]),
        ("spacing", [[1], 1, 1]),
        ("spacing", [float("nan"), 1, 1]),
        ("spacing", {"0": 1, "1": 1, "2": 1}),
        ("patch_size", [32.5, 128, 192]),
        ("patch_size", [float("inf"), 128, 192]),
        ("patch_size", [True, None, 192]),
        ("patch_size", 3),
        ("normalization_schemes", 3),
    ],
)
def test_sizes_that_are_none_are_refused(tmp_path, change):
    plans = changed(V2, ("configurations", "3d_fullres", *change))
    with pytest.raises(InputError, match="is no plans file for this checkpoint"):
        read_v2(tmp_path, plans)


@pytest.mark.parametrize("value", [10**250 * 10**100, float("nan"), "x" * 10_000, [], None])
def test_intensities_that_are_none_are_refused(tmp_path, value):
    channels = {"0": {**PERCENTILES, "std": 142.0, "mean": value}}
    plans = changed(V2, ("foreground_intensity_properties_per_channel", channels))
    with pytest.raises(InputError, match=r"plans\.json'") as caught:
        read_v2(tmp_path, plans)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("labels", [{0: 0, 1: 1}, {"a": float("inf")}, {"a": "b"}, {(1,): 0}, [1]])
def test_labels_that_are_none_are_refused(tmp_path, labels):
    with pytest.raises(InputError, match="is no plans file for this checkpoint"):
        read_v2(tmp_path, V2, labels=labels)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[1]", "3", "\ufeff"])
def test_plans_nested_without_end_or_of_nothing_are_refused(tmp_path, text):
    path = tmp_path / "plans.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"plans\.json'"):
        read_plans(path, content())
