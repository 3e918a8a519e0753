"""Judging a network in training: folds, pseudo-DSC by hand, whole volumes, the best one."""

import numpy as np
import pytest
import torch
from torch import nn

from flarekd import config
from flarekd.imaging import store
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.training.ranks import ALONE
from flarekd.training.validation import Validation, is_best, mean, split, still

STATISTICS = IntensityStatistics(-1000.0, 1000.0, 0.0, 1.0)
CPU = torch.device("cpu")
QUICK = config.load(config.builtin("quick")).student


def settings(**changes):
    return QUICK.model_copy(update={"class_weights": (), **changes})


class Threshold(nn.Module):
    """Labels 1 above 50 HU and 2 above 150: a network whose mistakes are known."""

    def forward(self, image):
        one, two = (image > 50).float(), (image > 150).float()
        rest = torch.full_like(image, 0.5), one, 2 * two, torch.zeros_like(image)
        return torch.cat(rest, dim=1)


def test_every_case_is_held_out_by_exactly_one_fold():
    names = [f"case_{number:02}" for number in np.random.default_rng(0).permutation(23)]
    held = [split(names, fold)[1] for fold in range(5)]
    assert sorted(i for fold in held for i in fold) == list(range(23))
    assert sorted(len(fold) for fold in held) == [4, 4, 5, 5, 5]
    for fold in range(5):
        training, out = split(names, fold)
        assert sorted(training + out) == list(range(23))
    # a case's fold is its name's, whatever the order of the table
    assert {sorted(names)[i] for i in split(sorted(names), 2)[1]} == {names[i] for i in held[2]}


def test_all_trains_on_every_case_and_validates_on_the_same():
    assert split(["b", "a"], "all") == ([0, 1], [0, 1])


def test_validation_batches_are_not_augmented():
    quiet = still(settings(oversize=(24, 60, 70)))
    assert quiet.oversize == QUICK.patch
    chances = ("elastic", "rotation", "scaling", "noise", "blur", "brightness", "contrast",
               "low_resolution", "gamma", "gamma_inverted")  # fmt: skip
    assert [getattr(quiet.augmentation, name) for name in chances] == [0.0] * 10
    assert quiet.augmentation.noise_sd == QUICK.augmentation.noise_sd


def test_pseudo_dsc_is_pooled_over_all_batches_of_the_epoch():
    images = torch.tensor([0.0, 100.0, 100.0, 200.0, 200.0, 100.0]).view(1, 1, 1, 1, 6)
    targets = {0: [0, 1, 1, 2, 2, 2], 1: [0, 0, 1, 2, 1, 1]}
    asked = []

    def make(index):
        asked.append(index)
        return images, torch.tensor(targets[index % 2]).view(1, 1, 1, 6)

    judge = Validation(make, [], STATISTICS, None, settings(validation=2), 4, ALONE)
    found = judge(Threshold().eval(), 3, CPU)
    assert asked == [6, 7]
    # class 1: predicted 3 + 3, real 2 + 3, both 2 + 2; class 2: predicted 2 + 2, real 3 + 1, both 3
    assert found == {
        "validation_dsc": [pytest.approx(8 / 11, abs=1e-4), pytest.approx(6 / 8), None]
    }


@pytest.fixture
def held_out(tmp_path):
    cases = []
    for index, truth in enumerate(([1, 1, 2, 0], [1, 0, 0, 0])):
        labels = np.zeros((2, 4, 4), np.uint8)
        labels[0, 0] = truth
        image = np.zeros((2, 4, 4), np.int16)
        image[0, 0] = [100, 0, 200, 100]
        path = tmp_path / f"case_{index}.b2nd"
        grid = {"spacing_zyx": (1.0, 1.0, 1.0), "chunk_zyx": (2, 4, 4)}
        store.write_case(path, image, labels, key="k", **grid)
        cases.append(store.open_case(path))
    return cases


def test_whole_volumes_count_case_by_case_where_the_class_is(held_out):
    def segment(network, volume):
        return network(volume[None, None])[0].argmax(0).numpy().astype(np.uint8)

    every = settings(epochs=5, validation=0, volumes_every=2, fold=0)
    judge = Validation(None, held_out, STATISTICS, segment, every, 4, ALONE)
    expected = [pytest.approx((2 / 4 + 2 / 3) / 2, abs=1e-4), 1.0, None]
    asked = [judge(Threshold(), epoch, CPU) for epoch in range(1, 6)]
    assert [bool(found) for found in asked] == [False, True, False, True, True]  # and the last
    assert asked[1] == {"volumes_dsc": expected}


def test_one_lucky_epoch_is_not_the_best():
    facts = {}
    values = [0.5, 0.6, 0.58, 0.40, 0.70]
    assert [is_best(facts, value) for value in values] == [True, True, True, False, True]
    running = 0.5
    for value in values[1:]:
        running = 0.9 * running + 0.1 * value
    assert facts["running"] == pytest.approx(running)


def test_the_mean_leaves_out_what_nobody_saw():
    assert mean([0.5, None, 1.0]) == 0.75
    assert mean([None]) is None
    assert mean([]) is None


def test_ignored_voxels_are_not_judged(tmp_path):
    images = torch.tensor([0.0, 100.0, 100.0, 200.0]).view(1, 1, 1, 1, 4)
    target = torch.tensor([0, 1, 255, 255]).view(1, 1, 1, 4)
    held = np.zeros((2, 3, 4), np.int16)
    labels = np.zeros(held.shape, np.uint8)
    held[0, 0], labels[0, 0] = 100, 1
    held[1, 2], labels[1, 2] = 100, 255
    path = tmp_path / "a.b2nd"
    store.write_case(path, held, labels, spacing_zyx=(1, 1, 1), chunk_zyx=(2, 3, 4), key="")
    judge = Validation(
        lambda _: (images, target),
        [store.open_case(path)],
        STATISTICS,
        lambda network, volume: network(volume[None, None])[0].argmax(0).byte().numpy(),
        settings(validation=1, volumes_every=1),
        4,
        ALONE,
    )
    found = judge(Threshold().eval(), 1, CPU)
    assert found == {"validation_dsc": [1.0, None, None], "volumes_dsc": [1.0, None, None]}


def test_what_a_sample_has_not_annotated_is_not_held_against_the_network():
    """The first sample knows class 1 alone, the second class 2 alone."""
    images = torch.tensor([[0.0, 100.0, 200.0, 100.0], [0.0, 100.0, 200.0, 200.0]])
    target = torch.tensor([[0, 1, 0, 0], [0, 0, 2, 0]])
    known = torch.tensor([[False, True, False, False], [False, False, True, False]])
    batch = images.view(2, 1, 1, 1, 4), target.view(2, 1, 1, 4), known
    judge = Validation(lambda _: batch, [], STATISTICS, None, settings(validation=1), 4, ALONE)
    # class 1 of the first: predicted 2, real 1, both 1; class 2 of the second: the same
    dsc = pytest.approx(2 / 3, abs=1e-4)
    assert judge(Threshold().eval(), 1, CPU) == {"validation_dsc": [dsc, dsc, None]}
