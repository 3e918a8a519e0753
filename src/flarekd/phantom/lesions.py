"""Tumours, and what looks like one: cysts and calcifications, which are no tumours."""

from __future__ import annotations

import numpy as np

from flarekd.labels import TUMOR
from flarekd.phantom.grid import Box, Float
from flarekd.phantom.patient import Tumor
from flarekd.phantom.scene import Scene
from flarekd.phantom.shapes import meet

HOST_TISSUE = {
    "right_kidney": "kidney_cortex", "left_kidney": "kidney_cortex", "colon": "bowel_wall",
    "stomach": "stomach_wall", "right_adrenal": "adrenal", "left_adrenal": "adrenal",
}  # fmt: skip
BULGE_MM = {
    "liver": 2.0, "pancreas": 10.0, "colon": 9.0, "stomach": 6.0,
    "right_adrenal": 22.0, "left_adrenal": 22.0,
}  # fmt: skip
"""How far a tumour may grow out of its organ."""


def paint_lesions(scene: Scene) -> list[Tumor]:
    """Lay cysts and calcifications, then tumours, over everything else.

    A tumour lies in its host and may bulge out of it, never into another organ. Where the host is
    not in the field of view it grows in the liver.

    Returns:
        The tumours as they were placed.
    """
    random = scene.plan.random(40)
    for host, chance, largest in (
        ("right_kidney", 0.4, 22),
        ("left_kidney", 0.4, 22),
        ("liver", 0.4, 18),
    ):
        for _ in range(int(random.poisson(1.3)) if random.random() < chance else 0):
            _paint_cyst(scene, host, float(random.uniform(4, largest)), random)
    for host in ("liver", "spleen", "right_kidney", "left_kidney"):
        if random.random() < 0.12:
            _paint_calcification(scene, host, random)
    placed = []
    for tumor in scene.plan.tumors:
        host = tumor.host if _has_room(scene, tumor.host) else "liver"
        own = Tumor(host, tumor.diameter_mm, tumor.contrast, tumor.necrosis, tumor.rim_hu)
        _paint_tumor(scene, own, random)
        placed.append(own)
    return placed


def _has_room(scene: Scene, host: str) -> bool:
    if host not in scene.organs:
        return False
    return int((_visible(scene, host)[1] < -1).sum()) >= 12


def _visible(scene: Scene, host: str) -> tuple[Box, Float]:
    """A host's field without the organs that were painted over it."""
    box, field = scene.organs[host]
    names = list(scene.organs)
    for name in names[names.index(host) + 1 :]:
        field = np.maximum(field, -scene.over(box, name))
    return box, field


def _seat(
    scene: Scene, host: str, radius: float, random: np.random.Generator
) -> tuple[float, float, float] | None:
    """A place for a lesion: about as deep in its host as it is large, and not at the scan's end."""
    if not _has_room(scene, host):
        return None
    box, field = _visible(scene, host)
    space = scene.space
    z = space.z[box]
    rim = min(radius, 12.0)
    ends = space.axes[0]
    seen = (z > ends[0] + rim) & (z < ends[-1] - rim)
    usable = (field < 0) & seen
    if not usable.any():
        usable = field < 0
    wanted = {"colon": 1.0, "stomach": 3.0}.get(host, 0.55 * radius)
    depth = min(wanted, -0.8 * float(field[usable].min()))
    fits = np.argwhere(usable & (field <= -depth) & (field > -depth - max(0.6 * radius, 5)))
    if not len(fits):
        fits = np.argwhere(usable)
    at = tuple(fits[int(random.integers(len(fits)))])
    return float(space.x[box][at]), float(space.y[box][at]), float(space.z[box][at])


def _ball(
    scene: Scene,
    center: tuple[float, float, float],
    radius: float,
    rough: float,
    random: np.random.Generator,
) -> tuple[Box, Float]:
    """An irregular ball in a box of its own."""
    space = scene.space
    rim = radius * 1.4 + 5
    x, y, z = center
    box = space.box((x - rim, y - rim, z - rim), (x + rim, y + rim, z + rim))
    stretch = np.exp(np.clip(random.normal(0, 0.13, 3), -0.25, 0.25))
    square = ((space.x[box] - x) / stretch[0]) ** 2 + ((space.y[box] - y) / stretch[1]) ** 2
    square += ((space.z[box] - z) / stretch[2]) ** 2
    ball = np.sqrt(square) - radius
    if 0 not in ball.shape:
        ball = ball + rough * radius * space.noise(random, box, max(0.75 * radius, 6.0))
    return box, np.asarray(ball, dtype=np.float32)


def _kept_off(scene: Scene, box: Box, field: Float, host: str) -> Float:
    """A lesion's field without what belongs to other organs, bones or the chest."""
    bulge = BULGE_MM.get(host, 14.0)
    field = meet(field, scene.over(box, host) - np.float32(bulge), 3.0)
    inside, later = scene.over(box, host), False
    for name in scene.organs:
        if name == host:
            later = True
            continue
        # an organ painted before the host reaches on beneath it, and there it is the host
        other = scene.over(box, name)
        field = np.maximum(field, -other if later else np.minimum(-other, inside))
    return np.asarray(field, dtype=np.float32)


def _paint_cyst(scene: Scene, host: str, radius: float, random: np.random.Generator) -> None:
    center = _seat(scene, host, radius * 0.6, random)
    if center is None:
        return
    box, ball = _ball(scene, center, radius, 0.03, random)
    scene.paint(box, _kept_off(scene, box, ball, host), "cyst", (3, 1))


def _paint_calcification(scene: Scene, host: str, random: np.random.Generator) -> None:
    center = _seat(scene, host, 6, random)
    if center is not None:
        box, ball = _ball(scene, center, float(random.uniform(2, 4)), 0.1, random)
        scene.paint(box, ball, "calcification", (20, 5))


def _paint_tumor(scene: Scene, tumor: Tumor, random: np.random.Generator) -> None:
    radius = tumor.diameter_mm / 2
    center = _seat(scene, tumor.host, radius, random)
    if center is None:
        return
    box, ball = _ball(scene, center, radius, 0.13, random)
    field = _kept_off(scene, box, ball, tumor.host)
    base = scene.hu[HOST_TISSUE.get(tumor.host, tumor.host)]
    if tumor.host in {"colon", "stomach"}:
        base += 12
    value = max(base + tumor.contrast, 12.0)
    scene.paint(box, field, value + tumor.rim_hu, (9, 7), TUMOR)
    if tumor.rim_hu:
        scene.paint(
            box, np.maximum(field + np.float32(0.14 * radius + 1), ball + 2), value, (10, 8)
        )
    if tumor.necrosis:
        core = np.maximum(ball + np.float32(radius * (1 - tumor.necrosis)), field + 2)
        scene.paint(box, core, float(random.uniform(12, 32)), (6, 5))
