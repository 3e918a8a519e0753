"""The solid organs: liver, gallbladder, spleen, pancreas, kidneys, adrenals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flarekd.phantom.grid import Box, Float, Triple
from flarekd.phantom.scene import Scene
from flarekd.phantom.shapes import (
    Points,
    blend,
    carve,
    ellipsoid,
    meet,
    plane,
    sweep,
    tube,
)
from flarekd.phantom.stroma import lobules, twigs

LIVER, RIGHT_KIDNEY, SPLEEN, PANCREAS = 1, 2, 3, 4
RIGHT_ADRENAL, LEFT_ADRENAL, GALLBLADDER, LEFT_KIDNEY = 7, 8, 9, 13


def jitter(
    random: np.random.Generator,
    points: Points,
    shift_mm: float,
    wobble_mm: float,
    lift_mm: float = 0,
) -> list[Triple]:
    """Move points together by about `shift_mm`, singly by about `wobble_mm`, up by `lift_mm`."""
    shift = np.clip(random.normal(0, shift_mm, 3), -2 * shift_mm, 2 * shift_mm)
    wobble = np.clip(random.normal(0, wobble_mm, (len(points), 3)), -2 * wobble_mm, 2 * wobble_mm)
    moved = np.asarray(points, dtype=float) + shift + wobble + [0, 0, lift_mm]
    return [(float(x), float(y), float(z)) for x, y, z in moved]


def vary(random: np.random.Generator, spread: float) -> float:
    """A size factor about 1, log-normal, never beyond two deviations."""
    return float(np.exp(spread * np.clip(random.normal(), -2, 2)))


def thicker(radii: Sequence[float], factor: float) -> list[float]:
    """Radii times a factor."""
    return [radius * factor for radius in radii]


def paint_liver(scene: Scene) -> None:
    """Both lobes above the visceral surface, moulded by wall and diaphragm; vessels."""
    random, space = scene.plan.random(10), scene.space
    lift = 0.8 * scene.plan.habitus.breath_mm
    size = vary(random, 0.055)
    (right, left, hilum) = jitter(random, [(-78, 2, 42), (-2, -48, 62), (-50, 10, -6)], 4, 3, lift)
    box = space.box((-160, -115, -85), (90, 95, 130))
    tilt = random.normal(0, 4, 3)
    main = ellipsoid(
        space, box, right, (78 * size, 84 * size, 92 * size), (tilt[0], -12 + tilt[1], tilt[2])
    )
    reach = vary(random, 0.12)
    side = ellipsoid(space, box, left, (76 * reach, 40 * size, 36 * size), (0, -14 + tilt[2], 8))
    liver = blend(main, side, 14.0)
    slope = (0.55, 0.25, -0.8)
    liver = meet(liver, plane(space, box, hilum, slope), 16.0)
    # the hilum: a dent from below and behind
    dent = ellipsoid(space, box, (hilum[0] + 30, hilum[1] + 12, hilum[2] + 26), (26, 36, 24))
    liver = carve(liver, dent, 12.0)
    liver += np.float32(2.2) * space.noise(random, box, 34.0)
    liver = meet(liver, scene.within(box, 4.5), 5.0)
    scene.remember("liver", box, liver)
    scene.paint(box, liver - 1, "visceral_fat", (10, 6), 0)
    scene.paint(box, liver, "liver", (6, 4), LIVER, pattern=twigs(scene, box))
    _paint_liver_vessels(scene, (hilum[0] + 24, hilum[1] - 6, hilum[2] + 34))


def _paint_liver_vessels(scene: Scene, gate: Triple) -> None:
    """The portal vein's and the hepatic veins' main branches; `gate` is the liver's hilum."""
    random = scene.plan.random(11)
    x, y, z = gate
    portal: list[tuple[list[Triple], Triple]] = [
        ([(0, -10, 2), (x + 12, y, z - 14), gate], (7, 6.5, 6)),
        ([gate, (x - 30, y + 6, z + 8), (x - 62, y + 14, z + 4)], (5.5, 4.5, 3)),
        ([gate, (x - 22, y - 4, z + 24), (x - 44, y - 22, z + 40)], (4.5, 3.5, 2.5)),
        ([gate, (x + 18, y - 32, z + 14), (x + 42, y - 46, z + 18)], (4.5, 3.5, 2.5)),
    ]
    hepatic: list[tuple[list[Triple], Triple]] = [
        ([(-20, -4, 92), (x - 40, y + 8, 72), (x - 66, y + 10, 44)], (5.5, 4.5, 2.5)),
        ([(-20, -6, 92), (-34, -34, 72), (-46, -56, 40)], (5, 4, 2.5)),
        ([(-18, -8, 92), (6, -36, 80), (28, -48, 66)], (4.5, 3.5, 2.5)),
    ]
    for group, tissue in ((portal, "portal_vein"), (hepatic, "veins")):
        for points, radii in group:
            moved = [points[0], *jitter(random, points[1:], 0, 4)]
            own, vessel = tube(scene.space, moved, radii)
            scene.paint(own, vessel, tissue, (5, 3))


def paint_gallbladder(scene: Scene) -> None:
    """A pear under the liver's right lobe, full of bile, with stones in some."""
    random = scene.plan.random(12)
    lift = 0.8 * scene.plan.habitus.breath_mm
    points = jitter(
        random, [(-42, -24, 18), (-52, -42, 4), (-60, -57, -12), (-63, -67, -25)], 5, 2, lift
    )
    radii = thicker((4, 10, 14, 12), vary(random, 0.14))
    box, bladder = tube(scene.space, points, radii)
    bladder = meet(bladder, scene.within(box, 4), 3.0)
    if "gallbladder" in scene.plan.missing:
        return
    scene.remember("gallbladder", box, bladder)
    scene.paint(box, bladder, "gallbladder_wall", (4, 2), GALLBLADDER)
    scene.paint(box, bladder + np.float32(1.8), "bile", (3, 2))
    if random.random() < 0.2:
        x, y, z = points[3]
        stone = ellipsoid(scene.space, box, (x, y + 5, z + 2), (5, 4, 4))
        scene.paint(box, stone, float(random.uniform(90, 320)), (30, 10))


def paint_spleen(scene: Scene) -> None:
    """A thick crescent against the left wall, mottled in the arterial phase."""
    if "spleen" in scene.plan.missing:
        return
    random, space = scene.plan.random(13), scene.space
    lift = 0.8 * scene.plan.habitus.breath_mm
    size = vary(random, 0.10)
    (center,) = jitter(random, [(98, 30, 38)], 4, 0, lift)
    box = space.box((40, -50, -40), (155, 95, 130))
    turn = random.normal(0, 6, 3)
    spleen = ellipsoid(
        space,
        box,
        center,
        (38 * size, 54 * size, 62 * size),
        (-22 + turn[0], 12 + turn[1], 24 + turn[2]),
    )
    hollow = (center[0] - 50 * size, center[1] - 26, center[2] - 2)
    spleen = carve(spleen, ellipsoid(space, box, hollow, (34, 36, 46)), 8.0)
    spleen += np.float32(1.6) * space.noise(random, box, 26.0)
    spleen = meet(spleen, scene.within(box, 4.5), 5.0)
    scene.remember("spleen", box, spleen)
    mottled = (5, 26) if scene.plan.phase == "arterial" else (6, 4)
    scene.paint(box, spleen - 1, "visceral_fat", (10, 6), 0)
    scene.paint(box, spleen, "spleen", mottled, SPLEEN)


def paint_pancreas(scene: Scene) -> None:
    """Head in the duodenum's C, body over the aorta, tail to the spleen; the splenic vein."""
    random, space = scene.plan.random(14), scene.space
    lift = 0.35 * scene.plan.habitus.breath_mm
    points = jitter(
        random,
        [
            (-22, -6, -42),
            (-25, -10, -24),
            (-16, -22, -8),
            (8, -30, 4),
            (36, -16, 14),
            (64, 4, 24),
            (84, 18, 32),
        ],
        3.5,
        3,
        lift,
    )
    size = vary(random, 0.10)
    box, pancreas = tube(space, points, thicker((11, 16, 11.5, 9.5, 10.5, 11, 9), size), 8.0)
    uncinate_box_center = (points[0][0] + 10, points[0][1] + 4, points[0][2] + 6)
    hook = ellipsoid(space, box, uncinate_box_center, (13 * size, 9 * size, 11 * size))
    pancreas = blend(pancreas, hook, 6.0)
    pancreas += np.float32(1.8) * space.noise(random, box, 8.0)
    pancreas = meet(pancreas, scene.within(box, 5), 4.0)
    scene.remember("pancreas", box, pancreas)
    vein = [(p[0], p[1] + 9, p[2] + 2) for p in points[2:]]
    own, splenic = tube(space, vein, [4.0] * len(vein))
    scene.paint(own, splenic, "portal_vein", (4, 2))
    scene.paint(box, pancreas - 1, "visceral_fat", (10, 6), 0)
    scene.paint(box, pancreas, "pancreas", (13, 6), PANCREAS, pattern=lobules(scene, box))


def paint_kidneys(scene: Scene) -> None:
    """Both kidneys in their own fat: cortex, medulla where phases tell them apart, and sinus."""
    for side, name, label in ((-1, "right_kidney", RIGHT_KIDNEY), (1, "left_kidney", LEFT_KIDNEY)):
        if name not in scene.plan.missing:
            _paint_kidney(scene, side, name, label)


def _paint_kidney(scene: Scene, side: int, name: str, label: int) -> None:
    random, space = scene.plan.random(20 + label), scene.space
    lift = 0.5 * scene.plan.habitus.breath_mm - (12 if side < 0 else 0)
    (center,) = jitter(random, [(side * 64, 38, -6)], 4, 0, lift)
    size = vary(random, 0.055) * (1.12 if _lacks_kidney(scene) else 1.0)
    x, y, z = center
    box = space.box((x - 55, y - 52, z - 75), (x + 55, y + 52, z + 75))
    turn = random.normal(0, 5, 3)
    angles = (10 + turn[0], side * (12 + turn[1]), side * (28 + turn[2]))
    kidney = ellipsoid(space, box, center, (29.5 * size, 27.5 * size, 56 * size), angles)
    hilum = (x - side * 24, y - 10, z)
    sinus = ellipsoid(space, box, hilum, (17, 12, 19), angles)
    kidney = carve(kidney, sinus, 7.0)
    kidney += np.float32(1.1) * space.noise(random, box, 20.0)
    kidney = np.maximum(kidney, -(scene.over(box, "spine") - 3))
    kidney = meet(kidney, scene.within(box, 4), 4.0)
    scene.remember(name, box, kidney)
    scene.paint(box, kidney - np.float32(random.uniform(2, 7)), "visceral_fat", (9, 6), 0)
    tract, ureter = tube(
        space, [hilum, (x - side * 30, y - 6, z - 30), (side * 36, 12, -120)], (8, 4, 2.5)
    )
    scene.paint(tract, ureter, "urine", (3, 2))
    scene.paint(box, kidney, "kidney_cortex", (7, 5), label)
    pyramids = np.maximum(
        kidney + 7, np.float32(6) * (space.noise(random, box, 13.0) - np.float32(0.9))
    )
    scene.paint(box, pyramids, "kidney_medulla", (6, 4))
    _paint_sinus(scene, box, kidney, (center, hilum))


def _paint_sinus(scene: Scene, box: Box, kidney: Float, places: tuple[Triple, Triple]) -> None:
    """Fat, and calyces full of urine in it; what of it lies within the kidney keeps its label."""
    space, random = scene.space, scene.plan.random(17)
    (x, y, z), (gate, front, _) = places
    middle = (0.5 * (x + gate), 0.5 * (y + front), z)
    size = vary(random, 0.15)
    sinus = ellipsoid(space, box, middle, (19 * size, 10 * size, 27 * size))
    sinus += np.float32(3) * space.noise(random, box, 11.0)
    sinus = np.maximum(sinus, kidney + 8)
    scene.paint(box, sinus, 0.7 * scene.hu["visceral_fat"], (18, 12))
    calyces = np.float32(5) * (space.noise(random, box, 13.0) - np.float32(0.4))
    scene.paint(box, np.maximum(sinus + 2, calyces), "urine", (4, 3))


def _lacks_kidney(scene: Scene) -> bool:
    return any(name.endswith("kidney") for name in scene.plan.missing)


def paint_adrenals(scene: Scene) -> None:
    """Two thin Y shapes: a body in front, two limbs running back and down over the kidney's top."""
    for side, name, label in (
        (-1, "right_adrenal", RIGHT_ADRENAL),
        (1, "left_adrenal", LEFT_ADRENAL),
    ):
        random = scene.plan.random(20 + label)
        lift = 0.5 * scene.plan.habitus.breath_mm
        (apex,) = jitter(random, [(-29, 16, 40) if side < 0 else (34, 12, 32)], 2.5, 0, lift)
        limb = vary(random, 0.12)
        sheets = [_limb(apex, side, limb, outward) for outward in (True, False)]
        path = np.concatenate(sheets).astype(np.float32)
        radius = np.float32(2.75 * vary(random, 0.1))
        box, adrenal = sweep(scene.space, path, np.full(len(path), radius, dtype=np.float32))
        adrenal = np.maximum(adrenal, -(scene.over(box, "spine") - 2))
        scene.remember(name, box, adrenal)
        scene.paint(box, adrenal - np.float32(2), "visceral_fat", (7, 5), 0)
        scene.paint(box, adrenal, "adrenal", (5, 3), label)


def _limb(apex: Triple, side: int, size: float, outward: bool) -> np.ndarray:
    """Points of one limb: a sheet from the apex backward, deeper the lower it is."""
    along, height = np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 9))
    spread = (16 if outward else -3) * side
    x = apex[0] + spread * along * size * (0.4 + 0.6 * height)
    y = apex[1] + 19 * along * size * (0.35 + 0.65 * height)
    z = apex[2] + 8 - 26 * height * size - 3 * along
    return np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
