"""Bones and the muscles along the spine."""

from __future__ import annotations

import numpy as np

from flarekd.phantom.grid import Box, Float
from flarekd.phantom.scene import Scene
from flarekd.phantom.shapes import ellipsoid, spheres, tube
from flarekd.phantom.torso import (
    CAVITY_BACK,
    CAVITY_FRONT,
    CAVITY_HALF,
    HEIGHTS,
    MUSCLE_BACK,
    MUSCLE_FRONT,
    MUSCLE_SIDE,
)

SPINE_HEIGHTS = (-330, -230, -175, -110, -40, 30, 100, 200, 320)
SPINE_Y = (70, 78, 47, 27, 32, 40, 48, 58, 42)
VERTEBRAE = (
    -142, -107, -71, -35, 0, 33, 62, 89, 115, 140, 164, 187, 209, 230, 251, 272, 292, 312,
)  # fmt: skip
"""Centres of L5, L4, … upward, nominal mm; L1 is 0."""

RIBS = {
    33: 1.1, 62: 1.5, 89: 1.95, 115: 2.2, 140: 2.35, 164: 2.5, 187: 2.55, 209: 2.6,
    230: 2.6, 251: 2.6, 272: 2.6,
}  # fmt: skip
"""Ribs 12, 11, … by the height of their vertebra, and how far around they reach, radians."""


def spine_y(z: float) -> float:
    """Where the middle of the vertebral bodies lies at a height, nominal mm."""
    return float(np.interp(z, SPINE_HEIGHTS, SPINE_Y))


def paint_skeleton(scene: Scene, wall: Float) -> None:
    """Lay ribs, pelvis, psoas and spine."""
    _paint_ribs(scene)
    _paint_pelvis(scene, wall)
    _paint_psoas(scene)
    _paint_spine(scene)


def _paint_ribs(scene: Scene) -> None:
    bone, cartilage = [], []
    for height, reach in RIBS.items():
        angle = np.arange(0.28, reach, 0.028)
        drop = 62 * (np.minimum(angle, 2.05) / 2.05) ** 1.4 - 45 * np.clip(angle - 2.05, 0, None)
        z = height + 6 - drop
        inner, outer = _wall_at(z, angle, outer=False), _wall_at(z, angle, outer=True)
        middle = 0.55 * inner + 0.45 * outer
        for side in (-1, 1):
            path = np.stack([side * middle[:, 0], middle[:, 1], z], axis=1)
            bone.append(path[angle <= 2.0])
            cartilage.append(path[angle > 2.0])
    space = scene.space
    box = space.box((-160, -115, -60), (160, 115, 330))
    for paths, tissue, radius in ((cartilage, 105.0, 4.6), (bone, 330.0, 4.6)):
        path = np.concatenate(paths).astype(np.float32)
        field = spheres(space, box, path, np.full(len(path), radius, dtype=np.float32))
        scene.paint(box, field, tissue, (60 if tissue == 330.0 else 15, 20))
    breastbone = space.box((-22, -125, 70), (22, -70, 300))
    front = np.interp(space.axes[0], HEIGHTS, np.asarray(CAVITY_FRONT)).astype(np.float32)
    depth = np.abs(space.y[breastbone] - front[breastbone[0], None, None] + 5) - 5
    plate = np.maximum(
        np.maximum(depth, np.abs(space.x[breastbone]) - 15), 88 - space.z[breastbone]
    )
    scene.paint(breastbone, plate, 250.0, (50, 30))


def _wall_at(z: np.ndarray, angle: np.ndarray, *, outer: bool) -> np.ndarray:
    """Points (n, 2) as x, y on the inner or outer side of the muscle wall; angle 0 is the back."""
    half, front, back = (np.interp(z, HEIGHTS, p) for p in (CAVITY_HALF, CAVITY_FRONT, CAVITY_BACK))
    if outer:
        half = half + np.interp(z, HEIGHTS, MUSCLE_SIDE)
        front, back = (
            front - np.interp(z, HEIGHTS, MUSCLE_FRONT),
            np.interp(z, HEIGHTS, MUSCLE_BACK),
        )
    sin, cos = np.sin(angle), np.cos(angle)
    x = half * np.abs(sin) ** 0.8
    y = (front + back) / 2 + (back - front) / 2 * np.sign(cos) * np.abs(cos) ** 0.8
    return np.stack([x, y], axis=1)


def _paint_pelvis(scene: Scene, wall: Float) -> None:
    space = scene.space
    box = space.box((-150, -90, -330), (150, 110, -105))
    x, y, z = space.x[box], space.y[box], space.z[box]
    crest = z + 128 + np.float32(0.0042) * (y - 20) ** 2
    wing = np.maximum(np.abs(wall[box] - 7) - np.float32(5), crest)
    wing = np.maximum(wing, 38 - np.abs(x))
    wing = np.maximum(wing, np.float32(-62) - y - (z + 260) * np.float32(0.25))
    for field, tissue in ((wing, "cortical_bone"), (wing + 2.5, "spongy_bone")):
        scene.paint(box, field, tissue, (40, 30))
    for side in (-1, 1):
        center = (side * 90.0, -4.0, -268.0)
        head = space.box((side * 90 - 40, -44, -308), (side * 90 + 40, 36, -228))
        for grow, tissue in (
            (5, "cortical_bone"),
            (2, "muscle"),
            (0, "cortical_bone"),
            (-4, "spongy_bone"),
        ):
            radius = 24.0 + grow
            scene.paint(head, ellipsoid(space, head, center, (radius,) * 3), tissue, (30, 20))
        ramus, field = tube(
            space,
            [(side * 70, -30, -285), (side * 38, -62, -292), (side * 4, -68, -305)],
            (13, 9, 13),
        )
        scene.paint(ramus, field, "cortical_bone", (40, 30))
        scene.paint(ramus, field + 3, "spongy_bone", (30, 20))
    sacrum = ellipsoid(space, box, (0, 66, -205), (50, 19, 56), (-22, 0, 0))
    scene.paint(box, sacrum, "cortical_bone", (50, 30))
    scene.paint(box, sacrum + 3, "spongy_bone", (40, 30))
    scene.remember("sacrum", box, sacrum)


def _paint_psoas(scene: Scene) -> None:
    for side in (-1, 1):
        points = [
            (side * 27, 36, 12),
            (side * 40, 36, -60),
            (side * 54, 26, -125),
            (side * 80, -12, -235),
        ]
        box, psoas = tube(scene.space, points, (9, 19, 23, 18))
        scene.paint(box, psoas, "muscle", (8, 6), pattern=scene.marbling[box])
        scene.remember(f"psoas{side}", box, psoas)


def _paint_spine(scene: Scene) -> None:
    space = scene.space
    box = space.box((-58, -10, -170), (58, 120, 340))
    z_axis = space.axes[0][box[0]]
    if not len(z_axis):
        return
    centers = np.asarray(VERTEBRAE, dtype=np.float32)
    nearest = centers[np.abs(z_axis[:, None] - centers[None]).argmin(axis=1)].reshape(-1, 1, 1)
    middle = np.interp(z_axis, SPINE_HEIGHTS, SPINE_Y).astype(np.float32).reshape(-1, 1, 1)
    x, y, offset = space.x[box], space.y[box] - middle, space.z[box] - nearest
    # bodies are waisted, so that their end plates stand out as in patients
    waist = np.float32(17) + np.float32(0.010) * offset**2
    column = np.sqrt((x * np.float32(0.8)) ** 2 + y**2) - waist
    end = np.float32(-155) - space.z[box]
    _paint_column(scene, box, (column, offset, end))
    ring = np.abs(np.sqrt(x**2 + (y - 28) ** 2) - 12) - np.float32(3)
    ring = np.maximum(ring, np.abs(offset + 2) - 13)
    spinous = np.maximum(np.abs(x) - 3, np.abs(y - 50) - 14)
    spinous = np.maximum(spinous, np.abs(offset + 8) - 10)
    wings = np.maximum(np.abs(y - 26) - 4, np.abs(x) - 37)
    wings = np.maximum(wings, np.abs(offset) - 5)
    back = np.maximum(np.minimum(np.minimum(ring, spinous), wings), end)
    scene.paint(box, back, 360.0, (60, 30))
    scene.paint(
        box, np.maximum(np.sqrt(x**2 + (y - 28) ** 2) - np.float32(9), end), "canal", (4, 3)
    )
    scene.remember("spine", box, np.maximum(np.minimum(column, back), end))


def _paint_column(scene: Scene, box: Box, fields: tuple[Float, Float, Float]) -> None:
    column, offset, end = fields
    scene.paint(box, np.maximum(column, end), "disc", (6, 4))
    body = np.maximum(np.maximum(column, np.abs(offset) - 12), end)
    scene.paint(box, body, "cortical_bone", (40, 30))
    scene.paint(box, body + 2, "spongy_bone", (38, 22))
