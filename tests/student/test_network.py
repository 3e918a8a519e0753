import pytest
import torch
from torch import nn

from flarekd.student.network import StudentUNet


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


def macs(network, image):
    """Multiply-adds of the convolutions, counted at their outputs (inputs where transposed)."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        places = inputs[0] if isinstance(module, nn.ConvTranspose3d) else output
        total += places.numel() // places.shape[1] * (module.weight.numel())

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(count)
    network(image)
    return total


@pytest.mark.paper
@pytest.mark.parametrize(("classes", "count"), [(15, 5_644_256), (14, 5_644_016)])
def test_the_student_has_the_published_parameters(classes, count):
    with torch.device("meta"):
        assert parameters(StudentUNet(classes)) == count


@pytest.mark.paper
def test_the_student_has_the_published_macs():
    with torch.device("meta"):
        network, image = StudentUNet(15), torch.empty(1, 1, 32, 128, 192)
    assert macs(network.train(), image) / 1e9 == pytest.approx(63.479, abs=0.001)
    with torch.device("meta"):
        network = StudentUNet(15)
    assert macs(network.eval(), image) / 1e9 == pytest.approx(63.355, abs=0.001)


def test_four_levels_are_supervised_in_training_and_one_is_given_otherwise():
    network = StudentUNet(3, channels=(2, 4, 6, 8, 10))
    image = torch.zeros(2, 1, 16, 32, 32)
    outputs = network(image)
    assert [tuple(output.shape) for output in outputs] == [
        (2, 3, 16, 32, 32),
        (2, 3, 16, 16, 16),
        (2, 3, 8, 8, 8),
        (2, 3, 4, 4, 4),
    ]
    assert tuple(network.eval()(image).shape) == (2, 3, 16, 32, 32)
    assert network.divisor == (8, 16, 16)


def test_evaluation_is_deterministic_and_every_weight_learns():
    torch.manual_seed(0)
    network = StudentUNet(3, channels=(2, 4, 6), strides=((1, 2, 2), (2, 2, 2)))
    image = torch.randn(1, 1, 4, 8, 8)
    sum(output.square().sum() for output in network(image)).backward()
    assert all(
        w.grad is not None and w.grad.abs().sum() > 0
        for n, w in network.named_parameters()
        if n.endswith("weight")
    )
    network.eval()
    assert torch.equal(network(image), network(image))


def test_kernels_depths_and_biases_can_be_those_of_another_u_net():
    network = StudentUNet(
        3,
        (2, 4),
        ((1, 2, 2),),
        kernels=((1, 3, 3), (3, 1, 5)),
        decoder_kernels=((1, 1, 3),),
        convs=(1, 3),
        decoder_convs=(2,),
        bias=True,
    )
    shapes = {name: tuple(w.shape) for name, w in network.named_parameters() if w.ndim == 5}
    assert shapes == {
        "encoder.0.0.0.weight": (2, 1, 1, 3, 3),
        "encoder.1.0.0.weight": (4, 2, 3, 1, 5),
        "encoder.1.1.0.weight": (4, 4, 3, 1, 5),
        "encoder.1.2.0.weight": (4, 4, 3, 1, 5),
        "up.0.weight": (4, 2, 1, 2, 2),
        "decoder.0.0.0.weight": (2, 4, 1, 1, 3),
        "decoder.0.1.0.weight": (2, 2, 1, 1, 3),
        "heads.0.weight": (3, 2, 1, 1, 1),
    }
    assert {"up.0.bias", "heads.0.bias"} <= dict(network.named_parameters()).keys()
    assert tuple(network.eval()(torch.zeros(1, 1, 3, 8, 6)).shape) == (1, 3, 3, 8, 6)


def test_stages_and_strides_must_fit():
    with pytest.raises(ValueError, match="3 stages need 2 strides, got 4"):
        StudentUNet(2, channels=(2, 4, 6))
