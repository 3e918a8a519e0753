import pytest
import torch

from flarekd.inference import accumulate
from flarekd.inference.accumulate import Accumulator, Planes, _roomy, check_network, forward


def test_windows_that_agree_give_back_their_value_wherever_they_overlap():
    field = torch.randn(3, 6, 10, generator=torch.Generator().manual_seed(0))
    accumulator = Accumulator((6, 10), (4, 4))
    for y in (0, 2):
        for x in (0, 3, 6):
            accumulator.add(field[:, y : y + 4, x : x + 4], (y, x))
    torch.testing.assert_close(accumulator.mean(1.0), field, rtol=0, atol=1e-5)


def test_overlap_is_weighted_by_distance_from_the_middle():
    accumulator = Accumulator((6,), (4,))
    accumulator.add(torch.zeros(1, 4), (0,))
    accumulator.add(torch.ones(1, 4), (2,))
    mean = accumulator.mean(0.0)[0]
    # voxel 2 is the middle of the first window (weight 1) and the rim of the second (4 σ away)
    assert mean[:2].tolist() == [0, 0]
    assert mean[2] == pytest.approx(torch.exp(torch.tensor(-8.0)).item(), rel=1e-3)
    assert mean[4:].tolist() == [1, 1]


def test_what_no_window_saw_is_background_and_never_nan():
    accumulator = Accumulator((5,), (2,))
    accumulator.add(torch.full((2, 2), 3.0), (1,))
    torch.testing.assert_close(
        accumulator.mean(7.0), torch.tensor([[7.0, 3, 3, 7, 7], [0, 3, 3, 0, 0]])
    )
    assert Accumulator((2, 2), (1, 1)).mean(7.0).tolist() == [[[7, 7], [7, 7]]]


def test_planes_are_those_of_all_windows_added_up_at_once():
    generator = torch.Generator().manual_seed(0)
    size, patch = (7, 9, 8), (4, 6, 5)
    whole, planes = Accumulator(size, patch), Planes(size, patch)
    starts = [(z, y, x) for z in (0, 2, 3) for y in (0, 3) for x in (0, 2)]  # not x 7
    for start in starts:
        window = torch.randn(3, *patch, generator=generator)
        whole.add(window, start)
        planes.add(window, start)
    expected = whole.mean(7.0)
    for z in range(size[0]):
        assert torch.equal(planes.take(z, 7.0), expected[:, z])
    assert expected[:, 0, 0, 7].tolist() == [7, 0, 0]


def test_a_plane_taken_is_forgotten_and_one_never_seen_is_background():
    planes = Planes((2, 2, 2), (1, 2, 2))
    assert planes.take(0, 7.0).tolist() == [[[7, 7], [7, 7]]]
    planes.add(torch.full((2, 1, 2, 2), 3.0), (1, 0, 0))
    torch.testing.assert_close(planes.take(1, 7.0), torch.full((2, 2, 2), 3.0))
    assert planes.take(1, 7.0).tolist() == [[[7, 7], [7, 7]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("device", "size", "home"), [("cuda", 50, "cuda"), ("cuda", 51, "cpu"), ("cpu", 1, "cpu")]
)
def test_sums_stay_on_a_gpu_that_has_twice_their_room(monkeypatch, device, size, home):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (accumulate.LABELLING + 100, 1 << 40))
    assert _roomy(torch.device(device), size) == torch.device(home)


@pytest.mark.parametrize(("held", "planes_asked"), [(None, 5), (2, 2)])
def test_sums_ask_for_room_for_all_held_planes_of_all_classes_and_the_weights(
    monkeypatch, held, planes_asked
):
    asked = []
    monkeypatch.setattr(accumulate, "_roomy", lambda device, size: asked.append(size) or device)
    planes = Planes((5, 6, 7), (2, 3, 4), held=held)
    for z in range(2):
        planes.add(torch.ones(3, 2, 3, 4), (z, 0, 0))
    assert asked == [4 * (3 + 1) * planes_asked * 6 * 7]


def test_sums_and_planes_that_nobody_saw_lie_where_there_is_room(monkeypatch):
    monkeypatch.setattr(accumulate, "_roomy", lambda _device, _size: torch.device("meta"))
    planes = Planes((5, 6, 7), (2, 3, 4))
    planes.add(torch.ones(3, 2, 3, 4), (0, 0, 0))
    assert {planes.take(z, 1.0).device.type for z in range(5)} == {"meta"}


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        check_network(torch.nn.Conv2d(1, 1, 1))
    check_network(torch.nn.Conv2d(1, 1, 1).eval())
    check_network(lambda windows: windows)  # of another runtime


def test_a_network_that_changes_the_resolution_is_refused():
    with pytest.raises(ValueError, match=r"maps \(1, 1, 4, 4\) to \(1, 1, 2, 2\)"):
        forward(torch.nn.MaxPool2d(2).eval(), torch.zeros(1, 1, 4, 4))


def test_half_precision_is_for_cuda_alone():
    network = torch.nn.Conv2d(1, 2, 1).eval()
    image = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(forward(network, image), network(image))
