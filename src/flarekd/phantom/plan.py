"""What a cohort consists of: every choice that concerns a case as a whole, drawn before anything is rendered."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flarekd.labels import GROUP_COUNTS, GROUPS, TUMOR
from flarekd.phantom.grid import Grid, Shape, Triple

VERSION = 1
"""Raised whenever the same plan gives other voxels, so that an old cohort is not mixed with a new one."""

PRESETS = ("quick", "full")
PHASES = {"portal": 0.56, "arterial": 0.24, "native": 0.20}
REGIONS = {"upper": 0.42, "abdomen_pelvis": 0.40, "trunk": 0.18}
ORIENTATIONS = {
    "LPS": 0.44, "RAS": 0.14, "RPS": 0.06, "LAS": 0.10, "LPI": 0.08,
    "RAI": 0.04, "SLP": 0.03, "PIR": 0.04, "ASL": 0.04, "LSA": 0.03,
}  # fmt: skip
HOSTS = {
    "liver": 0.32, "right_kidney": 0.12, "left_kidney": 0.12, "pancreas": 0.15,
    "colon": 0.13, "stomach": 0.08, "right_adrenal": 0.04, "left_adrenal": 0.04,
}  # fmt: skip
LARGEST_MM = {
    "liver": 80, "right_kidney": 65, "left_kidney": 65, "pancreas": 55,
    "colon": 60, "stomach": 60, "right_adrenal": 50, "left_adrenal": 50,
}  # fmt: skip


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
        shape: Shape
        if self.preset == "full":
            shape = (round((top - bottom) / dz), 512, 512)
        else:
            half, depth = _body_size(self.habitus)
            width_mm, height_mm = 2 * half + 24, depth + 44
            shape = (
                round((top - bottom) / dz),
                *(_even(mm / self.pixel_mm) for mm in (height_mm, width_mm)),
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


def plan_cohort(cases: int, preset: str, seed: int) -> list[CasePlan]:
    """Draw a cohort: roles and groups in FLARE's proportions, then every case's patient and scan.

    About a sixth of the cases (at least two) are for validation; the rest are labelled to unlabelled as FLARE's
    2,200 to 1,800, and the labelled ones fall into Table 1's groups by largest remainder.

    Args:
        cases: Number of cases, at least 4.
        preset: ``quick`` or ``full``.
        seed: Of the whole cohort.

    Raises:
        ValueError: If there are too few cases, or the preset is unknown.
    """
    if cases < 4:
        message = (
            f"a cohort of {cases} has no room for training and validation; at least 4 are needed"
        )
        raise ValueError(message)
    if preset not in PRESETS:
        message = f"preset {preset!r} is none of {', '.join(PRESETS)}"
        raise ValueError(message)
    random = np.random.default_rng(np.random.SeedSequence([seed]))
    validation = max(2, round(cases / 6))
    labelled = max(1, round((cases - validation) * 2200 / 4000))
    groups = [group for group, count in group_sizes(labelled).items() for _ in range(count)]
    roles = [("labelled", group) for group in groups]
    roles += [("val", 0)] * validation
    roles += [("unlabelled", 0)] * (cases - validation - labelled)
    order = random.permutation(cases)
    missing = _missing_organs(roles, random)
    plans = []
    for index, pick in enumerate(order):
        role, group = roles[pick]
        plans.append(_plan_case(index + 1, preset, seed, (role, group), missing[pick]))
    return plans


def group_sizes(labelled: int) -> dict[int, int]:
    """How many of so many labelled cases are of each group, by largest remainder of Table 1's counts."""
    total = sum(GROUP_COUNTS.values())
    shares = {group: labelled * count / total for group, count in GROUP_COUNTS.items()}
    sizes = {group: int(share) for group, share in shares.items()}
    by_remainder = sorted(shares, key=lambda group: sizes[group] - shares[group])
    for group in by_remainder[: labelled - sum(sizes.values())]:
        sizes[group] += 1
    return sizes


def _missing_organs(
    roles: list[tuple[str, int]], random: np.random.Generator
) -> list[tuple[str, ...]]:
    """Who lacks an organ: two cases that group-data can mistake for another group, and a few by chance."""
    chances = {"gallbladder": 0.06, "left_kidney": 0.02, "right_kidney": 0.02, "spleen": 0.015}
    missing = [
        tuple(organ for organ, chance in chances.items() if random.random() < chance)[:1]
        for _ in roles
    ]
    for group, organ in ((7, "gallbladder"), (3, "left_kidney")):
        members = [i for i, (role, own) in enumerate(roles) if role == "labelled" and own == group]
        if len(members) >= 2:
            missing[members[0]] = (organ,)
    return missing


def _plan_case(
    index: int, preset: str, seed: int, role_group: tuple[str, int], missing: tuple[str, ...]
) -> CasePlan:
    random = np.random.default_rng(np.random.SeedSequence([seed, index]))
    role, group = role_group
    phase, region = _choose(PHASES, random), _choose(REGIONS, random)
    habitus = _draw_habitus(region, random)
    bottom, top = _field_of_view(region, preset, random)
    thickness, pixel = _draw_spacing(preset, habitus, (top - bottom) * habitus.height, random)
    thick_noise = float(np.sqrt(2.5 / max(thickness, 1)))
    noise = random.uniform(10, 19) * thick_noise if preset == "full" else random.uniform(8, 15)
    annotates_tumors = group in GROUPS and TUMOR in GROUPS[group]
    chance = {"val": 0.85, "unlabelled": 0.6}.get(role, 0.45)
    has_tumor = annotates_tumors or random.random() < chance
    plan = CasePlan(
        case=f"phantom_{index:04d}",
        index=index,
        seed=seed,
        preset=preset,
        role=role,
        group=group,
        phase=phase,
        region=region,
        thickness_mm=thickness,
        pixel_mm=pixel,
        bottom_mm=bottom,
        top_mm=top,
        noise_hu=round(float(np.clip(noise, 8, 25)), 1),
        circle=bool(random.random() < 0.3),
        habitus=habitus,
        storage=_draw_storage(random),
        missing=missing,
        tumors=(),
    )
    return replace(plan, tumors=_draw_tumors(phase, missing, random)) if has_tumor else plan


def _choose(chances: dict[str, float], random: np.random.Generator) -> str:
    weights = np.asarray(list(chances.values()))
    return list(chances)[int(random.choice(len(weights), p=weights / weights.sum()))]


def _draw_habitus(region: str, random: np.random.Generator) -> Habitus:
    girth = float(np.clip(random.normal(1.0, 0.055), 0.88, 1.13))
    fat = float(np.clip(random.gamma(4.0, 3.6) + 26 * (girth - 1), 4, 38))
    return Habitus(
        height=round(float(np.clip(random.normal(1.0, 0.045), 0.9, 1.1)), 3),
        girth=round(girth, 3),
        fat_mm=round(fat, 1),
        roll_deg=round(float(np.clip(random.normal(0, 1.8), -4, 4)), 2),
        breath_mm=round(float(np.clip(random.normal(0, 7), -14, 14)), 1),
        arms_down=bool(region == "trunk" and random.random() < 0.3),
    )


def _field_of_view(region: str, preset: str, random: np.random.Generator) -> tuple[float, float]:
    top = random.uniform(128, 165)
    if region == "upper":
        return round(random.uniform(-135, -95), 1), round(top, 1)
    quick = preset == "quick"
    bottom = random.uniform(-285, -245) if quick else random.uniform(-325, -290)
    if region == "trunk":
        top = random.uniform(200, 240) if quick else random.uniform(255, 295)
    return round(bottom, 1), round(top, 1)


def _draw_spacing(
    preset: str, habitus: Habitus, length_mm: float, random: np.random.Generator
) -> tuple[float, float]:
    if preset == "quick":
        thickness = max(random.uniform(4.0, 6.0), length_mm / 78)
        return round(float(thickness), 2), round(float(random.uniform(2.6, 3.4)), 3)
    offered = [
        mm for mm in (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0) if 82 <= length_mm / mm <= 348
    ]
    half, _ = _body_size(habitus)
    field_mm = (2 * half + 8) * random.uniform(0.98, 1.2)
    return float(random.choice(offered)), round(float(np.clip(field_mm / 512, 0.6, 1.0)), 4)


def _body_size(habitus: Habitus) -> tuple[float, float]:
    """Half the width and the whole depth of the trunk, mm."""
    half = (156 + habitus.fat_mm) * habitus.girth
    return half + (70 if habitus.arms_down else 0), (205 + 2 * habitus.fat_mm) * habitus.girth


def _even(count: float) -> int:
    return 2 * int(np.ceil(count / 2))


def _draw_storage(random: np.random.Generator) -> Storage:
    axes = _choose(ORIENTATIONS, random)
    oblique = random.normal(0, 3, 3) if random.random() < 0.2 else np.zeros(3)
    origin = random.uniform(-250, 250, 3) + [-180, -180, -300]
    a, b, c = (round(float(angle), 2) for angle in oblique)
    x, y, z = (round(float(place), 2) for place in origin)
    return Storage(axes, (a, b, c), (x, y, z))


def _draw_tumors(
    phase: str, missing: tuple[str, ...], random: np.random.Generator
) -> tuple[Tumor, ...]:
    hosts = {host: share for host, share in HOSTS.items() if host not in missing}
    host = _choose(hosts, random)
    count = 1 + int(random.geometric(0.5)) if host == "liver" and random.random() < 0.4 else 1
    tumors = [_draw_tumor(host, phase, random) for _ in range(min(count, 5))]
    if random.random() < 0.22:
        tumors.append(_draw_tumor(_choose(hosts, random), phase, random))
    return tuple(tumors)


def _draw_tumor(host: str, phase: str, random: np.random.Generator) -> Tumor:
    diameter = float(np.clip(36 * np.exp(random.normal(0, 0.5)), 5, LARGEST_MM[host]))
    sort = random.random()
    if sort < 0.12:
        contrast = random.uniform(-14, 14)
    elif sort < (0.45 if phase == "arterial" else 0.2):
        contrast = random.uniform(25, 65)
    else:
        contrast = -random.uniform(28, 70)
    if phase == "native":
        contrast *= 0.5
    if "kidney" in host and phase != "native":
        contrast -= 45
    large = diameter > 25
    return Tumor(
        host=host,
        diameter_mm=round(diameter, 1),
        contrast=round(float(contrast), 1),
        necrosis=round(float(random.uniform(0.3, 0.65)), 2)
        if large and random.random() < 0.35
        else 0.0,
        rim_hu=round(float(random.uniform(15, 45)), 1) if random.random() < 0.25 else 0.0,
    )
