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


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 100, b"\x80\x04K\x01."])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (read_card, read_weights):
        with pytest.raises(InputError, match="is not a model file"):
            read(path)


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
