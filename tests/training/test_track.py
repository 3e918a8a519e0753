"""TensorBoard's event files, read back."""

import sys

import pytest

from flarekd.errors import InputError
from flarekd.training.track import events


def record(iteration, loss):
    rates = {"lr": 0.01, "iterations_per_s": 2.0, "data_wait_share": 0.0}
    return {"iteration": iteration, "loss": loss, "dsc": [0.25, 0.75], **rates}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_events_hold_what_the_log_holds_and_a_resumed_run_takes_later_ones_back(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with events(tmp_path, True, 0) as track:
        track(record(10, -0.5))
        track({**record(20, -0.9), "validation_dsc": [None, 0.5]})
    with events(tmp_path, True, 10) as track:
        track(record(20, -0.7))
    found = reading.EventAccumulator(str(tmp_path)).Reload()
    losses = [(e.step, round(e.value, 4)) for e in found.Scalars("loss")]
    assert losses == [(10, -0.5), (20, -0.7)]
    assert [round(e.value, 4) for e in found.Scalars("dsc/mean")] == [0.5, 0.5]
    assert [round(e.value, 4) for e in found.Scalars("dsc/2")] == [0.75, 0.75]


def test_without_being_asked_for_nothing_is_written(tmp_path):
    with events(tmp_path / "events", False, 0) as track:
        track(record(10, -0.5))
    assert not (tmp_path / "events").exists()


def test_where_it_is_not_installed_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    wanted = events(tmp_path, True, 0)
    with pytest.raises(InputError, match=r"pip install 'flarekd\[track\]'"), wanted:
        pass
