"""One training from files to a model file: begun, found done, or trained anew."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from tests.training.runs import GEOMETRY, STRIDES, partly, plan

from flarekd.errors import InputError
from flarekd.imaging.files import read_labels, write_labels
from flarekd.imaging.intensity import FLARE22_STATISTICS
from flarekd.imaging.volume import LabelMap
from flarekd.modelfile import read_card, read_weights
from flarekd.student.network import StudentUNet
from flarekd.training import course
from flarekd.training.log import LOG, read_log

pytestmark = pytest.mark.usefixtures("one_processor")


def test_a_run_folder_holds_all_of_a_run(session):
    path = session.train(plan())
    assert path == session.folder / "model.safetensors"
    assert set(session.state()) == {
        "config.yaml",
        "store/case_a.b2nd",
        "store/case_b.b2nd",
        "log.jsonl",
        "curves.png",
        "checkpoint.safetensors",
        "checkpoint-previous.safetensors",
        "model.safetensors",
    }
    assert (session.folder / "config.yaml").read_text() == "changes: []\n"
    records = read_log(session.folder / LOG)
    assert [record["iteration"] for record in records] == [2, 4]
    assert session.pictures == [[1], [1, 2]]
    assert session.screen.told[-1] == "Training the student 4/4"


@pytest.mark.parametrize(("seconds", "drawn"), [(60, [1, 4]), (0, [1, 2, 3, 4])])
def test_curves_are_drawn_first_and_last_and_once_a_minute(session, monkeypatch, seconds, drawn):
    monkeypatch.setattr(course, "PICTURE_S", seconds)
    session.train(plan(epochs=4, iterations=1))
    assert [epochs[-1] for epochs in session.pictures] == drawn


def test_the_card_says_what_was_trained_and_on_what(session):
    path = session.train(plan())
    card = read_card(path)
    assert (card.role, card.labels, card.label_ids) == (
        "student",
        ("background", "liver", "tumor"),
        (0, 1, 2),
    )
    assert (card.spacing, card.patch) == ((0.0, 0.0, 0.0), (8, 16, 16))
    assert card.inference == {"step": 0.5}
    # too few voxels of foreground to say anything of intensities
    assert card.statistics == FLARE22_STATISTICS
    assert (card.training["cases"], card.training["iterations"]) == (2, 4)
    last = read_log(session.folder / LOG)[-1]
    assert (card.training["loss"], card.training["dsc"]) == (last["loss"], last["dsc"])
    assert len(card.trained_on) == 64
    StudentUNet(**card.network).load_state_dict(read_weights(path))


@pytest.mark.parametrize("resume", ["never", "must", "may"])
def test_a_second_run_finds_it_done(session, resume):
    session.train(plan())
    before = session.state()
    path = session.train(plan(), resume)
    assert session.state() == before
    assert session.screen.told[-1] == f"{path} is up to date"
    assert len(session.pictures) == 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(session):
    first = read_weights(session.train(plan()))
    (session.folder / "model.safetensors").unlink()
    again = read_weights(session.train(plan()))
    other = read_weights(session.train(plan(seed=5)))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_how_often_checkpoints_are_written_is_no_other_run(session):
    session.train(plan())
    before = session.state()
    session.train(plan(checkpoint_minutes=7.0))
    assert session.state() == before


@pytest.mark.parametrize("resume", ["never", "may"])
def test_other_settings_train_anew_and_say_that_the_checkpoint_is_not_used(session, resume):
    first = read_card(session.train(plan()))
    second = read_card(session.train(plan(epochs=1), resume))
    assert any(line.startswith("note: starting anew") for line in session.screen.told)
    assert (first.training["iterations"], second.training["iterations"]) == (4, 2)
    assert [record["iteration"] for record in read_log(session.folder / LOG)] == [2]
    assert (session.folder / "config.yaml").read_text() == "changes: [('epochs', 1)]\n"


def test_a_held_out_case_judges_each_epoch_and_the_best_model_is_kept(session):
    path = session.train(plan(fold=0, validation=2, volumes_every=1), tensorboard=True)
    records = read_log(session.folder / LOG)
    for record in records:
        assert len(record["validation_dsc"]) == len(record["volumes_dsc"]) == 2
    card, best = read_card(path), read_card(session.folder / "model-best.safetensors")
    assert card.training["cases"] == best.training["cases"] == 1
    assert card.training["volumes_dsc"] == records[-1]["volumes_dsc"]
    kept = [record for record in records if record["iteration"] == best.training["iterations"]]
    assert best.training["validation_dsc"] == kept[0]["validation_dsc"]
    assert list((session.folder / "tensorboard").glob("events.*"))
    other = read_weights(session.train(plan(fold=1, validation=2)))
    whole = read_weights(session.train(plan(fold=4)))  # a fold without a case holds nothing out
    assert not all(torch.equal(value, whole[name]) for name, value in other.items())
    assert not (session.folder / "model-best.safetensors").exists()


def test_another_label_trains_anew(session):
    first = read_card(session.train(plan()))
    time.sleep(0.01)
    array = np.ones(GEOMETRY.shape_zyx, np.uint8)
    write_labels(session.sources[0].labels, LabelMap(array, GEOMETRY))
    second = read_card(session.train(plan()))
    assert first.trained_on != second.trained_on


def test_a_label_saved_again_with_the_same_content_trains_nothing(session):
    path = session.train(plan())
    before = path.stat().st_mtime_ns
    time.sleep(0.01)
    source = session.sources[0].labels
    source.write_bytes(source.read_bytes())
    assert session.train(plan()).stat().st_mtime_ns == before


def test_a_class_that_is_vouched_for_and_not_there_makes_another_training_of_it(session):
    """The store is the same then, and the loss is not."""
    partly(session, {1}, {1, 2})
    first = session.train(plan())
    card, weights = read_card(first), read_weights(first)
    assert read_card(session.train(plan())).training == card.training
    assert session.screen.told[-1].endswith("is up to date")
    for source in session.sources:
        labels = read_labels(source.labels)
        labels.array[labels.array == 2] = 0
        write_labels(source.labels, labels)
    with_none = read_card(session.train(plan()))
    partly(session, {1}, {1})
    (session.folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="comes from other settings or other data"):
        session.train(plan(), "must")
    other = session.train(plan())
    assert read_card(other).trained_on == with_none.trained_on
    assert not all(torch.equal(value, weights[k]) for k, value in read_weights(other).items())


def test_held_out_cases_of_partial_labels_judge_what_they_vouch_for(session):
    partly(session, {1}, {2})
    session.train(plan(fold=0, validation=2, volumes_every=1))
    last = read_log(session.folder / LOG)[-1]
    # case_a is held out and has the liver alone, case_b trains and has the tumour alone
    assert [value is None for value in last["validation_dsc"]] == [False, True]
    assert [value is None for value in last["volumes_dsc"]] == [False, True]


def test_a_torn_model_is_made_again(session):
    path = session.train(plan())
    # copies: safetensors maps the file, which is about to be cut
    whole = {name: value.clone() for name, value in read_weights(path).items()}
    path.write_bytes(path.read_bytes()[:500])
    weights = read_weights(session.train(plan(), "may"))
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())


def test_zero_epochs_write_the_untrained_network(session):
    path = session.train(plan(epochs=0))
    torch.manual_seed(4)
    expected = StudentUNet(3, (2, 2, 4, 4), STRIDES).state_dict()
    weights = read_weights(path)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    card = read_card(path)
    assert (card.training["iterations"], card.training.get("last")) == (0, None)


def test_the_card_holds_the_fingerprint_of_the_cohort(session):
    card = read_card(session.train(plan()))
    assert card.fingerprint["cases"] == 2
    assert card.fingerprint["size"]["median"] == [12.0, 24.0, 28.0]
    assert card.fingerprint["spacing_mm"]["p95"] == pytest.approx([3.0, 1.25, 0.75])
    tumor = 2 * 4 * 6 * 7
    assert card.fingerprint["classes"] == {
        "1": {"cases": 2, "voxels": 2 * 7 * 12 * 14 - tumor},
        "2": {"cases": 2, "voxels": tumor},
    }
    assert any(line.startswith("training store: 2 cases, about") for line in session.screen.told)
