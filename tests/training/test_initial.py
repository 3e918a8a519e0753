"""A training starts from another model: what fits is taken, the rest is its own, both are told."""

from __future__ import annotations

import pytest
import torch

from flarekd.errors import InputError
from flarekd.modelfile import ModelCard, file_hash, save_model
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet
from flarekd.training.initial import open_initial, start_from

CHANNELS, STRIDES = (2, 4, 6), ((1, 2, 2), (2, 2, 2))


def student(seed, classes=3, channels=CHANNELS, strides=STRIDES):
    torch.manual_seed(seed)
    return StudentUNet(classes, channels, strides)


def saved(path, network, role="student", **facts):
    card = ModelCard(
        role=role,
        network={"classes": 2},
        labels=("background", "tumor"),
        label_ids=(0, 14),
        spacing=(4.0 if role == "student" else 0.0, 1.2, 1.2),
        patch=(8 if role == "student" else 1, 16, 16),
        intensity=(-110.0, 190.0, 40.0, 70.0),
        **facts,
    )
    save_model(path, network.state_dict(), card)
    return open_initial(path)


def taken_from(other, network):
    """Names whose weights equal those of `other`."""
    given = other.state_dict()
    own = network.state_dict()
    return {n for n in own if n in given and torch.equal(own[n], given[n])}


def test_a_student_of_other_classes_takes_all_but_the_heads(tmp_path):
    other, network, untouched = student(1, classes=15), student(2), student(2)
    initial = saved(tmp_path / "a.safetensors", other)
    told = start_from(initial, network)
    # biases and norms start the same everywhere: a kernel shows what the own start was
    heads = {"heads.0.weight", "heads.1.weight"}
    assert taken_from(other, network) == set(network.state_dict()) - heads
    assert heads <= taken_from(untouched, network)
    assert "encoder.0.0.0.weight" not in taken_from(untouched, network)
    assert told == [
        f"42 of 44 tensors start from {tmp_path / 'a.safetensors'}",
        "of another shape there, initialised anew: 2 (heads.0.weight, heads.1.weight)",
    ]


def test_the_same_network_takes_everything(tmp_path):
    other, network = student(1), student(2)
    told = start_from(saved(tmp_path / "a.safetensors", other), network)
    assert taken_from(other, network) == set(network.state_dict())
    assert told == [f"44 of 44 tensors start from {tmp_path / 'a.safetensors'}"]


def test_what_is_there_alone_and_what_is_here_alone_is_told(tmp_path):
    deeper = student(1, channels=(2, 4, 6, 8), strides=(*STRIDES, (2, 2, 2)))
    told = start_from(saved(tmp_path / "a.safetensors", deeper), student(2))
    assert told[0].startswith("44 of 44")
    assert told[1].startswith("not used: 18 (decoder.2.0.0.bias, decoder.2.0.0.weight")
    assert told[1].endswith(" and 10 more)")
    told = start_from(saved(tmp_path / "b.safetensors", student(1)), deeper)
    assert told[0].startswith("44 of 62")
    assert told[1].startswith("not there, initialised anew: 18 (encoder.3.0.0.weight")


def test_another_orientation_is_told(tmp_path):
    initial = saved(tmp_path / "a.safetensors", student(1), orientation="RAS")
    told = start_from(initial, student(2))
    assert told[-1] == "it was trained along RAS; from here on it is LPS"


def test_a_model_of_which_nothing_fits_is_refused(tmp_path):
    teacher = TeacherUNet(2, (3, 5, 7), "none")
    initial = saved(tmp_path / "t.safetensors", teacher, role="teacher")
    with pytest.raises(InputError, match=r"no weights of .* \(teacher\) fit this network"):
        start_from(initial, student(2))


def test_a_file_that_is_no_model_is_refused_before_anything_else(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no model")
    with pytest.raises(InputError, match="is not a model file"):
        open_initial(tmp_path / "x.safetensors")


def test_the_hash_is_that_of_the_file(tmp_path):
    initial = saved(tmp_path / "a.safetensors", student(1))
    assert initial.sha256 == file_hash(tmp_path / "a.safetensors")
