"""The trunk without its organs: table, skin, fat, muscle, cavities, lungs, diaphragm, heart."""

from __future__ import annotations

import numpy as np

from flarekd.phantom.grid import Float, blocks
from flarekd.phantom.scene import Scene
from flarekd.phantom.shapes import Space, blend, ellipsoid, meet, tube
from flarekd.phantom.stroma import marbling, mesentery, over_all, septa, weave

# the nominal trunk by height: half widths and front and back ends of the cavity, then the muscle
HEIGHTS = (-330, -260, -200, -150, -80, 0, 60, 130, 200, 260, 320)
CAVITY_HALF = (95, 105, 112, 122, 128, 134, 138, 132, 122, 105, 78)
CAVITY_FRONT = (-55, -70, -82, -90, -96, -100, -98, -92, -80, -62, -45)
CAVITY_BACK = (72, 78, 75, 66, 62, 66, 72, 76, 78, 76, 70)
MUSCLE_SIDE = (50, 48, 42, 26, 14, 14, 15, 15, 16, 26, 40)
MUSCLE_FRONT = (14, 12, 10, 10, 10, 10, 11, 12, 12, 14, 16)
MUSCLE_BACK = (105, 108, 106, 100, 98, 100, 104, 106, 108, 108, 104)
SKIN_MM = 2.0


def profile(values: tuple[float, ...], z: Float) -> Float:
    """A profile of the trunk at nominal heights, shaped (z, 1, 1)."""
    return np.interp(z, HEIGHTS, values).astype(np.float32).reshape(-1, 1, 1)


def ring(space: Space, half: Float, front: Float, back: Float) -> tuple[Float, Float]:
    """A rounded box (superellipse of power 2.5) in every slice.

    Returns:
        Its relative radius (1 on the surface) and its field in mm, both over the whole grid.
    """
    middle, depth = (front + back) / 2, (back - front) / 2
    radius, distance = np.empty_like(space.x), np.empty_like(space.x)
    for z in blocks(space.grid.shape):
        u = np.abs(space.x[z]) / half[z] + np.float32(1e-4)
        v = np.abs(space.y[z] - middle[z]) / depth[z] + np.float32(1e-4)
        u_root, v_root = u * np.sqrt(u), v * np.sqrt(v)
        total = u * u_root + v * v_root
        radius[z] = total ** np.float32(0.4)
        slope = radius[z] / total * np.sqrt((u_root / half[z]) ** 2 + (v_root / depth[z]) ** 2)
        distance[z] = (radius[z] - 1) / slope
    return radius, distance


def paint_torso(scene: Scene) -> Float:
    """Lay the trunk; sets ``scene.cavity`` and ``scene.marbling``.

    Returns:
        The field of the inner wall of chest, abdomen and pelvis over the whole grid, mm.
    """
    space, build = scene.space, scene.plan.habitus
    whole, z = space.whole, space.axes[0]
    half, front, back = (profile(p, z) for p in (CAVITY_HALF, CAVITY_FRONT, CAVITY_BACK))
    side = profile(MUSCLE_SIDE, z)
    muscle_front, muscle_back = front - profile(MUSCLE_FRONT, z), profile(MUSCLE_BACK, z)
    fat = np.float32(build.fat_mm / build.girth)
    _paint_table(scene, float(muscle_back.max() + 0.8 * fat))
    if build.arms_down:
        _paint_arms(scene, float(np.max(half + side + fat)))
    _, skin = ring(
        space,
        half + side + fat,
        muscle_front - fat * np.float32(1.1),
        muscle_back + fat * np.float32(0.8),
    )
    noise = weave(scene)
    scene.paint(whole, skin, "skin", (6, 4))
    scene.paint(
        whole, skin + np.float32(SKIN_MM), "fat", (7, 6), pattern=over_all(septa, scene, noise)
    )
    _, muscle = ring(space, half + side, muscle_front, muscle_back)
    radius, wall = ring(space, half, front, back)
    scene.marbling = over_all(marbling, scene, noise, wall)
    _paint_muscle(scene, muscle, wall, back)
    inner_fat = over_all(mesentery, scene, noise)
    scene.paint(whole, wall, "visceral_fat", (10, 9), pattern=inner_fat)
    _paint_chest(scene, radius, wall, inner_fat)
    scene.remember("wall", whole, -wall)
    return wall


def _paint_muscle(scene: Scene, muscle: Float, wall: Float, back: Float) -> None:
    """The wall's muscle: thin at the flanks, in the back two thick columns with fat between."""
    space = scene.space
    x, y = np.abs(space.x), space.y - back
    columns = (
        np.asarray(np.sqrt(((x - 33) / 31) ** 2 + ((y - 16) / 21) ** 2) - 1, dtype=np.float32) * 21
    )
    # the pelvis is wrapped in muscle all round
    pelvis = np.clip((-110 - space.axes[0]) / 20, 0, 1).astype(np.float32).reshape(-1, 1, 1) * 40
    thin = wall - 13 - np.float32(0.035) * np.clip(x - 60, 0, None) - pelvis
    shape = np.maximum(muscle, np.minimum(columns, np.maximum(thin, np.minimum(muscle, 0))))
    front = np.asarray(np.where(space.y < 20, muscle, shape), dtype=np.float32)
    scene.paint(space.whole, front, "muscle", (9, 6), pattern=scene.marbling)


def _paint_table(scene: Scene, back_mm: float) -> None:
    """A curved couch top under the back: a shell around foam, in the scanner's frame."""
    grid, girth = scene.space.grid, scene.plan.habitus.girth
    y, x = grid.axis(1)[:, None], grid.axis(2)[None, :]
    top = np.float32((back_mm + 5) * girth) - x**2 / np.float32(1900)
    outer = np.maximum(np.abs(y - top - 11) - 11, np.abs(x) - 205)
    # it is the same in all slices: only the rows near it are worth laying
    rows = np.flatnonzero((outer < 12).any(axis=1))
    if not len(rows):
        return
    depth, _, width = scene.space.whole
    box = (depth, slice(int(rows[0]), int(rows[-1]) + 1), width)
    outer = np.broadcast_to(outer[box[1:]], (grid.shape[0], len(rows), grid.shape[2]))
    for distance, tissue in ((outer, "table_shell"), (outer + 4, "table_foam")):
        scene.paint(box, distance.astype(np.float32), tissue, (2, 1))


def _paint_arms(scene: Scene, half_mm: float) -> None:
    for side in (-1, 1):
        x = side * (half_mm + 34)
        points = [(x * 0.97, 25.0, 330.0), (x, 20.0, 120.0), (x, 5.0, -80.0), (x, -5.0, -330.0)]
        for radii, tissue in (
            ((46, 40, 34, 27), "skin"),
            ((44, 38, 32, 25), "fat"),
            ((36, 32, 27, 20), "muscle"),
            ((12, 11, 9, 9), "cortical_bone"),
            ((6, 5, 4, 4), "fat"),
        ):
            box, distance = tube(scene.space, points, radii)
            scene.paint(box, distance, tissue, (5, 4))


def _paint_chest(scene: Scene, radius: Float, wall: Float, inner_fat: Float) -> None:
    """Diaphragm domes, lungs, mediastinum and heart; what is left below is the abdominal cavity."""
    space = scene.space
    x, y, z = space.x, space.y, space.z
    breath = np.float32(scene.plan.habitus.breath_mm)
    rim = np.minimum(radius, np.float32(1.15)) ** 2
    dome = 113 + breath - 95 * rim * rim - np.float32(0.22) * y
    dome -= np.float32(11) * np.exp(-((x / 32) ** 2)) + np.float32(5) / (1 + np.exp(-x / 12))
    above = (z - dome) / np.sqrt(1 + (np.float32(2.8) * rim * radius) ** 2)
    scene.cavity = meet(wall, np.asarray(above, dtype=np.float32), 6.0)
    box = space.box((-150, -110, 0), (150, 110, 340))
    lining, height = wall[box], above[box]
    # two smooth surfaces: a thin sheet would be jagged between the points of the field grid
    scene.paint(box, np.maximum(lining, height - np.float32(2.6)), "muscle", (4, 3))
    below = np.maximum(lining, height + np.float32(0.6))
    scene.paint(box, below, "visceral_fat", (10, 9), pattern=inner_fat[box])
    heart = ellipsoid(space, box, (26, -38, 146 + float(breath) * 0.7), (56, 43, 46), (0, 20, -35))
    atrium = ellipsoid(space, box, (-12, -24, 134 + float(breath) * 0.7), (27, 27, 33))
    heart = blend(heart, atrium, 10.0)
    column = ((x[box] - 4) / 34) ** 2 + ((y[box] - 5) / 82) ** 2
    middle = np.asarray((np.sqrt(column) - 1) * 34, dtype=np.float32)
    chest = np.maximum(lining + 1, np.float32(2.5) - height)
    scene.paint(box, np.maximum(chest, middle), "mediastinum", (9, 8))
    lung = np.maximum(chest, -np.minimum(middle, heart - 3))
    lung = np.maximum(lung, z[box] - 296)
    scene.paint(box, lung, "lung", (24, 22))
    vessels = np.float32(1.5) - space.noise(scene.plan.random(2), box, 9.0)
    scene.paint(box, np.maximum(lung + 4, vessels * 4), -520.0, (60, 60))
    scene.paint(box, np.maximum(heart, chest), "heart", (9, 14))
    scene.remember("lung", box, lung)
    scene.remember("heart", box, np.maximum(heart, chest))
