"""What an epoch adds up, and when it stops a training."""

import json

import pytest
import torch

from flarekd.training.epoch import CollapsedError, DivergedError, Epoch, check_collapse


def add(epoch, loss, dice, foreground):
    epoch.add(torch.tensor(loss), torch.tensor(dice), torch.tensor(foreground))


def test_an_epoch_interrupted_and_restored_has_the_record_of_an_undisturbed_one():
    steps = [(0.1 * n, [0.2 * n, 0.3], 10 * n) for n in range(1, 6)]
    whole = Epoch()
    for step in steps:
        add(whole, *step)
    cut = Epoch()
    for step in steps[:3]:
        add(cut, *step)
    # through JSON, as a checkpoint keeps it
    after = Epoch(json.loads(json.dumps(cut.facts())))
    for step in steps[3:]:
        add(after, *step)
    records = [epoch.record(4, 100, 0.01) for epoch in (whole, after)]
    for name in ("epoch", "iteration", "lr", "loss", "dsc", "foreground"):
        assert records[0][name] == records[1][name], name
    assert records[0]["loss"] == pytest.approx(0.3)
    assert records[0]["dsc"] == [0.6, 0.3]
    assert records[0]["foreground"] == 150


def test_a_class_counts_in_the_steps_that_had_it_annotated():
    nan = float("nan")
    cut = Epoch()
    add(cut, 0.5, [0.4, nan, nan], 1)
    add(cut, 0.5, [nan, 0.9, nan], 1)
    assert " · DSC 0.650 · " in cut.note()
    after = Epoch(json.loads(json.dumps(cut.facts())))
    add(after, 0.5, [0.2, nan, nan], 1)
    assert after.record(1, 3, 0.01)["dsc"] == [0.3, 0.9, None]


def test_a_checkpoint_that_counted_no_steps_a_class_goes_on():
    facts = {"losses": [0.5, 0.5], "dice": [0.4, 1.0], "foreground": 3}
    epoch = Epoch(facts)
    add(epoch, 0.5, [0.5, 0.5], 1)
    assert epoch.record(1, 3, 0.01)["dsc"] == [0.3, 0.5]


def test_the_note_tells_loss_dice_speed_and_waiting():
    epoch = Epoch()
    assert epoch.note() == ""
    add(epoch, 0.5, [0.4, 0.6], 3)
    epoch.waited_s = 0.0
    note = epoch.note()
    assert note.startswith("loss 0.500 · DSC 0.500 · ")
    assert note.endswith(" it/s · 0 % waiting for data")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_told_with_what_to_do(value):
    epoch = Epoch()
    add(epoch, 0.5, [0.1], 1)
    with pytest.raises(DivergedError, match=r"became (nan|inf) in step 2 .* lower optimizer\.lr"):
        add(epoch, value, [0.1], 1)


def test_a_network_of_nothing_but_background_stops_at_the_asked_epoch():
    record = {"epoch": 7, "foreground": 0}
    with pytest.raises(CollapsedError, match="after 7 epochs the network labels nothing but"):
        check_collapse(record, 7)
    check_collapse(record, 0)
    check_collapse(record, 8)
    check_collapse({"epoch": 7, "foreground": 1}, 7)
