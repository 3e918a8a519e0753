import json

import pytest
import torch
from safetensors.torch import save_file

from flarekd.errors import InputError
from flarekd.modelfile import KEY, ModelCard, read_card, read_weights, save_model


def card(**changes):
    facts = {
        "role": "student",
        "network": {"classes": 2},
        "labels": ("background", "tumor"),
        "label_ids": (0, 14),
        "spacing": (4.0, 1.2, 1.2),
        "patch": (32, 128, 192),
        "intensity": (-972.0, 294.0, 79.43, 142.0),
    }
    return ModelCard(**(facts | changes))


def test_a_model_survives_writing_and_reading(tmp_path):
    path = tmp_path / "model.safetensors"
    weights = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
    save_model(path, weights, card())
    assert read_card(path) == card()
    assert read_card(path).statistics.sd == 142.0
    found = read_weights(path)
    assert torch.equal(found["a"], weights["a"])
    assert found["n"].item() == 3


def test_whoever_may_read_other_new_files_may_read_a_model(tmp_path):
    save_model(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, card())
    (tmp_path / "other").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("model.safetensors", "other")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 100, b"\x80\x04K\x01."])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (read_card, read_weights):
        with pytest.raises(InputError, match="is not a model file"):
            read(path)


def test_a_folder_is_no_model_and_says_so(tmp_path):
    with pytest.raises(
        InputError, match=r"is a folder, no model file · give the \*\.safetensors in"
    ):
        read_card(tmp_path)


def test_weights_without_a_card_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="carries no flarekd card"):
        read_card(path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"format": 2}, "format"),
        ({"role": "x"}, "role"),
        ({"more": 1}, "more"),
        ({"labels": 3}, "labels"),
    ],
)
def test_a_card_this_version_does_not_know_is_refused(tmp_path, change, key):
    path = tmp_path / "model.safetensors"
    facts = json.loads(card().model_dump_json()) | change
    save_file({"a": torch.zeros(1)}, path, metadata={KEY: json.dumps(facts)})
    with pytest.raises(InputError, match=f"unusable: {key}"):
        read_card(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_ids": [0]}, "2 labels but 1 label_ids"),
        ({"label_ids": [0, 256]}, "label_ids.1"),
        ({"label_ids": [0, -1]}, "label_ids.1"),
        ({"patch": [32, 0, 192]}, "patch.1"),
        ({"patch": [10**9, 8, 8]}, "patch .* has more than 16,777,216 voxels"),
        ({"patch": [512, 512, 512]}, "patch .* has more than 16,777,216 voxels"),
        ({"patch": [1, 1, 4097]}, "or 4,096 along an axis"),
        ({"label_ids": [0, 0]}, "must begin with 0, the background, none of them twice"),
        ({"labels": ["a"] * 9999, "label_ids": [0] * 9999}, "must begin with 0, .*none|label_ids"),
        ({"inference": {"x" * 9999: 1}}, "inference.xxx"),
        ({"label_ids": [14, 0]}, "must begin with 0, the background, none of them twice"),
        ({"labels": ["background", "a", "b"], "label_ids": [0, 1, 2]}, "3 labels, but 2 network"),
        ({"labels": ["background", "a\x1b[2J"]}, "is no name of a label"),
        ({"labels": ["background", " "]}, "is no name of a label"),
        ({"labels": ["background", "a" * 101]}, "is no name of a label"),
        ({"labels": ["tumor", "tumor"]}, "two labels are called 'tumor'"),
        ({"spacing": [1e-320, 1, 1]}, "spacing.0: 1e-320 mm is not 0, nor 0.05 to 50"),
        ({"spacing": [0.04, 1, 1]}, "spacing.0"),
        ({"spacing": [1, 999, 1]}, "spacing.1"),
        ({"role": "teacher"}, "a teacher sees slices"),
        ({"inference": {"step": "abc"}}, "inference.step: Input should be a valid number"),
        ({"inference": {"step": "0.5"}}, "inference.step"),
        ({"inference": {"step": 1e-9}}, "inference.step: .* greater than or equal to 0.05"),
        ({"inference": {"step": 1.5}}, "inference.step"),
        ({"inference": {"windows": "none"}}, "inference.windows: Input should be 'full'"),
        ({"inference": {"windows": ["full"]}}, "inference.windows"),
        ({"inference": {"probe": 3}}, "inference.probe"),
        ({"inference": {"min_foreground": 0.5}}, "inference.min_foreground"),
        ({"inference": {"threshold": 1}}, "inference.threshold"),
        ({"inference": {"threshold": float("nan")}}, "inference.threshold"),
        ({"inference": {"min_ml": float("inf")}}, "inference.min_ml"),
        ({"inference": {"stepp": 0.5}}, "inference.stepp: Extra inputs"),
        ({"fingerprint": {"spacing_mm": {"p5": 3}}}, "fingerprint.spacing_mm"),
        ({"fingerprint": {"intensity": {"mean": "a", "sd": 1}}}, "fingerprint.intensity.mean"),
        ({"network": {}}, "network.classes: Field required"),
        ({"network": {"classes": 2, "stridez": 1}}, "network.stridez: Extra inputs"),
        ({"network": {"classes": 2, "channels": [8, 10**9]}}, "network.channels.1"),
        ({"network": {"classes": 2, "convs": [8000, 8000]}}, "network.convs.0"),
        ({"network": {"classes": 2, "kernels": [[3, 3]]}}, "network.kernels.0"),
        ({"network": {"classes": True}}, "network.classes"),
        ({"spacing": [-1, 1, 1]}, "spacing.0"),
        ({"spacing": [1e9, 1, 1]}, "spacing.0"),
        ({"spacing": [float("nan"), 1, 1]}, "spacing.0"),
        ({"intensity": [0, 0, 0, 0]}, "intensity statistics make no sense"),
        ({"network": {"classes": 2, "channels": [1] * 9999}}, "network.channels: .* at most 12"),
        ({"network": {"classes": 2, "convs": [10**9]}}, "network.convs.0"),
        ({"network": {"classes": 2, "convs": [float("nan")]}}, "network.convs.0"),
        ({"trained_on": "x" * (1 << 20)}, "is longer than 1,048,576 letters"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(tmp_path, change, said):
    path = tmp_path / "model.safetensors"
    facts = json.loads(card().model_dump_json()) | change
    save_file({"a": torch.zeros(1)}, path, metadata={KEY: json.dumps(facts)})
    with pytest.raises(InputError, match=said) as caught:
        read_card(path)
    assert len(str(caught.value)) < 1000  # however long what it quotes


def test_what_an_older_card_says_stays_as_it_is(tmp_path):
    path = tmp_path / "model.safetensors"
    said = {
        "inference": {"probe": "center", "min_foreground": 1, "threshold": 0.95, "min_ml": 24},
        "fingerprint": {"cases": 2, "spacing_mm": None, "of old": {"a": [1]}},
        "training": {"dsc": None, "anything": [{"b": "c"}]},
        "network": {"classes": 2, "channels": [4, 4], "strides": [[1, 2, 2]], "bias": True},
    }
    facts = json.loads(card().model_dump_json()) | said
    save_file({"a": torch.zeros(1)}, path, metadata={KEY: json.dumps(facts)})
    assert json.loads(read_card(path).model_dump_json()) == facts
    assert read_card(path).looking.min_ml == 24
    assert read_card(path).looking.step == 0.5  # what it does not say


def test_a_card_of_endless_brackets_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={KEY: "[" * 100_000})
    with pytest.raises(InputError, match="unusable: card"):
        read_card(path)


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="is not a model file"):
        read_card(path)
