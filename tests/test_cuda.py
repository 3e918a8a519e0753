"""What runs on a GPU gives what the CPU gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flarekd import config
from flarekd.inference import accumulate
from flarekd.inference.accumulate import Planes
from flarekd.inference.head import Features, Head
from flarekd.inference.slabs import labels_from_logits, labels_from_planes
from flarekd.student.network import StudentUNet
from flarekd.student.windows import SkipRules, predict_logits, stream_logits
from flarekd.teacher.network import TeacherUNet
from flarekd.training import augment
from flarekd.training.loop import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


def smooth(shape, seed=0):
    coarse = torch.randn(1, 5, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0].contiguous()


def test_planes_stay_on_the_gpu_and_are_those_of_the_cpu():
    size, patch = (9, 20, 22), (4, 12, 12)
    windows = {
        (z, y, x): torch.randn(3, *patch) for z in (0, 2, 5) for y in (0, 8) for x in (0, 10)
    }
    here, there = Planes(size, patch), Planes(size, patch)
    for start, window in windows.items():
        here.add(window, start)
        there.add(window.to(CUDA), start)
    for z in range(size[0]):
        found = there.take(z, 7.0)
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), here.take(z, 7.0))


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_labels_are_those_of_the_cpu(method):
    logits = smooth((12, 40, 44))
    expected = labels_from_logits(logits, (50, 97, 113), method)
    found = labels_from_logits(logits.to(CUDA), (50, 97, 113), method)
    assert len(np.unique(expected)) > 3
    assert (found != expected).mean() < 1e-5


@pytest.mark.parametrize("skip", [None, SkipRules(-0.5)])
def test_windows_in_half_precision_give_the_labels_of_the_cpu(skip):
    torch.manual_seed(0)
    network = StudentUNet(5, [8, 16, 32], [[1, 2, 2], [2, 2, 2]]).eval()
    volume = smooth((20, 50, 60))[0]
    expected = predict_logits(network, volume, (8, 32, 32), skip=skip)
    network = network.to(CUDA)
    found = predict_logits(network, volume.to(CUDA), (8, 32, 32), skip=skip)
    assert found.windows_run == expected.windows_run
    assert (found.logits.argmax(0) != expected.logits.argmax(0)).float().mean() < 0.01


@pytest.mark.parametrize("is_roomy", [True, False])
def test_a_head_apart_works_where_the_features_lie(monkeypatch, is_roomy):
    monkeypatch.setattr(
        accumulate, "_roomy", lambda device, _: device if is_roomy else torch.device("cpu")
    )
    torch.manual_seed(0)
    network = StudentUNet(30, [8, 16, 32], [[1, 2, 2], [2, 2, 2]]).eval()
    head = Head.of(network.state_dict())
    assert head is not None
    volume = smooth((20, 50, 60))[0]
    expected = labels_from_logits(predict_logits(network, volume, (8, 32, 32)).logits, (40, 80, 90))
    network.heads[0] = Features()
    stream = stream_logits(
        network.to(CUDA), volume.to(CUDA), (8, 32, 32), skip=SkipRules(-9), head=head
    )
    found = labels_from_planes(stream.planes, volume.shape, (40, 80, 90), head=head)
    assert (found != expected).mean() < 0.01


def test_augmentation_has_the_values_of_the_cpu():
    settings = config.load(config.builtin("flare23"), []).student.augmentation
    names = "elastic rotation scaling noise blur brightness contrast low_resolution gamma tissue"
    every = dict.fromkeys(names.split(), 1.0)
    draws = [
        augment.sample(np.random.default_rng(seed), settings.model_copy(update=every))
        for seed in range(3)
    ]
    images = smooth((8, 90, 90))[:3].contiguous()
    labels = (smooth((8, 90, 90), 1)[:3] > 0).to(torch.uint8).contiguous()
    expected = augment.apply(images, labels, draws, (8, 48, 56))
    found = augment.apply(images.to(CUDA), labels.to(CUDA), draws, (8, 48, 56))
    torch.testing.assert_close(found[0].cpu(), expected[0], rtol=1e-3, atol=1e-3)
    assert (found[1].cpu() != expected[1]).float().mean() < 1e-3


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("which", ["student", "teacher"])
def test_training_steps_drive_one_batch_down(which, precision, tmp_path):
    whole = config.load(config.builtin("quick"), [])
    settings = whole.student if which == "student" else whole.teacher
    settings = settings.model_copy(update={"epochs": 2, "iterations": 30, "precision": precision})
    torch.manual_seed(0)
    if which == "student":
        network = StudentUNet(5, settings.channels, settings.strides)
        settings = settings.model_copy(update={"class_weights": [1.0] * 5})
        target = smooth(settings.patch).argmax(0)[None]
    else:
        network = TeacherUNet(2, settings.channels, settings.attention)
        target = smooth(settings.patch)[:2].argmax(0)
    image = target[:, None].float() + 0.1 * torch.randn(target.shape)[:, None]
    trainer = Trainer(network.to(CUDA), settings, tmp_path, 0, "test", CUDA)
    records = []
    trainer.train(lambda _: (image.to(CUDA), target.to(CUDA)), lambda *_: None, records.append)
    assert records[-1]["loss"] < records[0]["loss"]
    assert records[-1]["loss"] < -0.2
