"""Slow, plain numpy versions of what augmentation computes."""

import numpy as np
from scipy import ndimage


def keys(distance, slope=-0.75):
    """The cubic convolution kernel (Keys 1981, equation 4) of a distance in pixels."""
    d = np.abs(distance)
    near = (slope + 2) * d**3 - (slope + 3) * d**2 + 1
    far = slope * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def cubic(plane, y, x):
    """Cubic convolution of a plane at places (y, x), 0 outside."""
    padded = np.pad(np.asarray(plane, float), 4)
    result = np.zeros(y.shape)
    for row in range(-1, 3):
        for column in range(-1, 3):
            i, j = np.floor(y).astype(int) + row, np.floor(x).astype(int) + column
            values = padded[
                np.clip(i + 4, 0, padded.shape[0] - 1), np.clip(j + 4, 0, padded.shape[1] - 1)
            ]
            result += keys(y - i) * keys(x - j) * values
    return result


def shares(plane, y, x, label):
    """Linear interpolation of one label's mask, 0 outside."""
    mask = (np.asarray(plane) == label).astype(float)
    return ndimage.map_coordinates(mask, [y, x], order=1, mode="grid-constant")


def warped_labels(plane, y, x):
    """Labels at places, and where no share lies so close to one half that rounding decides."""
    result, clear = np.zeros(y.shape, np.uint8), np.ones(y.shape, bool)
    for label in np.unique(plane)[np.unique(plane) > 0]:
        share = shares(plane, y, x, label)
        result[share >= 0.5] = label
        clear &= np.abs(share - 0.5) > 1e-4
    return result, clear


def coarse(values, size):
    """An axis through a grid of `size`: the nearest value down, cubic convolution up."""
    length = len(values)
    small = values[[int((i + 0.5) * length / size) for i in range(size)]]
    result = []
    for i in range(length):
        place = (i + 0.5) * size / length - 0.5
        taps = np.floor(place).astype(int) + np.arange(-1, 3)
        result.append(np.sum(keys(place - taps) * small[np.clip(taps, 0, size - 1)]))
    return np.array(result)


def gamma(image, exponent):
    """Power of the intensity scaled to 0..1; mean and standard deviation restored."""
    image = np.asarray(image, float)
    bent = ((image - image.min()) / (image.max() - image.min())) ** exponent
    return (bent - bent.mean()) / bent.std() * image.std() + image.mean()
