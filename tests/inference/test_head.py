"""A head that is set apart changes no label, and memory does not grow with classes."""

import numpy as np
import pytest
import torch

from flarekd.imaging.files import write_volume
from flarekd.imaging.volume import Geometry, Volume
from flarekd.inference import predictor
from flarekd.inference.head import BACKGROUND_LOGIT, Features, Head, classes, greatest
from flarekd.inference.slabs import labels_from_logits, labels_from_planes
from flarekd.modelfile import ModelCard, save_model
from flarekd.student.budget import Budget
from flarekd.student.network import StudentUNet
from flarekd.student.segment import Student, WindowSettings
from flarekd.student.windows import (
    PaperRules,
    SkipRules,
    predict_logits,
    skip_rules,
    stream_logits,
)

CPU = torch.device("cpu")
CHANNELS = (4, 4, 8, 8)
PATCH = (8, 16, 16)
GEOMETRY = Geometry((40, 37, 19), (1.5, 1.25, 3.0))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def head_of(count: int, features: int) -> Head:
    weights = {"heads.0.weight": random(count, features, 1, 1, 1), "heads.0.bias": random(count)}
    head = Head.of(weights)
    assert head is not None
    return head


def make_model(path, count, *, bias=True, orientation="LPS"):
    """A student of random weights with many classes, whose background is where nothing varies."""
    torch.manual_seed(3)
    arguments = {
        "classes": count,
        "channels": CHANNELS,
        "strides": ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        "bias": bias,
    }
    network = StudentUNet(**arguments)
    for name, weight in network.named_parameters():
        if name.startswith("heads.0."):
            torch.nn.init.normal_(weight)
    own, network.heads[0] = network.heads[0], Features()
    air = network.eval()(torch.full((1, 1, *PATCH), -2.0))[0, 1:, 4, 8, 8]
    network.heads[0] = own
    own.weight.data[0, :, 0, 0, 0] = 4 * air / air.norm()
    card = ModelCard(
        role="student",
        network=arguments,
        labels=("background", *(f"part {i}" for i in range(1, count))),
        label_ids=tuple(range(count)),
        spacing=(4.0, 2.0, 2.0),
        patch=PATCH,
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 0.5, "windows": "full"},
        orientation=orientation,
    )
    save_model(path, network.state_dict(), card)
    return path


@pytest.fixture
def volume():
    """Noise that is smooth enough for parts, a ball of it in air."""
    z, y, x = np.indices(GEOMETRY.shape_zyx)
    inside = ((z - 9) / 9) ** 2 + ((y - 18) / 14) ** 2 + ((x - 20) / 15) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 150, GEOMETRY.shape_zyx)
    return Volume(np.where(inside, noise, -1000).astype(np.int16), GEOMETRY)


def whole(path, student, volume):
    """Labels by the network with its head, its logits held."""
    ready = predictor.load(path, "student", StudentUNet, CPU)
    skip = skip_rules(student.windows, ready.air, ready.card.labels)
    seen = ready.network_input(volume)
    found = predict_logits(ready.network, seen, PATCH, step=student.step, skip=skip)
    return labels_from_logits(found.logits, GEOMETRY.shape_zyx, student.method), found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("windows", ["full", "efficient", "body", "paper"])
def test_labels_are_those_of_the_whole_network(tmp_path, volume, windows, bias):
    path = make_model(tmp_path / "m.safetensors", 41, bias=bias)
    for method in ("linear", "nearest"):
        settings = WindowSettings(windows=windows, method=method)
        student = Student.load(path, device=CPU, runtime="torch", settings=settings)
        assert student.predictor.channels == 1 + CHANNELS[0]
        found = student.segment(student.prepare(volume))
        expected, full = whole(path, student, volume)
        assert len(np.unique(expected)) > 5
        assert 0 in expected
        # rounding decides between near ties alone
        assert (found.labels.array != expected).mean() < 1e-4
        assert found.windows_run == full.windows_run


class Apart(torch.nn.Module):
    """Features: none, a constant, the intensity. The largest says nothing of the class."""

    def forward(self, windows):
        return torch.cat([torch.zeros_like(windows), 9 + 0 * windows, windows], 1)


@pytest.mark.parametrize("rules", [SkipRules(air=-1.0), PaperRules(air=-1.0)])
def test_windows_are_skipped_by_what_the_head_says(rules):
    volume = torch.zeros(16, 64, 64)
    volume[5:7, 30:34, 30:34] = 1
    head = Head(torch.tensor([[0.0, 0, 0], [0, 0, 1]]), torch.tensor([[0.5], [0.0]]))
    stream = stream_logits(Apart().eval(), volume, PATCH, skip=rules, head=head)
    assert len(list(stream.planes)) == 16
    whole = predict_logits(lambda w: torch.cat([0.5 + 0 * w, w], 1), volume, PATCH, skip=rules)
    assert 0 < stream.windows_run == whole.windows_run < stream.windows_total


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_other_runtimes_give_the_same(tmp_path, volume, runtime):
    pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}[runtime])
    path = make_model(tmp_path / "m.safetensors", 41, orientation="RAS")
    expected, _ = whole(path, Student.load(path, device=CPU, runtime="torch"), volume)
    for _ in range(2):  # the second time by the graph that was kept
        student = Student.load(path, device=CPU, runtime=runtime)
        found = student.segment(student.prepare(volume)).labels.array
        assert student.predictor.channels == 1 + CHANNELS[0]
        assert (found != expected).mean() < 1e-4


def test_memory_is_planned_for_features_where_classes_are_more(tmp_path, volume):
    write_volume(tmp_path / "scan.nii.gz", volume)
    needs = []
    for count in (3, 5, 6, 100):
        path = make_model(tmp_path / f"{count}.safetensors", count)
        student = Student.load(path, device=CPU, runtime="torch")
        budget = Budget(student, 1e9, 0, keeps_scan=False, beside=lambda _: 0)
        needs.append(budget.needs(tmp_path / "scan.nii.gz"))
    assert needs[0].network < needs[1].network == needs[2].network == needs[3].network


def test_a_whole_network_is_loaded_where_nobody_can_apply_its_head(tmp_path):
    path = make_model(tmp_path / "m.safetensors", 41)
    ready = predictor.load(path, "student", StudentUNet, CPU)
    assert ready.head is None
    assert ready.network(torch.zeros(1, 1, *PATCH)).shape == (1, 41, *PATCH)


def test_a_head_makes_the_logits_of_the_convolution():
    weight, bias, features = random(30, 7, 1, 1, 1), random(30, seed=1), random(2, 7, 3, 4, 5)
    head = Head.of({"heads.0.weight": weight, "heads.0.bias": bias})
    expected = torch.nn.functional.conv3d(features, weight, bias)
    given = Features()(features)
    assert given.shape == (2, 8, 3, 4, 5)
    for sample, wanted in zip(given, expected, strict=True):
        torch.testing.assert_close(torch.stack(list(classes(sample, head))), wanted)
        labels, best = greatest(classes(sample, head))
        assert labels.dtype == torch.uint8
        torch.testing.assert_close(best, wanted.amax(0))
        assert torch.equal(labels.long(), wanted.argmax(0))


def test_what_was_not_looked_at_has_the_logits_of_background():
    head = head_of(30, 7)
    unseen = torch.zeros(8, 2, 3)
    unseen[0] = BACKGROUND_LOGIT
    expected = torch.zeros(30, 2, 3)
    expected[0] = BACKGROUND_LOGIT
    for channels in (unseen, unseen[:1]):  # alone where no window was run at all
        found = torch.stack(list(classes(channels, head)))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "is_apart"), [(2, False), (8, False), (9, True), (200, True)])
def test_the_head_is_apart_where_classes_outnumber_what_takes_their_place(count, is_apart):
    weights = {"heads.0.weight": random(count, 7, 1, 1, 1)}
    assert (Head.of(weights) is not None) == is_apart


def test_ties_go_to_the_lower_class_and_nan_is_handed_on():
    logits = torch.tensor([[1.0, 2.0, 0.0], [1.0, 3.0, torch.nan], [0.0, 3.0, 1.0]])
    labels, best = greatest(iter(logits))
    assert labels.tolist()[:2] == [0, 1]
    assert best[:2].tolist() == [1.0, 3.0]
    assert best[2].isnan()
    assert logits[0].tolist() == [1.0, 2.0, 0.0]  # nothing was written into what came


@pytest.mark.parametrize("method", ["linear", "nearest"])
@pytest.mark.parametrize("native", [(9, 31, 27), (3, 8, 9), (6, 14, 12)])
@pytest.mark.parametrize("is_noisy", [False, True])
def test_planes_of_features_give_the_labels_of_their_logits(native, method, is_noisy):
    head = head_of(23, 6)
    features = random(7, 6, 14, 12, seed=2)
    if not is_noisy:  # wide parts: most cells are not interpolated
        features = features[:, ::3, ::7, ::6].repeat_interleave(3, 1).repeat_interleave(7, 2)
        features = features.repeat_interleave(6, 3)[:, :6, :14, :12].contiguous()
    features[0] = 0
    features[:, 2, 3:5] = 0
    features[0, 2, 3:5] = BACKGROUND_LOGIT  # never looked at
    logits = torch.stack(list(classes(features, head)))
    expected = labels_from_logits(logits, native, method)
    planes = features.unbind(1)
    found = labels_from_planes(planes, features.shape[1:], native, method, head)
    assert (found != expected).mean() < 1e-3


def test_features_that_are_no_numbers_are_refused():
    features = random(7, 2, 5, 5)
    features[3, 1, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="slice 1 hold NaN"):
        labels_from_planes(features.unbind(1), (2, 5, 5), (4, 9, 9), "linear", head_of(23, 6))


def test_more_classes_than_a_label_map_has_ids_are_refused():
    assert Head.of({"heads.0.weight": random(256, 7, 1, 1, 1)}) is not None
    with pytest.raises(ValueError, match="257 classes, labels have 256 ids"):
        Head.of({"heads.0.weight": random(257, 7, 1, 1, 1)})


def test_a_network_with_its_head_and_one_without_have_graphs_of_their_own(tmp_path):
    pytest.importorskip("openvino")
    path = make_model(tmp_path / "m.safetensors", 41)
    outputs = []
    for is_apart in (False, True, False):
        ready = predictor.load(path, "student", StudentUNet, CPU, "openvino", head_apart=is_apart)
        outputs.append(ready.network(torch.zeros(1, 1, *PATCH)).shape[1])
    assert outputs == [41, 1 + CHANNELS[0], 41]
