"""One case before it is rendered: who lies in the scanner, and how the scan is taken and stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flarekd.phantom.grid import Grid, Shape, Triple


@dataclass(frozen=True)
class Habitus:
    """How a patient is built and lies.

    Attributes:
        height: Scale along z, 1 for the nominal adult.
        girth: Scale along x and y.
        fat_mm: Subcutaneous fat at the flank.
        roll_deg: Turn about the long axis on the table.
        breath_mm: How far the diaphragm and what hangs on it stand above nominal.
        arms_down: Arms lie beside the trunk.
    """

    height: float
    girth: float
    fat_mm: float
    roll_deg: float
    breath_mm: float
    arms_down: bool


@dataclass(frozen=True)
class Storage:
    """How the scan lies in its file.

    Attributes:
        axes: Where each stored axis x, y, z points, e.g. ``RAS``.
        oblique_deg: Small turns about x, y, z of the whole grid.
        origin: World position (x, y, z) of the canonical first voxel, mm.
    """

    axes: str
    oblique_deg: Triple
    origin: Triple


@dataclass(frozen=True)
class Tumor:
    """One tumour: where, how large, how it differs from its organ.

    Attributes:
        host: Organ it grows in.
        diameter_mm: Before its border is made irregular.
        contrast: Hounsfield units against its organ in the case's phase.
        necrosis: Radius of a dead core as a fraction of its own, 0 for none.
        rim_hu: How much brighter its outer shell is, 0 for none.
    """

    host: str
    diameter_mm: float
    contrast: float
    necrosis: float
    rim_hu: float


@dataclass(frozen=True)
class CasePlan:
    """One case, before it is rendered.

    Attributes:
        case: Name of its files.
        index: Its number, which with `seed` gives all its random numbers.
        role: ``labelled``, ``unlabelled`` or ``val``.
        group: Group of Table 1, 0 where there is none.
        thickness_mm: Slice spacing; `pixel_mm` likewise in-plane.
        bottom_mm, top_mm: Ends of the field of view in the nominal body.
        noise_hu: Standard deviation of the noise in the middle of the body.
        circle: Outside the reconstruction circle there is only padding.
        missing: Organs this patient lacks.
    """

    case: str
    index: int
    seed: int
    preset: str
    role: str
    group: int
    phase: str
    region: str
    thickness_mm: float
    pixel_mm: float
    bottom_mm: float
    top_mm: float
    noise_hu: float
    circle: bool
    habitus: Habitus
    storage: Storage
    missing: tuple[str, ...]
    tumors: tuple[Tumor, ...]

    def random(self, purpose: int) -> np.random.Generator:
        """A generator of this case's own for one purpose, the same whatever else was drawn."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.index, purpose]))

    @property
    def factor(self) -> int:
        """Pixels between points of the field grid."""
        return 4 if self.preset == "full" else 1

    def grid(self) -> Grid:
        """The scanner's grid in the patient's frame."""
        dz = self.thickness_mm
        bottom, top = (end * self.habitus.height for end in (self.bottom_mm, self.top_mm))
        slices = round((top - bottom) / dz)
        shape: Shape = (slices, 512, 512)
        if self.preset == "quick":
            half, depth = body_size(self.habitus)
            shape = (
                slices,
                _even((depth + 44) / self.pixel_mm),
                _even((2 * half + 24) / self.pixel_mm),
            )
        x_mm, y_mm = (n * self.pixel_mm for n in (shape[2], shape[1]))
        shift = self.random(0).uniform(-6, 6, 2)
        # the table is under the back (larger y), so the body lies a little forward of the middle
        start = (bottom, 6 - y_mm / 2 + shift[0], -x_mm / 2 + shift[1])
        return Grid(
            shape,
            (dz, self.pixel_mm, self.pixel_mm),
            (float(start[0]), float(start[1]), float(start[2])),
        )


def body_size(habitus: Habitus) -> tuple[float, float]:
    """Half the width and the whole depth of the trunk, mm."""
    half = (156 + habitus.fat_mm) * habitus.girth
    return half + (70 if habitus.arms_down else 0), (205 + 2 * habitus.fat_mm) * habitus.girth


def _even(count: float) -> int:
    return 2 * int(np.ceil(count / 2))
