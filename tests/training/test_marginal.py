"""The marginal loss: what a sample has not annotated is one class with the background."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from flarekd.labels import IGNORE
from flarekd.training.loss import deep_supervision_loss, dice_cross_entropy
from flarekd.training.marginal import masks, merge_rest

KNOWN = torch.tensor([[False, True, False, True, False], [False, True, True, False, False]])
"""Of five classes: 1 and 3 of the first sample, 1 and 2 of the second; nobody has 4."""


def sample(shape=(4, 6), seed=0):
    """Logits and a target that holds nothing but what each sample has annotated."""
    torch.manual_seed(seed)
    logits, drawn = 2 * torch.randn(2, 5, *shape), torch.randint(0, 5, (2, *shape))
    vouched = KNOWN.gather(1, drawn.flatten(1)).view_as(drawn)
    return logits, drawn.masked_fill(~vouched, 0)


def numpy_loss(logits, target, known, weights):
    """Sample by sample: cross-entropy over what is annotated and one rest; Dice where annotated."""
    classes = logits.shape[1]
    entropy = total = 0.0
    overlap, sizes = np.zeros(classes), np.zeros(classes)
    for z, t, k in zip(logits, target, known, strict=True):
        p = np.exp(z - z.max(0)) / np.exp(z - z.max(0)).sum(0)
        rest = sum(p[c] for c in range(classes) if not k[c])
        for c in range(classes):
            here = t == c
            of_target = rest if c == 0 else p[c]
            entropy -= weights[c] * np.log(of_target[here]).sum()
            total += weights[c] * here.sum()
            if k[c]:
                overlap[c] += p[c][here].sum()
                sizes[c] += p[c].sum() + here.sum()
    some = [c for c in range(1, classes) if any(k[c] for k in known)]
    dice = {c: (2 * overlap[c] + 1e-5) / (sizes[c] + 1e-5) for c in some}
    mean = sum(weights[c] * dice[c] for c in some) / sum(weights[c] for c in some)
    return entropy / total - mean, dice


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6)])
@pytest.mark.parametrize("weights", [None, (1.0, 4.0, 0.5, 2.0, 3.0)])
def test_the_loss_equals_numpy_sample_by_sample(shape, weights):
    logits, target = sample(shape)
    given = None if weights is None else torch.tensor(weights)
    loss, dice = dice_cross_entropy(logits, target, given, annotated=KNOWN)
    arrays = logits.double().numpy(), target.numpy(), KNOWN.numpy()
    expected, expected_dice = numpy_loss(*arrays, weights or np.ones(5))
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    assert dice[:3].tolist() == pytest.approx([expected_dice[c] for c in (1, 2, 3)], abs=1e-5)
    assert torch.isnan(dice[3])  # nobody has class 4 annotated: it has no Dice, not a good one


def plain_loss(logits, target, known):
    """The same of torch's own parts, each differentiated by autograd."""
    probability = torch.softmax(logits, 1)
    terms, overlap, sizes = [], torch.zeros(5), torch.zeros(5)
    for p, t, k in zip(probability, target, known, strict=True):
        joined = torch.cat(((p * ~k[:, None, None]).sum(0, keepdim=True), p[1:]))
        terms.append(-joined.gather(0, t[None]).log())
        one_hot = functional.one_hot(t, 5).movedim(-1, 0)
        overlap = overlap + k * (p * one_hot).sum((1, 2))
        sizes = sizes + k * (p + one_hot).sum((1, 2))
    dice = ((2 * overlap + 1e-5) / (sizes + 1e-5))[known.any(0)]
    return torch.cat(terms).mean() - dice.mean()


def test_gradients_equal_those_of_autograd():
    logits, target = sample()
    grads = []
    for cost in (
        lambda z: dice_cross_entropy(z, target, annotated=KNOWN)[0],
        lambda z: plain_loss(z, target, KNOWN),
    ):
        seen = logits.clone().requires_grad_()
        (2.5 * cost(seen)).backward()
        grads.append(seen.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-7)
    assert grads[0].abs().min() > 0  # the rest learns too: it is not what was drawn


def test_what_is_not_annotated_is_reached_through_the_sum_with_the_background_alone():
    logits, target = sample()
    logits.requires_grad_()
    dice_cross_entropy(logits, target, annotated=KNOWN)[0].backward()
    for number, known in enumerate(KNOWN):
        rest = ~known
        share = torch.softmax(logits.detach()[number, rest], 0)
        gradient = logits.grad[number, rest]
        torch.testing.assert_close(gradient, share * gradient.sum(0), rtol=1e-4, atol=1e-8)


def test_who_in_the_rest_takes_a_voxel_costs_nothing():
    logits, target = sample()
    before, _ = dice_cross_entropy(logits, target, annotated=KNOWN)
    swapped = logits.clone()
    swapped[0, [0, 2, 4]] = logits[0, [4, 0, 2]]
    swapped[1, [0, 3, 4]] = logits[1, [3, 4, 0]]
    after, _ = dice_cross_entropy(swapped, target, annotated=KNOWN)
    torch.testing.assert_close(after, before)
    ordinary = [dice_cross_entropy(z, target)[0] for z in (logits, swapped)]
    assert abs(float(ordinary[0] - ordinary[1])) > 0.1


@pytest.mark.parametrize("ignores", [False, True])
def test_where_all_is_annotated_it_is_the_ordinary_loss(ignores):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 3, 4, 5), torch.randint(0, 5, (2, 3, 4, 5))
    if ignores:
        target[:, 1] = IGNORE
    everything = torch.tensor([[False, True, True, True, True]] * 2)
    found = []
    for annotated in (None, everything):
        seen = logits.clone().requires_grad_()
        loss, dice = dice_cross_entropy(seen, target, ignores=ignores, annotated=annotated)
        loss.backward()
        found.append((loss.detach(), dice, seen.grad))
    for ordinary, marginal in zip(*found, strict=True):
        torch.testing.assert_close(marginal, ordinary, rtol=0, atol=1e-6)


def test_ignored_voxels_cost_what_voxels_that_are_not_there_cost():
    logits, target = sample()
    held_back = target.clone()
    held_back[:, 1:3] = IGNORE
    loss, dice = dice_cross_entropy(logits, held_back, ignores=True, annotated=KNOWN)
    left = [0, 3]
    expected, expected_dice = dice_cross_entropy(
        logits[:, :, left], target[:, left], annotated=KNOWN
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(dice, expected_dice, equal_nan=True)


def test_logits_of_half_precision_are_summed_in_float32():
    logits, target = sample()
    half = logits.bfloat16()
    found = dice_cross_entropy(half, target, annotated=KNOWN)[0]
    assert found.dtype == torch.float32
    assert found == dice_cross_entropy(half.float(), target, annotated=KNOWN)[0]


def test_confident_logits_leave_finite_gradients():
    logits, target = sample()
    seen = (1000 * logits).requires_grad_()
    dice_cross_entropy(seen, target, annotated=KNOWN)[0].backward()
    assert torch.isfinite(seen.grad).all()


def test_deep_supervision_merges_at_every_level():
    logits, target = sample()
    small = torch.randn(2, 5, 2, 3)
    loss, _ = deep_supervision_loss((logits, small), target, (0.7, 0.3), annotated=KNOWN)
    full, _ = dice_cross_entropy(logits, target, annotated=KNOWN)
    half, _ = dice_cross_entropy(small, target[:, 1::2, 1::2], annotated=KNOWN)
    torch.testing.assert_close(loss, 0.7 * full + 0.3 * half)


def test_merged_logits_have_the_summed_probability():
    logits, _ = sample()
    p = torch.softmax(logits, 1)
    merged = torch.softmax(merge_rest(logits, KNOWN), 1)
    torch.testing.assert_close(merged[0, 0], p[0, [0, 2, 4]].sum(0))
    torch.testing.assert_close(merged[0, [1, 3]], p[0, [1, 3]])
    assert not merged[0, [2, 4]].any()


def test_a_class_that_no_case_in_training_has_counts_as_annotated_in_all():
    annotated = {"a": {1, 2}, "b": {2}, "held": {3}}
    found = masks(annotated, ["a", "b"], 5)
    assert {case: mask.nonzero().flatten().tolist() for case, mask in found.items()} == {
        "a": [1, 2, 3, 4],
        "b": [2, 3, 4],
        "held": [3, 4],
    }
    assert masks({}, ["a"], 5) == {}


SIZE, ORGAN_CLASSES = 32, 5


def scenes(count, seed):
    """Noisy pictures of four discs, each brighter than the one before, and their labels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((count, SIZE, SIZE), np.int64)
    for picture in labels:
        for quarter, label in enumerate(rng.permutation(4) + 1):
            y, x = 8 + 16 * (quarter // 2), 8 + 16 * (quarter % 2)
            y, x = np.array([y, x]) + rng.uniform(-2, 2, 2)
            picture[(rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(4, 6) ** 2] = label
    images = labels + rng.normal(0, 0.15, labels.shape)
    return torch.from_numpy(images[:, None]).float(), torch.from_numpy(labels)


def network():
    torch.manual_seed(0)
    blocks = [
        part
        for inner in (1, 16)
        for part in (nn.Conv2d(inner, 16, 3, padding=1), nn.InstanceNorm2d(16), nn.LeakyReLU())
    ]
    return nn.Sequential(*blocks, nn.Conv2d(16, ORGAN_CLASSES, 1))


def dsc_after_training(marginal):
    """DSC a class on complete labels, having seen every class annotated in half of the cases."""
    images, labels = scenes(24, 1)
    halves = [{1, 2}, {3, 4}, {1, 3}, {2, 4}]
    cases = {str(number): halves[number % 4] for number in range(24)}
    known = torch.stack(list(masks(cases, cases, ORGAN_CLASSES).values()))
    partial = labels.masked_fill(~known.gather(1, labels.flatten(1)).view_as(labels), 0)
    learner = network()
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    order = torch.Generator().manual_seed(2)
    for _ in range(200):
        some = torch.randperm(24, generator=order)[:4]
        vouched = known[some] if marginal else None
        loss, _ = dice_cross_entropy(learner(images[some]), partial[some], annotated=vouched)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out, truth = scenes(8, 9)
    with torch.inference_mode():
        found = learner(held_out).argmax(1)
    return [
        float(2 * ((found == c) & (truth == c)).sum() / ((found == c).sum() + (truth == c).sum()))
        for c in range(1, ORGAN_CLASSES)
    ]


def test_classes_annotated_in_half_of_the_cases_are_all_learned():
    """And worse where what nobody drew is taken for background."""
    marginal, naive = dsc_after_training(True), dsc_after_training(False)
    assert min(marginal) > 0.9
    # over six seeds: 0.97 to 1.00 of the worst class, and 0.55 to 0.79
    assert min(naive) < min(marginal) - 0.1
    assert np.mean(naive) < np.mean(marginal)
