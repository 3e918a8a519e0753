"""A training that starts from another model."""

from __future__ import annotations

import pytest
import torch
from tests.training.runs import SETTINGS, STRIDES, interrupted, plan

from flarekd.errors import InputError
from flarekd.modelfile import ModelCard, read_card, read_weights, save_model
from flarekd.student.network import StudentUNet
from flarekd.training.initial import open_initial

pytestmark = pytest.mark.usefixtures("one_processor")


def initial(path, seed, classes=15, strides=STRIDES):
    """Another model to start from, and its weights."""
    torch.manual_seed(seed)
    weights = StudentUNet(classes, (2, 2, 4, 4), strides).state_dict()
    card = ModelCard(
        role="student",
        network={"classes": 2},
        labels=("background", "liver"),
        label_ids=(0, 1),
        spacing=(4.0, 1.2, 1.2),
        patch=(8, 16, 16),
        intensity=(-110.0, 190.0, 40.0, 70.0),
    )
    save_model(path, weights, card)
    return open_initial(path), weights


def test_a_run_starts_from_another_model_and_says_what_it_took(session, tmp_path):
    start, given = initial(tmp_path / "a.safetensors", 11)
    found = read_weights(session.train(plan(epochs=0, initial=start)))
    own = read_weights(session.train(plan(epochs=0)))
    heads = {f"heads.{level}.weight" for level in range(3)}
    assert {name for name in found if torch.equal(found[name], own[name])} >= heads
    assert all(torch.equal(found[name], given[name]) for name in found.keys() - heads)
    assert not torch.equal(found["up.0.weight"], own["up.0.weight"])
    session.train(plan(epochs=0, initial=start))
    assert f"59 of 62 tensors start from {tmp_path / 'a.safetensors'}" in session.screen.told
    assert any("heads.0.weight, heads.1.weight, heads.2" in told for told in session.screen.told)


def test_the_average_of_weights_starts_from_the_other_model_too(session, tmp_path):
    start, given = initial(tmp_path / "a.safetensors", 11)
    averaged = SETTINGS.optimizer.model_copy(update={"ema": 0.99})
    found = read_weights(session.train(plan(epochs=0, optimizer=averaged, initial=start)))
    assert torch.equal(found["up.0.weight"], given["up.0.weight"])


def test_another_model_to_start_from_is_another_run(session, tmp_path):
    first, _ = initial(tmp_path / "a.safetensors", 11)
    path = session.train(plan(initial=first))
    found = read_weights(path)
    assert read_card(path).training["initial"] == first.sha256
    session.train(plan(initial=first))
    assert session.screen.told[-1] == f"{path} is up to date"
    # the same content under another name is the same start
    initial(tmp_path / "copy.safetensors", 11)
    session.train(plan(initial=open_initial(tmp_path / "copy.safetensors")))
    assert session.screen.told[-1] == f"{path} is up to date"
    other, _ = initial(tmp_path / "b.safetensors", 12)
    path.unlink()
    with pytest.raises(InputError, match="comes from other settings or other data"):
        session.train(plan(initial=other), resume="must")
    again = read_weights(session.train(plan(initial=other)))
    assert not torch.equal(again["up.0.weight"], found["up.0.weight"])


def test_an_interrupted_run_that_started_from_another_model_goes_on(session, tmp_path):
    start, _ = initial(tmp_path / "a.safetensors", 11)
    whole = interrupted(session, initial=start)
    resumed = read_weights(session.train(plan(initial=start), resume="must"))
    assert "continuing at iteration 2 of 4" in session.screen.told
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not any("start from" in told for told in session.screen.told)


def test_a_model_of_which_nothing_fits_leaves_what_is_there_alone(session, tmp_path):
    session.train(plan())
    before = session.state()
    torch.manual_seed(0)
    start, _ = initial(tmp_path / "a.safetensors", 11)
    save_model(start.path, {"other": torch.zeros(1)}, start.card)
    with pytest.raises(InputError, match="fit this network"):
        session.train(plan(initial=open_initial(start.path)))
    after = session.state()
    assert {name: after[name] for name in before} == before
