"""What tissues measure in Hounsfield units, in three contrast phases and in one patient.

Means and spreads are round figures from abdominal radiology (see docs/phantom.md);
neighbours overlap on purpose.
"""

from __future__ import annotations

import numpy as np

ORGANS_HU: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # (mean, patient-to-patient deviation) in native, arterial, portal-venous phase
    "liver": ((54, 7), (68, 9), (108, 13)),
    "spleen": ((45, 5), (125, 18), (119, 12)),
    "pancreas": ((38, 7), (104, 14), (97, 13)),
    "kidney_cortex": ((30, 3), (178, 24), (182, 18)),
    "kidney_medulla": ((28, 3), (82, 14), (165, 18)),
    "aorta": ((41, 4), (300, 48), (150, 18)),
    "veins": ((40, 4), (85, 22), (143, 18)),
    "portal_vein": ((41, 4), (110, 28), (162, 18)),
    "adrenal": ((26, 9), (66, 12), (74, 12)),
    "gallbladder_wall": ((30, 5), (55, 8), (68, 9)),
    "esophagus": ((35, 5), (58, 9), (68, 10)),
    "stomach_wall": ((38, 5), (84, 14), (88, 12)),
    "duodenum_wall": ((36, 5), (88, 14), (86, 12)),
    "bowel_wall": ((35, 5), (86, 14), (82, 12)),
    "muscle": ((48, 5), (52, 5), (57, 5)),
    "heart": ((42, 3), (205, 35), (140, 16)),
}
"""Tissues whose measure depends on the phase."""

PLAIN_HU: dict[str, tuple[float, float]] = {
    "skin": (25, 8),
    "fat": (-105, 5),
    "visceral_fat": (-98, 6),
    "lung": (-845, 30),
    "cortical_bone": (420, 60),
    "spongy_bone": (175, 40),
    "disc": (85, 8),
    "canal": (30, 5),
    "bile": (9, 4),
    "urine": (4, 4),
    "cyst": (7, 4),
    "table_shell": (60, 40),
    "table_foam": (-900, 30),
    "gas": (-960, 15),
    "calcification": (420, 120),
    "mediastinum": (-75, 10),
}
"""Tissues that measure the same in every phase."""

PHASE_COLUMN = {"native": 0, "arterial": 1, "portal": 2}


def draw_contrast(phase: str, random: np.random.Generator) -> dict[str, float]:
    """Draw one patient's mean HU of every tissue.

    How well a patient enhances is common to all organs (circulation, weight); the rest is
    each organ's own.

    Args:
        phase: ``native``, ``arterial`` or ``portal``.
        random: The case's own generator.
    """
    column = PHASE_COLUMN[phase]
    common = float(np.clip(random.normal(0, 1), -2, 2))
    drawn: dict[str, float] = {}
    for tissue, columns in ORGANS_HU.items():
        mean, deviation = columns[column]
        own = float(np.clip(random.normal(0, 1), -2, 2))
        drawn[tissue] = mean + deviation * (0.6 * common + 0.8 * own)
    for tissue, (mean, deviation) in PLAIN_HU.items():
        drawn[tissue] = mean + deviation * float(np.clip(random.normal(0, 1), -2, 2))
    if phase == "native" and random.random() < 0.2:
        drawn["liver"] -= float(random.uniform(10, 25))  # fatty liver
    drawn["stomach_content"] = _content(random, oral=0.3)
    drawn["duodenum_content"] = _content(random, oral=0.2)
    drawn["bowel_content"] = _content(random, oral=0.3)
    drawn["stool"] = float(random.uniform(-40, 35))
    return drawn


def _content(random: np.random.Generator, oral: float) -> float:
    """Water or food, or with chance `oral` a positive contrast agent."""
    return float(random.uniform(110, 260) if random.random() < oral else random.uniform(0, 38))
