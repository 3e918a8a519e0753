from __future__ import annotations

import numpy as np
import pytest
import torch

from flarekd.errors import InputError
from flarekd.teacher.windows import Probe, label_slices, predict_slices, segment_slices

PATCH = (16, 16)


class Threshold(torch.nn.Module):
    """Pointwise: foreground where the intensity is above ½."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(1, 2, 1)
        self.head.weight.data = torch.tensor([-20.0, 20.0]).reshape(2, 1, 1, 1)
        self.head.bias.data = torch.tensor([10.0, -10.0])
        self.batches: list[int] = []
        self.eval()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(windows))
        return self.head(windows)


def labels(volume: torch.Tensor, shape: tuple[int, int] | None = None, **options) -> np.ndarray:
    shape = shape or tuple(volume.shape[1:])
    return segment_slices(Threshold(), volume, PATCH, shape, **options).labels


def windows(volume: torch.Tensor, **options) -> tuple[int, int]:
    found = segment_slices(Threshold(), volume, PATCH, tuple(volume.shape[1:]), **options)
    return found.windows_run, found.windows_total


def blob(shape: tuple[int, int, int], z: int, y: int, x: int) -> torch.Tensor:
    volume = torch.zeros(shape)
    volume[z, y : y + 3, x : x + 3] = 1
    return volume


@pytest.mark.paper
def test_three_windows_are_skipped_when_the_first_is_empty():
    volume = torch.zeros(5, 24, 24)
    assert windows(volume) == (5, 20)
    assert labels(volume).max() == 0


@pytest.mark.paper
def test_all_four_windows_run_where_the_first_finds_foreground():
    volume = blob((5, 24, 24), 2, 4, 4)
    volume[2, 20, 20] = 1
    assert windows(volume) == (4 + 4, 20)
    np.testing.assert_array_equal(labels(volume), volume.numpy())


@pytest.mark.paper
def test_what_lies_only_outside_the_first_window_is_lost_as_the_paper_has_it():
    volume = blob((1, 24, 24), 0, 20, 20)
    assert labels(volume).max() == 0


def test_a_centred_probe_finds_what_the_first_window_does_not_reach():
    volume = blob((1, 24, 24), 0, 16, 16)
    assert labels(volume).max() == 0
    probe = Probe("center")
    np.testing.assert_array_equal(labels(volume, probe=probe), volume.numpy())
    assert windows(volume, probe=probe) == (5, 4)
    assert windows(torch.zeros(1, 24, 24), probe=probe) == (1, 4)


@pytest.mark.parametrize(("threshold", "run"), [(1, 4), (9, 4), (10, 1), (0, 4)])
def test_the_probe_needs_as_many_pixels_as_asked(threshold, run):
    volume = blob((1, 24, 24), 0, 4, 4)
    probe = Probe(min_foreground=threshold)
    assert windows(volume, probe=probe) == (run, 4)
    # what the probe did see is kept either way
    np.testing.assert_array_equal(labels(volume, probe=probe), volume.numpy())


@pytest.mark.parametrize("place", ["top-left", "center"])
@pytest.mark.parametrize(
    ("shape", "total"),
    [((1, 1), 1), (PATCH, 1), ((9, 16), 1), ((24, 16), 2), ((32, 40), 8), ((24, 40), 8)],
)
def test_every_size_is_covered_and_keeps_its_shape(shape, total, place):
    volume = torch.ones(3, *shape)
    probe = Probe(place)
    np.testing.assert_array_equal(labels(volume, probe=probe), np.ones((3, *shape)))
    assert windows(volume, probe=probe)[1] == 3 * total


@pytest.mark.parametrize("place", ["top-left", "center"])
def test_a_single_window_is_not_run_twice(place):
    assert windows(torch.ones(2, 16, 12), probe=Probe(place)) == (2, 2)


def test_first_windows_of_several_slices_are_one_batch_and_then_the_rest():
    volume = blob((6, 24, 24), 1, 4, 4)
    volume[2] = volume[1]
    network = Threshold()
    segment_slices(network, volume, PATCH, (24, 24), batch=4)
    # four first windows, six others of two slices, two first windows
    assert network.batches == [4, 4, 2, 2]


def test_the_batch_size_changes_nothing():
    volume = torch.rand(7, 20, 27, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(labels(volume, batch=1), labels(volume, batch=5))


class Wide(torch.nn.Module):
    """Sees 7 pixels wide, and zeros beyond a window: every window judges a pixel in its own way."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 2, 7, padding=3)
        self.conv.weight.data = torch.randn(self.conv.weight.shape, generator=generator) / 4
        self.conv.bias.data = torch.tensor([4.0, 0.0])
        self.eval()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.conv(windows)


@pytest.mark.parametrize("place", ["top-left", "center"])
def test_slices_in_batches_have_the_probabilities_of_slices_one_by_one(place):
    volume = torch.randn(7, 29, 41, generator=torch.Generator().manual_seed(1))
    volume[::2] = 0  # the probe goes on in some slices only
    ways = [
        list(predict_slices(Wide(), volume, PATCH, probe=Probe(place), batch=n)) for n in (1, 3)
    ]
    one, three = (torch.cat([group.probability for group in way]) for way in ways)
    torch.testing.assert_close(one, three, rtol=0, atol=1e-5)
    assert torch.isfinite(one).all()
    assert (one[1].argmax(0) > 0).any()
    counts = [[sum(g.windows_run for g in way), sum(g.windows_total for g in way)] for way in ways]
    assert counts[0] == counts[1]
    assert counts[0][0] < counts[0][1]


def test_probabilities_are_the_network_s_where_looked_at_and_background_elsewhere():
    volume = torch.zeros(2, 24, 24)
    volume[1] = torch.linspace(0, 1, 24)
    groups = list(predict_slices(Threshold(), volume, PATCH, batch=3))
    assert [group.start for group in groups] == [0]
    probability = groups[0].probability
    assert probability.shape == (2, 2, 24, 24)
    torch.testing.assert_close(probability.sum(1), torch.ones(2, 24, 24))
    # nothing was found in slice 0, and its last row was not looked at
    assert probability[0, :, -1, -1].tolist() == [1.0, 0.0]
    with torch.inference_mode():
        direct = Threshold()(volume[1:, None])[0].softmax(0)
    torch.testing.assert_close(probability[1], direct, rtol=0, atol=1e-5)


def test_labels_come_at_the_in_plane_size_asked_for():
    volume = torch.zeros(2, 20, 20)
    volume[1, :, 5:15] = 1
    found = labels(volume, (40, 60))
    assert found.shape == (2, 40, 60)
    assert found.dtype == np.uint8
    assert found[0].max() == 0
    np.testing.assert_array_equal(found[1], np.repeat([[0, 1, 0]], 40, 0).repeat([15, 30, 15], 1))


def test_wrong_shapes_and_training_mode_are_refused():
    with pytest.raises(ValueError, match="must be 3D"):
        segment_slices(Threshold(), torch.zeros(4, 4), PATCH, (4, 4))
    with pytest.raises(ValueError, match="training mode"):
        segment_slices(Threshold().train(), torch.zeros(1, 4, 4), PATCH, (4, 4))


class Logistic(Threshold):
    """Foreground with the probability whose logit is the intensity."""

    def forward(self, windows):
        return torch.cat((torch.zeros_like(windows), windows), dim=1)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_a_voxel_is_tumour_where_its_interpolated_probability_exceeds_the_threshold(threshold):
    volume = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (3, 16, 16))).float()
    found = segment_slices(Logistic(), volume, PATCH, (24, 20), threshold=threshold).labels
    probability = torch.nn.functional.interpolate(
        volume[:, None].sigmoid(), (24, 20), mode="bilinear", align_corners=False
    )[:, 0]
    sure = (probability - threshold).abs() > 1e-5
    np.testing.assert_array_equal(found[sure], (probability > threshold)[sure].numpy())
    assert 0 < found.mean() < 1


def test_probabilities_are_kept_in_steps_of_a_255th_at_the_size_asked_for():
    volume = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (5, 16, 24))).float()
    kept = np.zeros((5, 24, 20), np.uint8)
    groups = predict_slices(Logistic(), volume, PATCH, probe=Probe(min_foreground=0), batch=2)
    found = label_slices(groups, (5, 24, 20), probability=kept)
    probability = torch.nn.functional.interpolate(
        volume[:, None].sigmoid(), (24, 20), mode="bilinear", align_corners=False
    )[:, 0]
    np.testing.assert_allclose(kept, 255 * probability.numpy(), rtol=0, atol=0.501)
    np.testing.assert_array_equal(found.labels[kept > 130], 1)
    assert (found.windows_run, found.windows_total) == (10, 10)


def test_four_slices_are_a_batch_unless_told_otherwise():
    network, volume = Threshold(), torch.zeros(6, 16, 16)
    segment_slices(network, volume, PATCH, (16, 16))
    list(predict_slices(network, volume, PATCH))
    assert network.batches == [4, 2, 4, 2]


def test_more_windows_than_anybody_waits_for_are_refused_before_the_first():
    network = Threshold()
    with pytest.raises(InputError, match=r"takes 7,940,100 windows, more than 1,000,000 · give"):
        list(predict_slices(network, torch.zeros(100, 400, 400), (2, 4)))
    assert not network.batches
