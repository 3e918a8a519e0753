"""One case from its plan: the body is built, rendered, and given the geometry it is stored with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from flarekd.imaging.volume import Geometry
from flarekd.phantom.contrast import draw_contrast
from flarekd.phantom.lesions import paint_lesions
from flarekd.phantom.organs import (
    paint_adrenals,
    paint_gallbladder,
    paint_kidneys,
    paint_liver,
    paint_pancreas,
    paint_spleen,
)
from flarekd.phantom.patient import CasePlan, Tumor
from flarekd.phantom.render import Rendering, render
from flarekd.phantom.scene import Scene, make_space
from flarekd.phantom.skeleton import paint_skeleton
from flarekd.phantom.stroma import paint_nodes
from flarekd.phantom.torso import paint_torso
from flarekd.phantom.tract import (
    paint_bowel,
    paint_duodenum,
    paint_esophagus,
    paint_stomach,
    paint_vessels,
)

KERNEL_MM = (1.0, 2.6)
"""In-plane blur of a scan's reconstruction kernel."""

DIRECTIONS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
"""World axis (x to the left, y to the back, z upward) and sign of each letter of an orientation."""


@dataclass(frozen=True)
class PhantomCase:
    """A case as it will be written.

    Attributes:
        plan: What was asked for.
        rendering: Image and labels, canonical ``(z, y, x)``.
        geometry: The grid of its files.
        tumors: The tumours as placed.
    """

    plan: CasePlan
    rendering: Rendering
    geometry: Geometry
    tumors: tuple[Tumor, ...]


def make_case(plan: CasePlan) -> PhantomCase:
    """Build and render one case; the same plan gives the same bytes."""
    scan = plan.grid()
    scene = build_scene(plan)
    tumors = paint_lesions(scene)
    return PhantomCase(plan, render(scene, scan), geometry(plan), tuple(tumors))


def build_scene(plan: CasePlan) -> Scene:
    """The body without lesions; later organs lie over earlier ones, so none overlap."""
    fields = plan.grid().coarse(plan.factor)
    space = make_space(plan, fields)
    hu = draw_contrast(plan.phase, plan.random(3))
    scan = plan.grid()
    # a surface is smeared over a voxel and the kernel's blur, here in steps of the field grid
    kernel_mm = float(plan.random(18).uniform(*KERNEL_MM))
    blur = [max(step, kernel_mm) if axis else step for axis, step in enumerate(scan.spacing)]
    voxel = [max(width / step, 0.5) for width, step in zip(blur, fields.spacing, strict=True)]
    empty = np.zeros((0, 0, 0), dtype=np.float32)
    scene = Scene(plan, space, hu, (voxel[0], voxel[1], voxel[2]), empty, empty)
    wall = paint_torso(scene)
    paint_skeleton(scene, wall)
    for paint in (
        paint_nodes,
        paint_bowel,
        paint_stomach,
        paint_liver,
        paint_spleen,
        paint_pancreas,
        paint_duodenum,
        paint_gallbladder,
        paint_kidneys,
        paint_adrenals,
        paint_esophagus,
        paint_vessels,
    ):
        paint(scene)
    return scene


def geometry(plan: CasePlan) -> Geometry:
    """The stored grid: the plan's orientation, slight turn and origin around the canonical grid."""
    scan = plan.grid()
    size = scan.shape[::-1]
    spacing = scan.spacing[::-1]
    turn: NDArray[np.float64] = Rotation.from_euler(
        "xyz", plan.storage.oblique_deg, degrees=True
    ).as_matrix()
    columns, sizes, steps = [], [], []
    origin = np.asarray(plan.storage.origin, dtype=float)
    for letter in plan.storage.axes:
        world, sign = DIRECTIONS[letter]
        columns.append(sign * turn[:, world])
        sizes.append(size[world])
        steps.append(spacing[world])
        if sign < 0:
            origin = origin + (size[world] - 1) * spacing[world] * turn[:, world]
    direction = np.stack(columns, axis=1)
    return Geometry(
        (sizes[0], sizes[1], sizes[2]),
        (steps[0], steps[1], steps[2]),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(cosine) for cosine in direction.ravel()),
    )
