import numpy as np
import pytest
import torch
from torch.nn import functional

from flarekd.training.loss import deep_supervision_loss, dice_cross_entropy, soft_dice


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
    dice = soft_dice(logits, target)
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
