"""A model is one file: safetensors weights with a JSON card that says all there is to know.

Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flarekd.card_parts import (
    NETWORKS,
    Known,
    Looking,
    check,
    check_names,
    check_spacing,
    why_unusable,
)
from flarekd.errors import InputError, said
from flarekd.imaging.atomic import replacing
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.protocol import check_patch_size

FORMAT: Literal[1] = 1
KEY = "flarekd"
Orientation = Literal["LPS", "LPI", "LAS", "LAI", "RPS", "RPI", "RAS", "RAI"]
"""Where the axes x, y, z of arrays run to: the patient's left or right, back or front, up or down.

Everything in flarekd is ``LPS`` (as ITK means it); imported networks may have been trained on
other arrays.
"""

LONGEST_CARD = 1 << 20
"""Letters of JSON."""

_GIVE = "give a *.safetensors that flarekd wrote"

Id = Annotated[int, Field(ge=0, le=255)]
Millimetres = Annotated[float, AfterValidator(check_spacing)]
Voxels = Annotated[int, Field(ge=1)]


class ModelCard(BaseModel):
    """What a model file says of itself.

    Attributes:
        format: Version of this card.
        role: ``teacher`` (2D) or ``student`` (3D).
        network: The arguments its network is built with.
        labels: Name of each output, background first.
        label_ids: Id written for each output.
        spacing: Millimetres (z, y, x); a teacher's z is 0, each case keeping its own.
        orientation: Axes of the arrays it was trained on; of flarekd's own always ``LPS``.
        patch: Voxels (z, y, x).
        intensity: Clip limits, mean and standard deviation in HU.
        clip_first: Intensities are clipped before resampling, as nnU-Net v2 does, not after it.
        fingerprint: What the cohort was like that it was trained on; empty where not known.
        inference: Settings of its windows; `looking` has them with their defaults.
        training: Summary of how it came about.
        trained_on: SHA-256 of the names and contents of what it was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    role: Literal["teacher", "student"]
    network: dict[str, Any]
    labels: tuple[str, ...] = Field(min_length=2)
    label_ids: tuple[Id, ...]
    spacing: tuple[Millimetres, Millimetres, Millimetres]
    orientation: Orientation = "LPS"
    patch: tuple[Voxels, Voxels, Voxels]
    intensity: tuple[float, float, float, float]
    clip_first: bool = False
    fingerprint: dict[str, Any] = {}
    inference: dict[str, Any] = {}
    training: dict[str, Any] = {}
    trained_on: str = ""

    @model_validator(mode="after")
    def _makes_sense(self) -> ModelCard:
        check_names(self.labels, self.label_ids)
        check(NETWORKS[self.role], self.network, "network")
        check(Looking, self.inference, "inference")
        check(Known, self.fingerprint, "fingerprint")
        if self.network["classes"] != len(self.labels):
            message = f"{len(self.labels)} labels, but {self.network['classes']} network.classes"
            raise ValueError(message)
        check_patch_size(self.patch)
        if self.role == "teacher" and (self.spacing[0], self.patch[0]) != (0, 1):
            message = f"a teacher sees slices: spacing {self.spacing} and patch {self.patch} must "
            message += "be 0 and 1 along z"
            raise ValueError(message)
        IntensityStatistics(*self.intensity)
        return self

    @property
    def names(self) -> dict[int, str]:
        """The names of the labels by id, background left out."""
        return dict(zip(self.label_ids[1:], self.labels[1:], strict=True))

    @property
    def statistics(self) -> IntensityStatistics:
        """The intensity statistics as the object that normalises."""
        return IntensityStatistics(*self.intensity)

    @property
    def looking(self) -> Looking:
        """The settings of its windows, what it does not say by default."""
        return Looking(**self.inference)


def save_model(path: Path, weights: dict[str, Tensor], card: ModelCard) -> None:
    """Write weights and card as one file, whole or not at all."""
    save_tensors(path, weights, {KEY: card.model_dump_json()})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], text: dict[str, str]) -> None:
    """Write tensors and text as one safetensors file, whole or not at all.

    Raises:
        NoRoomError: If the disk is full.
        OSError: If it cannot be written for another reason.
    """
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        mode = temporary.stat().st_mode
        try:
            save_file(own, temporary, metadata=text)
            temporary.chmod(mode)  # safetensors takes the right to read from all others
        except SafetensorError as error:
            # the system's word, which it passes on as text
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_card(path: Path) -> ModelCard:
    """Read a model file's card alone.

    Raises:
        InputError: If the file is not a flarekd model of a format this version knows.
    """
    if path.is_dir():
        mend = "give the *.safetensors in it that flarekd wrote"
        raise InputError(f"{str(path)!r} is a folder, no model file", mend)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} is not a model file: {said(error)}", _GIVE) from error
    return parse_card(text, path)


def parse_card(text: str | None, path: Path) -> ModelCard:
    """The card that stands in a file as JSON.

    Raises:
        InputError: If there is none, or none that this version knows; it names `path`.
    """
    if text is None:
        raise InputError(
            f"{str(path)!r} carries no flarekd card", "give a model that flarekd wrote"
        )
    if len(text) > LONGEST_CARD:
        raise InputError(f"the card of {str(path)!r} is longer than {LONGEST_CARD:,} letters")
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"the card of {str(path)!r} is unusable: {why_unusable(error)}",
            "it may come from another version of flarekd",
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a model file's weights."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} is not a model file: {said(error)}", _GIVE) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
