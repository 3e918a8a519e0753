import numpy as np
import pytest
import torch
from torch.nn import functional

from flarekd.labels import IGNORE
from flarekd.training.loss import deep_supervision_loss, dice_cross_entropy


def numpy_loss(logits, target, classes):
    exp = np.exp(logits - logits.max(1, keepdims=True))
    p = exp / exp.sum(1, keepdims=True)
    t = np.stack([target == c for c in range(classes)], 1).astype(float)
    axes = (0, *range(2, logits.ndim))
    dice = (2 * (p * t).sum(axes) + 1e-5) / (p.sum(axes) + t.sum(axes) + 1e-5)
    return -np.log((p * t).sum(1)).mean() - dice[1:].mean(), dice[1:]


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_loss_equals_ten_lines_of_numpy(shape):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, *shape), torch.randint(0, 3, (2, *shape))
    loss, dice = dice_cross_entropy(logits, target)
    expected, expected_dice = numpy_loss(logits.double().numpy(), target.numpy(), 4)
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(dice.numpy(), expected_dice, atol=1e-5)


def test_a_perfect_prediction_costs_minus_one():
    target = torch.tensor([[[0, 1, 2, 1]]])
    logits = functional.one_hot(target, 3).movedim(-1, 1).float() * 100
    loss, dice = dice_cross_entropy(logits, target)
    assert float(loss) == pytest.approx(-1, abs=1e-5)
    torch.testing.assert_close(dice, torch.ones(2))


def test_dice_is_pooled_over_the_batch_and_leaves_background_out():
    target = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    logits = torch.zeros(2, 2, 1, 4)
    _, dice = dice_cross_entropy(logits, target)
    assert dice.shape == (1,)
    # one half everywhere: 2·(4·½) / (8·½ + 4); per sample it would be 2/3 and 0
    assert float(dice) == pytest.approx(0.5, abs=1e-5)


def test_class_weights_weigh_cross_entropy_and_dice():
    logits, target = torch.randn(1, 3, 6), torch.tensor([[0, 1, 2, 0, 0, 1]])
    weights = torch.tensor([1.0, 5.0, 0.5])
    plain, dice = dice_cross_entropy(logits, target)
    weighted, _ = dice_cross_entropy(logits, target, weights)
    entropy = functional.cross_entropy(logits, target, weight=weights)
    expected = entropy - (5.0 * dice[0] + 0.5 * dice[1]) / 5.5
    torch.testing.assert_close(weighted, expected)
    assert float(weighted) != float(plain)


def plain_loss(logits, target, weights):
    """The loss as torch's own parts make it, each of them differentiated by autograd."""
    probability = torch.softmax(logits, dim=1)
    one_hot = functional.one_hot(target, logits.shape[1]).movedim(-1, 1)
    axes = (0, *range(2, logits.ndim))
    overlap, total = (probability * one_hot).sum(axes), (probability + one_hot).sum(axes)
    dice = ((2 * overlap + 1e-5) / (total + 1e-5))[1:]
    share = torch.ones(len(dice)) if weights is None else weights[1:]
    entropy = functional.cross_entropy(logits, target, weight=weights)
    return entropy - (share * dice).sum() / share.sum()


@pytest.mark.parametrize("weights", [None, (1.0, 4.0, 0.5, 2.0)])
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_gradients_equal_those_of_autograd(shape, weights):
    torch.manual_seed(0)
    logits = (3 * torch.randn(2, 4, *shape)).requires_grad_()
    target = torch.randint(0, 3, (2, *shape))  # class 3 is nowhere
    weights = None if weights is None else torch.tensor(weights)
    value, _ = dice_cross_entropy(logits, target, weights)
    (2.5 * value).backward()
    again = logits.detach().clone().requires_grad_()
    expected = plain_loss(again, target, weights)
    (2.5 * expected).backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(logits.grad, again.grad, rtol=1e-5, atol=1e-8)


def test_a_confident_mistake_costs_its_distance_and_still_has_a_gradient():
    logits = torch.tensor([[[200.0, 0.0], [0.0, 200.0]]], requires_grad=True)
    target = torch.tensor([[1, 1]])
    value, _ = dice_cross_entropy(logits, target)
    value.backward()
    # cross-entropy (200 + 0) / 2; Dice 2·1 / (1 + 2)
    assert float(value.detach()) == pytest.approx(100 - 2 / 3, abs=1e-4)
    # in float32 the softmax of 200 is 1 and its slope 0: the cross-entropy alone pulls
    torch.testing.assert_close(logits.grad, torch.tensor([[[0.5, 0.0], [-0.5, 0.0]]]))


def test_sums_over_more_voxels_than_float32_counts_one_by_one_are_exact():
    side = 4100  # 16.8 million voxels: one more than 2**24 is lost when ones are added in float32
    target = torch.ones(1, side, side, dtype=torch.int64)
    target[0, 0, :7] = 0
    logits = torch.tensor([-1.0, 1.0])[None, :, None, None].expand(1, 2, side, side)
    _, dice = dice_cross_entropy(logits, target)
    p, ones = 1 / (1 + np.exp(-2)), side**2 - 7
    assert float(dice) == pytest.approx(2 * ones * p / (side**2 * p + ones), rel=1e-4)


@pytest.mark.parametrize("size", [(4, 8), (3, 5), (2, 7)])
def test_targets_shrink_to_the_nearest_voxel(size):
    target = torch.randint(0, 3, (2, 8, 16))
    outputs = [torch.randn(2, 3, 8, 16), torch.randn(2, 3, *size)]
    small = functional.interpolate(target[:, None].float(), size=size, mode="nearest-exact")
    loss, _ = deep_supervision_loss(outputs, target, (0.0, 1.0))
    expected, _ = dice_cross_entropy(outputs[1], small[:, 0].long())
    torch.testing.assert_close(loss, expected)


def test_deep_supervision_adds_the_levels_with_their_weights():
    torch.manual_seed(0)
    target = torch.randint(0, 3, (1, 4, 8, 8))
    outputs = [torch.randn(1, 3, 4, 8, 8), torch.randn(1, 3, 4, 4, 4), torch.randn(1, 3, 2, 2, 2)]
    loss, _ = deep_supervision_loss(outputs, target, (0.6, 0.4, 0.0))
    full, _ = dice_cross_entropy(outputs[0], target)
    half, _ = dice_cross_entropy(outputs[1], target[:, :, 1::2, 1::2])
    torch.testing.assert_close(loss, 0.6 * full + 0.4 * half)
    with pytest.raises(ValueError, match="2 deep supervision weights for 3 outputs"):
        deep_supervision_loss(outputs, target, (0.5, 0.5))


def some_ignored():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    ignored = torch.rand(target.shape) < 0.4
    return logits, target, ignored


@pytest.mark.parametrize("weights", [None, (0.5, 4.0, 1.0, 2.0)])
def test_ignored_voxels_cost_what_voxels_that_are_not_there_cost(weights):
    logits, target, ignored = some_ignored()
    weights = torch.tensor(weights) if weights else None
    held_back = target.masked_fill(ignored, IGNORE)
    loss, dice = dice_cross_entropy(logits, held_back, weights, ignores=True)
    left = logits.movedim(1, -1)[~ignored].T[None]
    expected, expected_dice = dice_cross_entropy(left, target[~ignored][None], weights)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(dice, expected_dice)


def test_whatever_is_said_of_ignored_voxels_changes_nothing_and_learns_nothing():
    logits, target, ignored = some_ignored()
    held_back = target.masked_fill(ignored, IGNORE)
    others = torch.where(ignored[:, None], 50 * torch.randn_like(logits), logits)
    found = []
    for seen in (logits, others):
        seen.requires_grad_(True)
        loss, _ = dice_cross_entropy(seen, held_back, ignores=True)
        loss.backward()
        assert not seen.grad.movedim(1, -1)[ignored].any()
        assert seen.grad.movedim(1, -1)[~ignored].all()
        found.append((loss.item(), seen.grad.movedim(1, -1)[~ignored]))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_where_nothing_is_ignored_nothing_changes():
    logits, target, _ = some_ignored()
    plain, asked = (dice_cross_entropy(logits, target, ignores=way) for way in (False, True))
    assert torch.equal(plain[0], asked[0])
    assert torch.equal(plain[1], asked[1])


def test_a_batch_of_nothing_but_ignored_voxels_costs_a_number():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss, _ = dice_cross_entropy(logits, torch.full((1, 4, 4), IGNORE), ignores=True)
    loss.backward()
    assert loss.item() == pytest.approx(-1, abs=1e-2)  # no class was there, and none was said
    assert not logits.grad.any()


def test_deep_supervision_ignores_at_every_level():
    logits, target, ignored = some_ignored()
    held_back = target.masked_fill(ignored, IGNORE)
    small = torch.randn(2, 4, 5, 3)
    loss, _ = deep_supervision_loss((logits, small), held_back, (0.7, 0.3), ignores=True)
    full, _ = dice_cross_entropy(logits, held_back, ignores=True)
    half, _ = dice_cross_entropy(small, held_back[:, :, 1::2], ignores=True)
    torch.testing.assert_close(loss, 0.7 * full + 0.3 * half)
