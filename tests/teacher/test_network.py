import pytest
import torch
from torch import nn
from torch.nn import functional

from flarekd.teacher.attention import ChannelAttention, DualGate, NonLocal
from flarekd.teacher.network import TeacherUNet

SMALL = (4, 6, 8, 8, 8, 8)


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.paper
@pytest.mark.parametrize(
    ("classes", "attention", "count"),
    [
        (15, "published", 62_963_974),
        (14, "published", 62_962_054),
        (2, "published", 62_939_014),
        (2, "none", 41_262_432),
        (15, "none", 41_287_392),
    ],
)
def test_the_teacher_has_the_published_parameters(classes, attention, count):
    with torch.device("meta"):
        assert parameters(TeacherUNet(classes, attention=attention)) == count


@pytest.mark.paper
@pytest.mark.parametrize(("classes", "gmacs"), [(15, 105.980), (2, 105.767)])
def test_the_teacher_has_the_published_macs(classes, gmacs):
    total = 0

    def count(module, inputs, output):
        nonlocal total
        places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += places.numel() // places.shape[1] * module.weight.numel()

    with torch.device("meta"):
        network, image = TeacherUNet(classes), torch.empty(1, 1, 512, 512)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    outputs = network(image)
    assert total / 1e9 == pytest.approx(gmacs, abs=0.001)
    assert [output.shape[-1] for output in outputs] == [512, 256, 128, 64, 32, 16, 8]


@pytest.mark.parametrize("attention", ["published", "equations", "none"])
def test_any_divisible_size_is_accepted_and_evaluation_is_deterministic(attention):
    network = TeacherUNet(2, SMALL, attention).eval()
    assert network.divisor == 32
    for size in ((64, 64), (32, 96)):
        image = torch.randn(1, 1, *size)
        assert tuple(network(image).shape) == (1, 2, *size)
        assert torch.equal(network(image), network(image))


def test_dropout_acts_in_training_alone():
    network = TeacherUNet(2, SMALL)
    drops = [module for module in network.modules() if isinstance(module, nn.Dropout2d)]
    assert [drop.p for drop in drops] == [0.5]
    image = torch.randn(2, 1, 64, 64)
    assert not torch.equal(network(image)[0], network(image)[0])


@pytest.mark.parametrize("attention", ["published", "equations", "none"])
def test_every_weight_learns(attention):
    torch.manual_seed(0)
    network = TeacherUNet(2, SMALL, attention)
    for module in network.modules():
        if isinstance(module, NonLocal):
            nn.init.ones_(module.norm.weight)  # at its zero start nothing behind it learns
    sum(output.square().sum() for output in network(torch.randn(2, 1, 128, 128))).backward()
    silent = [n for n, w in network.named_parameters() if w.grad is None]
    assert silent == []


def test_the_nonlocal_block_starts_as_the_identity():
    block = NonLocal(8)
    block.start_as_identity()
    feature = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(block.eval()(feature), feature)


def test_the_nonlocal_block_is_softmax_attention_over_pooled_keys():
    torch.manual_seed(0)
    block = NonLocal(8).eval()
    x = torch.randn(1, 8, 4, 4)
    query, key, value = (
        functional.conv2d(x, conv.weight, conv.bias)[0]
        for conv in (block.query, block.key, block.value)
    )
    key, value = (functional.max_pool2d(t, 2).reshape(2, -1) for t in (key, value))
    mixed = torch.stack([value @ torch.softmax(key.T @ q, 0) for q in query.reshape(2, -1).T], 1)
    expected = block.norm(block.out(mixed.reshape(1, 2, 4, 4))) + x
    torch.testing.assert_close(block(x), expected)


def test_channel_attention_weighs_between_0_and_2():
    torch.manual_seed(0)
    block = ChannelAttention(6, 4).eval()
    x = torch.randn(1, 6, 8, 8)
    wide = block.body(x)
    beta = torch.sigmoid(block.squeeze(wide.mean((2, 3)))) + torch.sigmoid(
        block.squeeze(wide.flatten(2).max(2).values)
    )
    assert bool(((beta > 0) & (beta < 2)).all())
    expected = block.out(functional.relu(wide * beta[:, :, None, None] + block.shortcut(x)))
    torch.testing.assert_close(block(x), expected)


def test_a_gate_that_sees_nothing_lets_half_through():
    gate = DualGate(3, 5, literal=True).first
    for weight in gate.parameters():
        nn.init.zeros_(weight)
    skip = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(gate(skip, torch.randn(1, 5, 4, 4)), 0.5 * skip)
