"""A training that was cut short goes on where it was, or says why it may not."""

from __future__ import annotations

import pytest
import torch
from tests.training.runs import SETTINGS, interrupted, partly, plan

from flarekd.errors import InputError
from flarekd.modelfile import read_card, read_weights
from flarekd.training.checkpoint import NAME as CHECKPOINT
from flarekd.training.checkpoint import PREVIOUS
from flarekd.training.log import LOG, read_log

pytestmark = pytest.mark.usefixtures("one_processor")


@pytest.mark.parametrize("resume", ["must", "may"])
def test_an_interrupted_run_goes_on_to_the_same_weights(session, resume):
    whole = interrupted(session)
    weights = read_weights(session.train(plan(), resume))
    assert "continuing at iteration 2 of 4" in session.screen.told
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())
    assert [record["iteration"] for record in read_log(session.folder / LOG)] == [2, 4]


def test_without_resume_an_interrupted_run_starts_anew(session):
    whole = interrupted(session)
    weights = read_weights(session.train(plan()))
    assert any(line.startswith("note: starting anew") for line in session.screen.told)
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())


def test_an_interrupted_run_on_partial_labels_goes_on_to_the_same_weights(session):
    partly(session, {1}, {2})
    whole = interrupted(session)
    weights = read_weights(session.train(plan(), "must"))
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())
    # of what was annotated in the samples drawn
    assert set(read_log(session.folder / LOG)[-1]["dsc"]) > {None}


def test_resuming_without_a_checkpoint_is_refused(session):
    with pytest.raises(InputError, match=r"no checkpoint in .*run.* · train without --resume"):
        session.train(plan(), "must")
    assert not (session.folder / "model.safetensors").exists()


def test_resuming_where_there_may_be_a_checkpoint_begins_where_there_is_none(session):
    assert session.train(plan(), "may").exists()


@pytest.mark.parametrize("other", [{"accumulate": 2}, {"batch": 2}, {"fold": 1}, {"seed": 9}])
def test_resuming_with_other_settings_is_refused(session, other):
    interrupted(session)
    before = (session.folder / CHECKPOINT).read_bytes()
    with pytest.raises(InputError, match="comes from other settings or other data"):
        session.train(plan(**other), "must")
    assert (session.folder / CHECKPOINT).read_bytes() == before


def test_a_refused_resumption_leaves_a_finished_model_and_its_configuration_alone(session):
    session.train(plan())
    before = session.state()
    with pytest.raises(InputError, match="comes from other settings or other data"):
        session.train(plan(batch=2), "must")
    assert session.state() == before
    assert (session.folder / "config.yaml").read_text() == "changes: []\n"


def test_more_epochs_are_refused_until_they_are_asked_for(session):
    session.train(plan())
    before = session.state()
    with pytest.raises(InputError, match=r"was begun for 2 epochs, not 3 · give --extend"):
        session.train(plan(epochs=3), "must")
    assert session.state() == before
    path = session.train(plan(epochs=3), "extend")
    assert "continuing at iteration 4 of 6" in session.screen.told
    assert read_card(path).training["iterations"] == 6
    assert [record["epoch"] for record in read_log(session.folder / LOG)] == [1, 2, 3]
    with pytest.raises(InputError, match=r"has 3 epochs behind it, 2 are asked for"):
        session.train(plan(epochs=2), "extend")


def test_an_extended_run_follows_the_new_schedule_from_where_it_stands(session):
    session.train(plan())
    session.train(plan(epochs=4), "extend")
    warm = 2 / SETTINGS.optimizer.warmup  # of the first epoch's last iteration
    rates = [record["lr"] / SETTINGS.optimizer.lr for record in read_log(session.folder / LOG)]
    share = [(1 - 1 / 2) ** 0.9, (1 - 2 / 4) ** 0.9, (1 - 3 / 4) ** 0.9]
    assert rates == pytest.approx(
        [warm, *(s * w * warm for s, w in zip(share, (2, 3, 4), strict=True))]
    )


def test_a_torn_checkpoint_is_replaced_by_the_one_before_it(session):
    path = session.train(plan())
    whole = {name: value.clone() for name, value in read_weights(path).items()}
    path.unlink()
    torn = session.folder / CHECKPOINT
    torn.write_bytes(torn.read_bytes()[:500])
    weights = read_weights(session.train(plan(), "must"))
    assert any("the last checkpoint is damaged" in line for line in session.screen.told)
    assert "continuing at iteration 3 of 4" in session.screen.told
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())


def test_where_both_checkpoints_are_torn_it_is_said_what_to_do(session):
    session.train(plan())
    (session.folder / "model.safetensors").unlink()
    for name in (CHECKPOINT, PREVIOUS):
        path = session.folder / name
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"is not a checkpoint: .* · remove it"):
        session.train(plan(), "must")
