"""Organs and tumours of a phantom are not told apart by their Hounsfield units alone."""

import numpy as np
from scipy.ndimage import gaussian_filter

BIN_HU = 2


def joint_histogram(image, labels):
    """How many voxels of every label fall into every 2 HU, (labels, bins)."""
    bins = (np.clip(np.rint(image), -1024, 1000).astype(np.int64) + 1024) // BIN_HU
    count = 1 + 2024 // BIN_HU
    joint = labels.ravel().astype(np.int64) * count + bins.ravel()
    return np.bincount(joint, minlength=15 * count).reshape(-1, count)


def best_interval(histogram, name):
    """The Dice coefficient of the best of all HU intervals for one label."""
    below = np.concatenate([[0], histogram.sum(axis=0).cumsum()])[::2]
    hits = np.concatenate([[0], histogram[name].cumsum()])[::2]
    found, right = below[None] - below[:, None], hits[None] - hits[:, None]
    return float((2 * right / np.maximum(found + histogram[name].sum(), 1)).max())


def nearest_mean(histogram, tissues):
    """Mean organ DSC of the classifier that takes the class whose mean HU is nearest."""
    hu = np.arange(histogram.shape[1]) * BIN_HU - 1024.0
    present = [name for name in range(1, 14) if histogram[name].any()]
    parts = [(name, histogram[name]) for name in present]
    parts += [(0, histogram[0] * ((hu >= low) & (hu < high))) for low, high in tissues]
    means = np.asarray([(hu * part).sum() / max(part.sum(), 1) for _, part in parts])
    guess = np.asarray([name for name, _ in parts])[np.abs(hu[:, None] - means).argmin(axis=1)]
    scores = []
    for name in present:
        found, hit = histogram[:, guess == name].sum(), histogram[name, guess == name].sum()
        scores.append(2 * hit / (found + histogram[name].sum()))
    return float(np.mean(scores))


def test_no_threshold_and_no_nearest_mean_finds_the_organs(cases):
    """Fitted on the very case they are scored on, smoothed or not, with or without soft tissue."""
    every = [(-3000, -500), (-500, -30), (-30, 30), (30, 90), (90, 200), (200, 4000)]
    for case in cases:
        raw = case.rendering.image.astype(np.float32)
        for image in (raw, gaussian_filter(raw, (0.5, 0.8, 0.8))):
            histogram = joint_histogram(image, case.rendering.organs)
            assert nearest_mean(histogram, every) < 0.5
            assert nearest_mean(histogram, [every[0], every[1], every[5]]) < 0.5
            present = [name for name in range(1, 14) if histogram[name].any()]
            assert np.mean([best_interval(histogram, name) for name in present]) < 0.5


def test_tumors_stand_off_their_organ_but_no_threshold_finds_them(cases):
    steps, found = [], []
    for case in cases:
        tumor = case.rendering.labels == 14
        image = case.rendering.image
        host = (case.rendering.labels == 1) | (case.rendering.labels == 13)
        if tumor.sum() > 100:
            steps.append(abs(image[tumor].mean() - image[host].mean()))
            found.append(best_interval(joint_histogram(image, tumor), 1))
    assert np.median(steps) > 20
    assert np.mean(found) < 0.1
