"""Hollow organs and vessels: esophagus, stomach, duodenum, bowel, bladder, aorta, vena cava."""

from __future__ import annotations

import numpy as np

from flarekd.phantom.grid import Box, Float, Triple
from flarekd.phantom.organs import jitter, thicker, vary
from flarekd.phantom.scene import Scene
from flarekd.phantom.shapes import MARGIN_MM, Points, curve, ellipsoid, meet, spheres, sweep, tube
from flarekd.phantom.skeleton import spine_y

AORTA, IVC, ESOPHAGUS, STOMACH, DUODENUM = 5, 6, 10, 11, 12

COLON: Points = (
    (-88, 0, -165), (-98, 12, -120), (-100, 22, -80), (-92, 0, -48), (-70, -48, -58),
    (-30, -74, -78), (10, -80, -84), (50, -72, -62), (86, -38, -18), (108, 6, 6),
    (112, 30, -30), (108, 34, -85), (100, 22, -140), (72, 0, -185), (30, 8, -205),
    (8, 30, -225), (0, 42, -262), (0, 46, -300),
)  # fmt: skip
"""Cecum, flexures, sigmoid, rectum; nominal mm."""

ILEUM: tuple[Triple, Triple] = ((-82, -76, -238), (84, 12, -52))
JEJUNUM: tuple[Triple, Triple] = ((-25, -88, -110), (98, -8, 8))
"""Corners of where the loops of small bowel wind, nominal mm."""


def paint_esophagus(scene: Scene) -> None:
    """A flat tube before the spine, through the diaphragm, into the stomach."""
    random = scene.plan.random(30)
    lift = 0.6 * scene.plan.habitus.breath_mm
    lower = jitter(random, [(14, 0, 100), (24, -8, 86), (36, -8, 78)], 2, 1, lift)
    upper = jitter(random, [(0, 26, 330), (0, 28, 220), (2, 22, 160), (6, 15, 128)], 2, 1.5)
    radii = thicker((8, 8.5, 9, 9, 9.5, 10.5, 11), vary(random, 0.07))
    box, gullet = tube(scene.space, [*upper, *lower], radii, MARGIN_MM)
    gullet = np.maximum(gullet, -(scene.over(box, "stomach") + 4))
    scene.remember("esophagus", box, gullet)
    scene.paint(box, gullet, "esophagus", (6, 4), ESOPHAGUS)
    inside = scene.hu["gas"] * 0.6 if random.random() < 0.5 else 25.0
    pockets = np.float32(3) * scene.space.noise(random, box, 24.0)
    scene.paint(box, np.maximum(gullet + 6, pockets), inside, (20, 10))


def paint_stomach(scene: Scene) -> None:
    """Fundus under the left dome to the pylorus: wall, content, and gas that stands in front."""
    random = scene.plan.random(31)
    lift = 0.6 * scene.plan.habitus.breath_mm
    points = jitter(
        random,
        [
            (64, 22, 88),
            (62, 6, 70),
            (66, -26, 42),
            (58, -48, 14),
            (36, -62, -8),
            (8, -58, -14),
            (-16, -44, -4),
        ],
        4,
        4,
        lift,
    )
    radii = thicker((26, 33, 29, 25, 20, 16, 10), float(random.uniform(0.78, 1.06)))
    box, stomach = tube(scene.space, points, radii, 10.0)
    stomach += np.float32(2.0) * scene.space.noise(random, box, 22.0)
    stomach = meet(stomach, scene.within(box, 4.5), 6.0)
    scene.remember("stomach", box, stomach)
    scene.paint(box, stomach - 1, "visceral_fat", (10, 6), 0)
    scene.paint(box, stomach, "stomach_wall", (8, 5), STOMACH)
    folds = np.float32(1.2) * scene.space.noise(random, box, 10.0)
    lumen = stomach + np.float32(random.uniform(4.0, 6.5)) + folds
    food = 22 if random.random() < 0.4 else 7
    _fill(scene, (box, lumen), "stomach_content", (food, food), float(0.55 * random.random() ** 2))


def paint_duodenum(scene: Scene) -> None:
    """The C around the pancreas' head, then left behind the mesenteric vessels."""
    random = scene.plan.random(32)
    lift = 0.35 * scene.plan.habitus.breath_mm
    points = jitter(
        random,
        [(-19, -42, -2), (-34, -32, 4), (-46, -14, -4), (-50, -6, -28), (-46, -6, -54),
         (-26, -14, -72), (4, -24, -72), (30, -18, -56), (37, -22, -34)],
        2.5,
        2,
        lift,
    )  # fmt: skip
    size = vary(random, 0.09)
    box, duodenum = tube(
        scene.space, points, thicker((9.5, 11, 10.5, 11, 11, 10, 9, 9.5, 9.5), size), 5.0
    )
    duodenum += np.float32(0.9) * scene.space.noise(random, box, 10.0)
    scene.remember("duodenum", box, duodenum)
    scene.paint(box, duodenum, "duodenum_wall", (8, 4), DUODENUM)
    lumen = duodenum + 3 + np.clip(3 * scene.space.noise(random, box, 26.0), -1, 8)
    _fill(scene, (box, lumen), "duodenum_content", (9, 6), float(random.uniform(0.0, 0.16)))


def _fill(
    scene: Scene, lumen: tuple[Box, Float], tissue: str, texture: tuple[float, float], gas: float
) -> None:
    """Fill a lumen with content, its front share `gas` with gas (the patient lies)."""
    box, field = lumen
    scene.paint(box, field, tissue, texture)
    if gas <= 0.08:
        return
    y = scene.space.y[box]
    inside = y[field < 0]
    if inside.size > 20:
        level = np.float32(np.quantile(inside, gas))
        scene.paint(box, np.maximum(field, y - level), "gas", (6, 3))


def paint_bowel(scene: Scene) -> None:
    """Small bowel loops, the colon's frame with haustra, stool and gas; the bladder."""
    random, space = scene.plan.random(33), scene.space
    for low, high, count in ((*ILEUM, random.integers(16, 22)), (*JEJUNUM, random.integers(6, 10))):
        for _ in range(int(count)):
            _paint_loop(scene, random, (low, high))
    points = jitter(random, COLON, 4, 6)
    path, radii = curve(points, [22, 21, 19, 18, *[17] * 7, 14, 14, 13, 13, 14, 18, 16], 5.0)
    radii = (
        radii
        * np.float32(vary(random, 0.1))
        * (1 + np.float32(0.13) * np.sin(np.arange(len(radii)) * 0.95))
    )
    box, colon = sweep(space, path, radii.astype(np.float32), MARGIN_MM)
    colon = meet(colon, scene.within(box, 3.5), 4.0)
    colon = np.maximum(colon, -(scene.over(box, "sacrum") - 2))
    scene.remember("colon", box, colon)
    scene.paint(box, colon, "bowel_wall", (7, 4))
    lumen = colon + 3
    scene.paint(box, lumen, "stool", (45, 40))
    bubbles = np.maximum(lumen, np.float32(4) * (space.noise(random, box, 7.0) + np.float32(1.5)))
    scene.paint(box, bubbles, -550.0, (40, 40))
    # gas collects in front, in some stretches of the colon and not in others
    share = np.float32(8.8) * space.noise(random, box, 60.0) + 6
    front = path + np.asarray([0, -7, 0], dtype=np.float32)
    gas = spheres(space, box, front, np.maximum(radii - 6, 4).astype(np.float32))
    inside = np.maximum(np.maximum(colon + np.float32(3.4), share), gas)
    scene.paint(box, inside, "gas", (5, 3))
    factor = float(random.uniform(0.7, 1.2))
    urine = space.box((-60, -75, -330), (60, 45, -200))
    bladder = ellipsoid(space, urine, (0, -22, -272), (40 * factor, 30 * factor, 30 * factor))
    scene.paint(urine, bladder, "muscle", (4, 2))
    scene.paint(urine, bladder + 3, "urine", (3, 2))


def _paint_loop(scene: Scene, random: np.random.Generator, ends: tuple[Triple, Triple]) -> None:
    """One loop of small bowel winding through a part of the abdomen between two corners."""
    low, high = np.asarray(ends)
    place = random.uniform(low + 18, high - 14)
    heading = random.normal(0, 1, 3)
    points = [place]
    for _ in range(6):
        heading = 0.55 * heading + random.normal(0, 1, 3)
        step = points[-1] + 27 * heading / np.linalg.norm(heading)
        points.append(np.clip(step, low, high))
    radius = float(random.uniform(9, 13.5))
    path, radii = curve([(p[0], p[1], p[2]) for p in points], [radius] * len(points), 4.5)
    box, loop = sweep(scene.space, path, radii)
    loop = meet(loop, scene.within(box, 4), 4.0)
    scene.paint(box, loop - 1, "visceral_fat", (10, 6))
    scene.paint(box, loop, "bowel_wall", (8, 5))
    gas = float(random.choice([0.0, 0.0, 0.0, 0.0, 0.15, 0.3]))
    _fill(scene, (box, loop + np.float32(2.6)), "bowel_content", (9, 8), gas)


def paint_vessels(scene: Scene) -> None:
    """Aorta with its branches and the iliac arteries, vena cava with renal and iliac veins."""
    random, space = scene.plan.random(34), scene.space
    wobble = jitter(random, [(0, 0, 0)] * 7, 1.5, 1.5)
    size = vary(random, 0.09)
    lift = 0.7 * scene.plan.habitus.breath_mm
    heights = (198, 150, 100, 50, 0, -60, -106)
    xs = (23, 20, 12, 8, 7, 6, 4)
    before = (6, 14, 24, 29, 30, 30, 30)
    down = [
        (x + dx, spine_y(z) - off + dy, float(z))
        for x, z, off, (dx, dy, _) in zip(xs, heights, before, wobble, strict=True)
    ]
    arch: list[Triple] = [
        (0.0, -38.0, 160 + lift),
        (-3.0, -40.0, 196.0),
        (4.0, -22.0, 226.0),
        (19.0, 12.0, 230.0),
    ]
    aorta_path = [*arch, *down]
    radii = thicker((15, 15, 14, 13, 12.5, 12, 11.5, 11, 10, 9.2, 8.8), size)
    top = 116 + lift
    cava: list[Triple] = [
        (-21, -12, top),
        (-23, -4, top - 16),
        (-23, 2, 84),
        (-24, 5, 56),
        (-23, 4, 20),
        (-22, 2, -40),
        (-20, 2, -108),
    ]
    cava = jitter(random, cava, 1.5, 1.5)
    wide = thicker((12.5, 12.5, 11.5, 10, 9.8, 9.2, 8.8), vary(random, 0.08))
    _paint_branches(scene, aorta_path)
    for points, tube_radii, tissue, label, name in (
        (cava, wide, "veins", IVC, "ivc"),
        (aorta_path, radii, "aorta", AORTA, "aorta"),
    ):
        box, vessel = tube(space, points, tube_radii)
        vessel = np.maximum(vessel, -(scene.over(box, "spine") - 1))
        if name == "ivc":
            vessel = np.maximum(vessel, -(scene.over(box, "heart") + 3))
        scene.remember(name, box, vessel)
        # a film of fat, but not where the vessel runs through the liver
        film = np.maximum(vessel - np.float32(1.2), -(scene.over(box, "liver") - 1))
        scene.paint(box, film, "visceral_fat", (5, 4), 0)
        scene.paint(box, vessel, tissue, (5, 4), label)
    _paint_plaques(scene, aorta_path, radii, random)


def _paint_branches(scene: Scene, aorta: list[tuple[float, float, float]]) -> None:
    end_x, end_y, end_z = aorta[-1]
    for side in (-1, 1):
        iliac = [
            (end_x, end_y, end_z),
            (side * 28, 12, -150),
            (side * 58, -6, -215),
            (side * 78, -48, -290),
        ]
        box, artery = tube(scene.space, iliac, (6, 5.5, 5, 4.5))
        scene.paint(box, artery, "aorta", (4, 3))
        vein = [
            (-20, 4, -108),
            (side * 26 - 4, 20, -150),
            (side * 54, 4, -215),
            (side * 74, -40, -290),
        ]
        box, field = tube(scene.space, vein, (7, 6.5, 6, 5.5))
        scene.paint(box, field, "veins", (4, 3))
        lift = 0.5 * scene.plan.habitus.breath_mm - (8 if side < 0 else 0)
        if ("right_kidney" if side < 0 else "left_kidney") in scene.plan.missing:
            continue
        renal = [(5, spine_y(0) - 34, -8), (side * 24, 14, -4 + lift), (side * 44, 28, -4 + lift)]
        box, field = tube(scene.space, renal, (5, 4.5, 4))
        scene.paint(box, field, "veins", (4, 3))
    trunks = [
        [(6, -2, -4), (3, -16, -20), (0, -30, -60), (-6, -40, -110)],
        [(7, 0, 14), (6, -14, 18), (24, -16, 20), (60, 6, 30)],
    ]
    for points in trunks:
        box, artery = tube(scene.space, points, [3.6, 3.4, 3.0, 2.6])
        scene.paint(box, artery, "aorta", (4, 3))
    box, field = tube(scene.space, [(-2, -14, 0), (-8, -24, -22), (-14, -36, -80)], (6, 5.5, 4.5))
    scene.paint(box, field, "portal_vein", (4, 3))


def _paint_plaques(
    scene: Scene,
    path: list[tuple[float, float, float]],
    radii: list[float],
    random: np.random.Generator,
) -> None:
    """Calcified spots in the aorta's wall, in some many."""
    for _ in range(int(random.poisson(7)) if random.random() < 0.6 else 0):
        at = int(random.integers(5, len(path)))
        x, y, z = path[at]
        angle, high = random.uniform(0, 2 * np.pi), z + random.uniform(-22, 22)
        edge = radii[at]
        center = (x + edge * float(np.cos(angle)), y + edge * float(np.sin(angle)), float(high))
        low, top = ([c + s for c in center] for s in (-8, 8))
        box = scene.space.box((low[0], low[1], low[2]), (top[0], top[1], top[2]))
        size = float(random.uniform(1.8, 4.5))
        spot = ellipsoid(scene.space, box, center, (size, size, size))
        scene.paint(box, spot, "calcification", (20, 5))
