"""A scan to its tumours: what `pseudo-tumor` does for every case."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flarekd.card_parts import Looking, check
from flarekd.components import without_small
from flarekd.errors import InputError, UsageError
from flarekd.imaging.volume import Volume
from flarekd.inference import predictor
from flarekd.inference.predictor import Predictor
from flarekd.inference.runtimes import Runtime
from flarekd.labels import TUMOR
from flarekd.modelfile import ModelCard
from flarekd.protocol import Probe as Place
from flarekd.teacher.network import TeacherUNet
from flarekd.teacher.windows import Probe, SliceLabels, label_slices, predict_slices

SLICES = 8
"""Slices a group: enough to fill a GPU, few enough for any memory."""

LEFT_RIGHT = -1


@dataclass(frozen=True)
class SliceSettings:
    """How a teacher looks at a scan; None leaves it to the model file.

    Attributes:
        probe: Which window of a slice decides whether the others run, ``top-left`` or ``center``.
        min_foreground: Tumour pixels τ that it must hold for that; 0 runs them all.
        threshold: Probability above which a voxel is tumour.
        min_ml: Smaller tumours are left out.

    Raises:
        UsageError: If a model file could not say so.
    """

    probe: Place | None = None
    min_foreground: int | None = None
    threshold: float | None = None
    min_ml: float | None = None

    def __post_init__(self) -> None:
        try:
            check(Looking, self._given(), "")
        except ValueError as error:
            raise UsageError(str(error), "give another, or leave it to the model file") from error

    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def unlike(self, card: ModelCard) -> dict[str, Any]:
        """What they say otherwise than a card does."""
        own = card.looking.model_dump()
        return {name: value for name, value in self._given().items() if value != own[name]}

    def of(self, teacher: Predictor) -> Predictor:
        """The same network, which looks at scans so."""
        looking = teacher.card.inference | self._given()
        return replace(teacher, card=teacher.card.model_copy(update={"inference": looking}))


def load(model: Path, device: torch.device, runtime: Runtime) -> Predictor:
    """Read a teacher's model file and make its network ready.

    Raises:
        InputError: If it is no teacher, or finds something else than tumours.
        UsageError: If the runtime is not there.
    """
    require_tumors(model)
    return predictor.load(model, "teacher", TeacherUNet, device, runtime)


def require_tumors(model: Path) -> None:
    """See to it that a model file is a teacher of tumours.

    Raises:
        InputError: If it is none.
    """
    card = predictor.card_of(model, "teacher")
    if card.label_ids != (0, TUMOR):
        raise InputError(
            f"{str(model)!r} labels {', '.join(card.labels[1:])}, not tumours alone",
            "train one with `flarekd train-teacher`",
        )


def find_tumors(
    teacher: Predictor,
    volume: Volume,
    *,
    probability: NDArray[np.uint8] | None = None,
    flip: bool = False,
) -> tuple[SliceLabels, NDArray[np.uint8], int]:
    """What the teacher says of a scan: as it is, as cleaned label ids, and what was left out.

    Args:
        teacher: The network.
        volume: The scan.
        probability: Filled with it.
        flip: Whether the network sees the scan mirrored left to right.
    """
    settings = teacher.card.looking
    tensor = teacher.network_input(volume)
    groups = predict_slices(
        teacher.network,
        tensor.flip(LEFT_RIGHT) if flip else tensor,
        teacher.card.patch[1:],
        probe=Probe(settings.probe, settings.min_foreground),
        batch=SLICES,
    )
    z, y, x = volume.array.shape
    found = label_slices(groups, (z, y, x), settings.threshold, probability)
    mask = np.flip(found.labels, LEFT_RIGHT) if flip else found.labels
    tumors, dropped = without_small(mask, settings.min_ml / voxel_ml(volume))
    return found, np.asarray(teacher.card.label_ids, np.uint8)[tumors], dropped


def voxel_ml(volume: Volume) -> float:
    """Millilitres of a voxel."""
    return float(np.prod(volume.geometry.spacing_xyz)) / 1000
