"""What runs through fat, muscle and glands and is finer than an organ: vessels, septa, fat streaks.

Each is a *pattern*: how many HU a tissue is off its mean, point by point. Thin things come from
smooth noise: it vanishes on sheets, and two noises vanish together on winding lines. What is
thinner than a point of the field grid counts there by its share, as in a voxel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flarekd.phantom.grid import Box, Float, blocks
from flarekd.phantom.scene import Scene
from flarekd.phantom.shapes import spheres

FINE_MM, WIDE_MM, SLOW_MM = 10.0, 22.0, 34.0
"""Correlation of the noise behind vessels and streaks, folds and septa, and how dense they are."""

PLANE_MM = 11.0
"""Distance between the planes of fat that part the muscles of the wall."""


def sheets(scene: Scene, noise: Float, correlation_mm: float, half_mm: float | Float) -> Float:
    """Share (0..1) of membranes of about 2 × `half_mm`: where a noise vanishes.

    A negative half width thins them out below a point's share of one half.
    """
    return _share(scene, np.abs(noise) * np.float32(correlation_mm / 2), half_mm)


def strands(
    scene: Scene, noises: tuple[Float, Float], correlation_mm: float, radius_mm: float | Float
) -> Float:
    """Share (0..1) of winding threads: where two noises of one correlation vanish together."""
    distance = np.sqrt(noises[0] ** 2 + noises[1] ** 2) * np.float32(correlation_mm / 2)
    return _share(scene, distance, radius_mm)


def _share(scene: Scene, distance: Float, reach_mm: float | Float) -> Float:
    step = scene.space.grid.spacing[1]
    share = np.clip((reach_mm - distance) / np.float32(step) + np.float32(0.5), 0, 1)
    return np.asarray(share, dtype=np.float32)


@dataclass(frozen=True)
class Weave:
    """Smooth noise over the whole grid that fat and muscle share: they lie in different places.

    Attributes:
        fine, other: Of `FINE_MM`.
        wide: Of `WIDE_MM`.
        slow: Of `SLOW_MM`.
    """

    fine: Float
    other: Float
    wide: Float
    slow: Float

    def part(self, z: slice) -> Weave:
        """Some planes of it."""
        return Weave(self.fine[z], self.other[z], self.wide[z], self.slow[z])


def weave(scene: Scene) -> Weave:
    """Draw a patient's noise for all patterns of the trunk."""
    random, space = scene.plan.random(4), scene.space
    drawn = [space.noise(random, space.whole, mm) for mm in (FINE_MM, FINE_MM, WIDE_MM, SLOW_MM)]
    return Weave(*drawn)


def over_all(pattern: Callable[..., Float], scene: Scene, noise: Weave, *fields: Float) -> Float:
    """A pattern of the trunk over the whole grid, in parts that stay in the processor's cache."""
    result = np.empty_like(noise.fine)
    for z in blocks(result.shape):
        result[z] = pattern(scene, noise.part(z), *(field[z] for field in fields))
    return result


def mesentery(scene: Scene, noise: Weave) -> Float:
    """Visceral fat: vessels, denser in places, folds of peritoneum, haze."""
    dense = np.float32(scene.plan.random(5).uniform(0.3, 1.3)) + np.float32(0.5) * noise.slow
    folds = sheets(scene, noise.wide, WIDE_MM, 0.4 + 0.8 * dense)
    vessels = strands(scene, (noise.fine, noise.other), FINE_MM, 1.3 + 1.3 * dense)
    fat, blood = scene.hu["visceral_fat"], 0.25 * scene.hu["aorta"] + 0.75 * scene.hu["veins"]
    pattern = np.maximum(folds * np.float32(25 - fat), vessels * np.float32(blood - fat))
    return np.asarray(pattern + 12 * dense, dtype=np.float32)


def septa(scene: Scene, noise: Weave) -> Float:
    """Subcutaneous fat: thin septa."""
    share = sheets(scene, noise.wide, WIDE_MM, float(scene.plan.random(6).uniform(-0.3, 0.7)))
    return np.asarray(share * np.float32(130), dtype=np.float32)


def marbling(scene: Scene, noise: Weave, wall: Float) -> Float:
    """Muscle: streaks of fat in it, and fat between its layers, in some patients much.

    `wall` is the field of the trunk's inner wall, mm; what lies within has no layers.
    """
    fatty = float(scene.plan.random(15).beta(2, 2.5))
    slow = np.float32(0.6) * noise.slow
    streaks = sheets(scene, noise.fine, FINE_MM, np.float32(2.2 * fatty - 0.2) + slow)
    layer = (wall + 5 * slow) / np.float32(PLANE_MM) - np.float32(0.5)
    off = np.abs(layer - np.rint(layer)) * np.float32(PLANE_MM)
    between = _share(scene, off, np.float32(1.6 * fatty - 0.1) + np.float32(0.6) * noise.other)
    share = np.maximum(streaks * np.float32(0.7), between * (wall > 2))
    return np.asarray(-share * np.float32(scene.hu["muscle"] + 85), dtype=np.float32)


def lobules(scene: Scene, box: Box) -> Float:
    """The pancreas: clefts of fat between its lobules, in some patients many."""
    random, space = scene.plan.random(8), scene.space
    fatty = float(random.beta(1.5, 2.5))
    noise = space.noise(random, box, 8.0)
    share = sheets(scene, noise, 8.0, 1.6 * fatty - 1.1)
    return np.asarray(-share * np.float32(scene.hu["pancreas"] + 75), dtype=np.float32)


def twigs(scene: Scene, box: Box) -> Float:
    """The liver: small vessels, at most two thirds of the way to the HU of portal blood."""
    random, space = scene.plan.random(9), scene.space
    one, two = (space.noise(random, box, 17.0) for _ in range(2))
    share = strands(scene, (one, two), 17.0, 0.3)
    step = scene.hu["portal_vein"] - scene.hu["liver"]
    return np.asarray(share * np.float32(0.7 * step), dtype=np.float32)


def paint_nodes(scene: Scene) -> None:
    """Lymph nodes of 4 to 9 mm along the aorta and in the mesentery's root; not labelled."""
    random, space = scene.plan.random(7), scene.space
    count = int(random.integers(15, 40))
    low, high = (-48, -56, -150), (54, 24, 30)
    places = random.uniform(low, high, (count, 3)).astype(np.float32)
    radii = random.uniform(1.8, 4.5, count).astype(np.float32)
    box = space.box(low, high)
    value = 0.5 * (scene.hu["muscle"] + scene.hu["adrenal"])
    scene.paint(box, spheres(space, box, places, radii), value, (5, 4))
