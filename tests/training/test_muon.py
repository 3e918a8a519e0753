"""Muon: orthogonal steps for kernels, AdamW for the rest."""

import pytest
import torch

from flarekd.protocol import Optimizer
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet
from flarekd.training.muon import Muon, is_kernel, orthogonal
from flarekd.training.schedule import make_optimizer


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def give(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.nn.Parameter:
    held = torch.nn.Parameter(parameter.clone())
    held.grad = gradient.clone()
    return held


@pytest.mark.parametrize("shape", [(16, 144), (96, 1728), (40, 40), (64, 12)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = random(*shape)
    matrix[:, 0] *= 30  # one direction far above the others
    found = orthogonal(matrix)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assert found.shape == matrix.shape
    assert torch.linalg.svdvals(found).max() < 1.3
    # in the directions of the matrix itself nothing but the lengths has changed
    turned = left.T @ found @ right.T
    assert torch.equal(turned.diagonal() > 0, values > 0)
    torch.testing.assert_close(turned, turned.diagonal().diag(), atol=1e-3, rtol=0)
    # what is not vanishingly small beside the largest is brought up to it
    assert turned.diagonal()[values > 0.02 * values[0]].min() > 0.6


def test_a_zero_matrix_stays_one():
    assert not orthogonal(torch.zeros(4, 9)).any()


def test_a_step_of_a_kernel_is_as_long_whatever_its_gradient_is():
    steps = []
    for scale in (1e-3, 1.0, 1e3):
        kernel = give(random(8, 4, 3, 3), scale * random(8, 4, 3, 3, seed=1))
        Muon([kernel], lr=0.01, momentum=0.95, weight_decay=0.0).step()
        steps.append(kernel.detach() - random(8, 4, 3, 3))
    for step in steps:
        # as long as one of AdamW's: 0.2 of the learning rate, as root mean square
        assert 0.5 < step.square().mean().sqrt() / (0.2 * 0.01) < 1.2
        torch.testing.assert_close(step, steps[1], atol=1e-5, rtol=1e-3)


def test_momentum_is_nesterovs():
    first, second = random(8, 4, 3, 3, seed=1), random(8, 4, 3, 3, seed=2)
    kernel = give(torch.zeros(8, 4, 3, 3), first)
    optimizer = Muon([kernel], lr=0.01, momentum=0.9, weight_decay=0.0)
    optimizer.step()
    before = kernel.detach().clone()
    kernel.grad = second
    optimizer.step()
    momentum = 0.9 * (0.1 * first) + 0.1 * second
    ahead = (0.1 * second + 0.9 * momentum).flatten(1)
    expected = -0.01 * 0.2 * 36**0.5 * orthogonal(ahead).view(8, 4, 3, 3)
    torch.testing.assert_close(kernel.detach() - before, expected)


def test_what_is_no_kernel_moves_as_adamw_moves_it():
    gradients = [random(15, 16, 1, 1, 1, seed=seed) for seed in range(5)]
    ours, theirs = (torch.nn.Parameter(random(15, 16, 1, 1, 1, seed=9)) for _ in range(2))
    optimizers = [
        Muon([ours], lr=0.01, momentum=0.95, weight_decay=0.1),
        torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1),
    ]
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_weights_of_kernels_decay_by_the_learning_rate():
    kernel = give(torch.ones(8, 4, 3, 3), torch.zeros(8, 4, 3, 3))
    Muon([kernel], lr=0.1, momentum=0.95, weight_decay=0.5).step()
    torch.testing.assert_close(kernel.detach(), torch.full((8, 4, 3, 3), 0.95))


def test_a_parameter_without_gradient_stays():
    kernel = torch.nn.Parameter(torch.ones(8, 4, 3, 3))
    Muon([kernel], lr=0.1, momentum=0.95, weight_decay=0.5).step()
    assert kernel.eq(1).all()


def test_kernels_between_features_are_told_from_heads_and_first_layers():
    student = StudentUNet(15, (16, 32), ((1, 2, 2),))
    kernels = {name for name, weight in student.named_parameters() if is_kernel(weight)}
    assert "up.0.weight" in kernels
    assert sum(name.startswith("encoder.") for name in kernels) == 3  # of 4
    assert sum(name.startswith("decoder.") for name in kernels) == 2
    assert not any(name.startswith("heads.") for name in kernels)
    for weight in student.parameters():
        assert weight.ndim > 1 or not is_kernel(weight)
    for name, weight in TeacherUNet(2, (12, 24, 48)).named_parameters():
        if weight.ndim == 4 and weight.shape[2:] == (1, 1):
            assert not is_kernel(weight), name  # heads, and the gates of attention


def test_the_configuration_makes_it():
    network = StudentUNet(15, (8, 16), ((1, 2, 2),))
    settings = Optimizer(name="muon", lr=0.003, momentum=0.95, weight_decay=0.01)
    optimizer = make_optimizer(network, settings)
    assert isinstance(optimizer, Muon)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.003, 0.95, 0.01)
    assert len(group["params"]) == len(list(network.parameters()))
