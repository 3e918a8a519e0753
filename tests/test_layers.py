import pytest
import torch
from torch.nn import functional

from flarekd.layers import NormAct, conv_block


def apart(image, module):
    """Torch's own two layers."""
    normed = functional.instance_norm(image, weight=module.weight, bias=module.bias)
    return functional.leaky_relu(normed, 0.01)


PLAIN, LAST_2D, LAST_3D = torch.contiguous_format, torch.channels_last, torch.channels_last_3d


def both(shape, weight, bias, memory=PLAIN, memory_back=PLAIN):
    """Result and gradients of `NormAct` and of torch's layers, from the same random input."""
    module = NormAct(shape[1])
    module.weight.data.copy_(torch.as_tensor(weight))
    module.bias.data.copy_(torch.as_tensor(bias))
    image = 3 * torch.randn(shape) + 40
    towards = torch.randn(shape)
    found = []
    for layer in (module, lambda x: apart(x, module)):
        module.zero_grad()
        start = image.clone(memory_format=memory).requires_grad_()
        result = layer(start)
        result.backward(towards.clone(memory_format=memory_back))
        found.append((result.detach(), start.grad, module.weight.grad, module.bias.grad))
    return found


@pytest.mark.parametrize("shape", [(3, 4, 5, 6, 7), (2, 4, 9, 8)])
def test_it_equals_instance_norm_and_leaky_relu(shape):
    torch.manual_seed(0)
    ours, theirs = both(shape, [1.0, -0.7, 0.02, 3.0], [0.0, 0.5, 1.0, -2.0])
    assert torch.equal(ours[0], theirs[0])
    for gradient, expected in zip(ours[1:], theirs[1:], strict=True):
        # channel 2 goes back through 50 times its weight
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "memory"),
    [((3, 4, 5, 6, 7), LAST_3D), ((2, 4, 9, 8), LAST_2D), ((1, 4, 9, 8), LAST_2D)],
)
@pytest.mark.parametrize("goes_back_alike", [True, False])
def test_channels_may_lie_last_in_memory(shape, memory, goes_back_alike):
    torch.manual_seed(0)
    memory_back = memory if goes_back_alike else PLAIN
    values = [1.0, -0.7, 0.02, 3.0], [0.0, 0.5, 1.0, -2.0]
    ours, theirs = both(shape, *values, memory, memory_back)
    for value, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
    assert ours[0].is_contiguous(memory_format=memory)
    assert not ours[0].is_contiguous()


def test_a_part_of_a_tensor_is_normed_as_a_copy_of_it():
    torch.manual_seed(0)
    whole, module = torch.randn(2, 6, 5, 7), NormAct(4)
    part = whole[:, 1:5].requires_grad_()
    assert torch.equal(module(part), apart(part.clone(), module))


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_weight_of_zero_has_torchs_own_gradient(bias):
    torch.manual_seed(0)
    ours, theirs = both((2, 2, 6, 5), [0.0, 1.0], [bias, 0.5])
    for value, expected in zip(ours, theirs, strict=True):
        assert torch.equal(value, expected)


def test_half_precision_is_left_to_torch():
    module = NormAct(2)
    image = torch.randn(2, 2, 6, 5, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        module(image).sum().backward()
        assert torch.isfinite(image.grad).all()


def test_only_the_result_is_kept_for_the_way_back():
    image = torch.randn(2, 3, 16, 16, requires_grad=True) * 2
    kept = []

    def keep(tensor):
        kept.append(tensor.data_ptr())
        return tensor

    module = NormAct(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = module(image)
    assert result.data_ptr() in kept
    assert image.data_ptr() not in kept


def poison():
    """Fill freed memory, which is handed out again as it is, with what shows up."""
    for size in (10, 100, 1_000, 10_000, 100_000, 1_000_000):
        del [torch.full((size,), float("nan")) for _ in range(8)][:]


@pytest.mark.parametrize("thick", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_bf16_gradients_of_thin_images_are_those_of_float32(thick, stride, kernel):
    torch.manual_seed(0)
    block = conv_block(24, 24, kernel, stride)[0]
    image = torch.randn(2, 24, thick, 10, 14)
    towards = torch.randn(block(image).shape)
    found = []
    for lowered in (False, True):
        block.zero_grad()
        start = image.clone().requires_grad_()
        poison()
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            result = block(start)
        poison()
        result.float().backward(towards)
        found.append((result.float(), start.grad, block.weight.grad))
    for exact, value in zip(*found, strict=True):
        assert (exact - value).norm() < 0.01 * exact.norm()


def test_without_gradients_it_is_torchs_own():
    module, image = NormAct(3).eval(), torch.randn(2, 3, 4, 5, 6)
    with torch.inference_mode():
        assert torch.equal(module(image), apart(image, module))
