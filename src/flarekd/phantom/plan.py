"""What a cohort consists of: all choices about whole cases, drawn before anything is rendered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flarekd.labels import GROUP_COUNTS, GROUPS, TUMOR
from flarekd.phantom.patient import CasePlan, Habitus, Storage, Tumor, body_size

VERSION = 2
"""Raised whenever the same plan gives other voxels: old and new cases are not to be mixed."""

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


FEW = 8
"""Held-out cases that are enough for organs; tumours differ so much that larger cohorts hold out
more."""


def plan_cohort(cases: int, preset: str, seed: int) -> list[CasePlan]:
    """Draw a cohort: roles and groups in FLARE's proportions, then every case's patient and scan.

    A sixth of the cases (2 to 8), of more than 80 a tenth, is for validation; the rest are labelled
    to unlabelled as FLARE's 2,200 to 1,800, and the labelled ones fall into Table 1's groups by
    largest remainder.

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
    validation = max(2, min(FEW, round(cases / 6)), cases // 10)
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
    """How many labelled cases are of each group: largest remainder of Table 1's counts."""
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
    """Who lacks an organ: two cases that look like another group's, and a few by chance."""
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
    half, _ = body_size(habitus)
    field_mm = (2 * half + 8) * random.uniform(0.98, 1.2)
    return float(random.choice(offered)), round(float(np.clip(field_mm / 512, 0.6, 1.0)), 4)


def _draw_storage(random: np.random.Generator) -> Storage:
    axes = _choose(ORIENTATIONS, random)
    oblique = random.normal(0, 3, 3) if random.random() < 0.2 else np.zeros(3)
    origin = random.uniform(-250, 250, 3) - np.asarray([180, 180, 300])
    a, b, c = (round(float(angle), 2) for angle in oblique)
    x, y, z = (round(float(place), 2) for place in origin)
    return Storage(axes, (a, b, c), (x, y, z))


def _draw_tumors(
    phase: str, missing: tuple[str, ...], random: np.random.Generator
) -> tuple[Tumor, ...]:
    hosts = {host: share for host, share in HOSTS.items() if host not in missing}
    host = _choose(hosts, random)
    tumors = [_draw_tumor(host, phase, random)]
    if host == "liver" and random.random() < 0.4:
        # metastases: alike, and smaller than the first
        for _ in range(min(int(random.geometric(0.5)), 4)):
            size = max(5.0, tumors[0].diameter_mm * random.uniform(0.3, 0.8))
            tumors.append(replace(tumors[0], diameter_mm=round(float(size), 1)))
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
