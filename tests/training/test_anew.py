"""A training that begins anew says why, before what lies in its folder goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from tests.training.runs import GEOMETRY, SETTINGS, interrupted, plan

from flarekd.imaging.files import write_labels
from flarekd.imaging.volume import LabelMap
from flarekd.modelfile import read_card

pytestmark = pytest.mark.usefixtures("one_processor")


def configured(seed=4, **changes):
    """A plan whose run folder holds its settings, as those of the command line do."""
    made = plan(seed=seed, **changes)
    section = made.settings.model_dump(mode="json")
    return replace(made, config=yaml.safe_dump({"seed": seed, "student": section, "teacher": 1}))


def told(session):
    return [line for line in session.screen.told if line.startswith("note: starting anew")]


@pytest.mark.parametrize("resume", ["never", "may"])
def test_what_changed_is_told_and_the_model_before_is_kept(session, resume):
    first = session.train(configured()).read_bytes()
    augmentation = SETTINGS.augmentation.model_copy(update={"rotation": 0.125})
    asked = configured(5, batch=2, epochs=3, validation=7, augmentation=augmentation)
    second = session.train(asked, resume)
    (line,) = told(session)
    assert line == (
        "note: starting anew since seed is 5 and was 4; student.augmentation.rotation is 0.125 and "
        f"was {SETTINGS.augmentation.rotation}; student.batch is 2 and was 1; student.epochs is 3 "
        f"and was 2: the checkpoint in {session.folder} is not used and goes, the model that is "
        "there is kept as model-before.safetensors"
    )
    assert second.read_bytes() != first
    assert (session.folder / "model-before.safetensors").read_bytes() == first
    session.train(asked, resume)
    assert not told(session)  # up to date
    assert (session.folder / "model-before.safetensors").read_bytes() == first


def test_other_data_are_told_too(session):
    session.train(configured())
    empty = LabelMap(np.ones(GEOMETRY.shape_zyx, np.uint8), GEOMETRY)
    write_labels(session.sources[0].labels, empty)
    session.train(configured(), "may")
    (line,) = told(session)
    assert "anew since the cases, their scans or their labels are others: the checkpoint" in line


def test_where_nothing_changed_but_nobody_wants_to_resume_no_reason_is_made_up(session):
    interrupted(session)
    session.train(plan())
    assert told(session) == [
        f"note: starting anew: the checkpoint in {session.folder} is not used and goes"
    ]


@pytest.mark.parametrize("broken", ["config.yaml", "model.safetensors"])
def test_files_that_cannot_be_read_tell_no_reason(session, broken):
    session.train(configured())
    (session.folder / broken).write_bytes(b"\xff")
    session.train(configured(batch=2), "may")
    (line,) = told(session)
    assert ("student.batch is 2 and was 1" in line) is (broken != "config.yaml")


def test_a_training_that_goes_on_says_nothing_of_it(session):
    session.train(configured())
    session.train(configured(epochs=3), "extend")
    assert not told(session)
    assert not (session.folder / "model-before.safetensors").exists()
    assert read_card(session.folder / "model.safetensors").training["iterations"] == 6
