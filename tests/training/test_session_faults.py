"""Cases that a training cannot read: left out and named, or the end of it."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from tests.training.runs import Screen, plan

from flarekd.errors import CasesFailedError, InputError
from flarekd.modelfile import read_card
from flarekd.training.session import run

pytestmark = pytest.mark.usefixtures("one_processor")


def test_a_broken_case_is_left_out_and_named_after_the_model_is_written(session):
    broken = session.sources[0].image
    broken.write_bytes(broken.read_bytes()[:-200])
    for _ in range(2):  # a re-run, with the model done, still says so
        with pytest.raises(CasesFailedError) as caught:
            session.train(plan())
        assert str(caught.value).startswith("1 case left out of training: case_a: ")
        assert broken.name in str(caught.value)
        assert read_card(session.folder / "model.safetensors").training["cases"] == 1
    assert session.screen.told[-1].endswith("is up to date")


def test_cases_that_never_became_sources_are_named_with_the_broken_ones(session):
    session.sources[1].labels.unlink()
    with pytest.raises(CasesFailedError, match=r"2 cases .*case_z: not fused; case_b: "):
        session.train(plan(missing={"case_z": "not fused"}))
    assert (session.folder / "model.safetensors").exists()


def test_where_no_case_can_be_read_the_first_reason_is_told(session):
    for source in session.sources:
        source.labels.unlink()
    with pytest.raises(
        InputError, match=r"no case could be read; the first: case_a: .*case_a\.nii"
    ):
        session.train(plan())
    assert not (session.folder / "model.safetensors").exists()


def test_nothing_to_train_on_is_refused_before_anything_is_written(session):
    session.sources = []
    with pytest.raises(InputError, match="no case to train the student on"):
        session.train(plan())
    assert not session.folder.exists()


def losing_a_case(session):
    """A screen at whose training a case vanishes from the store."""

    class Losing(Screen):
        @contextmanager
        def progress(self, title):
            if title.startswith("Training the"):
                (session.folder / "store" / "case_b.b2nd").unlink()
            yield lambda *_: None

    return Losing()


@pytest.mark.parametrize("on_unreadable", ["stop", "skip"])
def test_a_case_lost_while_training_stops_the_run_or_is_passed_over_and_named(
    session, on_unreadable
):
    expected = {
        "stop": (InputError, r"cannot read training case 'case_b'"),
        "skip": (CasesFailedError, r"1 case left out .*case_b: .*\d+ samples came from"),
    }[on_unreadable]
    with pytest.raises(expected[0], match=expected[1]):
        run(
            plan(on_unreadable=on_unreadable, iterations=6),
            session.sources,
            session.folder,
            torch.device("cpu"),
            resume="never",
            screen=losing_a_case(session),
            draw=lambda *_: None,
        )
    assert (session.folder / "model.safetensors").exists() == (on_unreadable == "skip")
