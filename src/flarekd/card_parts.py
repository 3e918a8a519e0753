"""The parts of a model's card that something is built or run by, each with its bounds.

A model file may come from a stranger. Bounds lie far above what anybody trains, and below what
would take hours to build or more memory than a machine has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flarekd.protocol import (
    COARSEST,
    FINEST,
    MOST_CHANNELS,
    MOST_STAGES,
    Probe,
    Step,
    Threshold,
    Windows,
)

MOST_CLASSES, LONGEST_NAME = 256, 100
MOST_SHOWN = 300
"""Letters of what is wrong: it may quote the file."""

MOST_CONVS = 16
"""Convolutions of a stage: 12 stages of them are built within seconds."""

Classes = Annotated[int, Field(strict=True, ge=2, le=MOST_CLASSES)]
Features = Annotated[int, Field(strict=True, ge=1, le=MOST_CHANNELS)]
Count = Annotated[int, Field(strict=True, ge=1, le=MOST_CONVS)]
Size = Annotated[int, Field(strict=True, ge=1, le=64)]
Zyx = tuple[Size, Size, Size]
Channels = Annotated[tuple[Features, ...], Field(min_length=2, max_length=MOST_STAGES)]
Sizes = Annotated[tuple[Zyx, ...], Field(min_length=1, max_length=MOST_STAGES)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1, max_length=MOST_STAGES)]
Flag = Annotated[bool, Field(strict=True)]
Above0 = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudentNetwork(_Part):
    """What a `StudentUNet` is built from; what is left out is its default."""

    classes: Classes
    channels: Channels | None = None
    strides: Sizes | None = None
    kernels: Sizes | None = None
    decoder_kernels: Sizes | None = None
    convs: Counts | None = None
    decoder_convs: Counts | None = None
    bias: Flag = False


class TeacherNetwork(_Part):
    """What a `TeacherUNet` is built from; what is left out is its default."""

    classes: Classes
    channels: Channels | None = None
    attention: Literal["published", "equations", "none"] = "published"
    bias: Flag = False


NETWORKS: dict[str, type[BaseModel]] = {"student": StudentNetwork, "teacher": TeacherNetwork}
"""By role."""


class Looking(_Part):
    """How a model looks at a scan; its defaults are those of a card that says nothing.

    Attributes:
        step: Of a student: distance of neighbouring windows as a share of the patch.
        windows: Of a student: which windows are run.
        probe: Of a teacher: the window of a slice that decides whether the others run.
        min_foreground: Of a teacher: tumour pixels that window must hold.
        threshold: Of a teacher: probability above which a voxel is tumour.
        min_ml: Of a teacher: smaller tumours are left out.
    """

    step: Annotated[Step, Field(strict=True)] = 0.5
    windows: Windows = "full"
    probe: Probe = "top-left"
    min_foreground: Annotated[int, Field(strict=True, ge=0)] = 1
    threshold: Annotated[Threshold, Field(strict=True)] = 0.5
    min_ml: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.0


class _Spread(BaseModel):
    """See `training.fingerprint.Spread`."""

    p5: tuple[Above0, Above0, Above0]
    median: tuple[Above0, Above0, Above0]
    p95: tuple[Above0, Above0, Above0]


class _Intensity(BaseModel):
    mean: Finite
    sd: Annotated[Finite, Field(ge=0)]


class Known(BaseModel):
    """What is read of a cohort's fingerprint; whatever else there is, is nobody's business."""

    spacing_mm: _Spread | None = None
    extent_mm: _Spread | None = None
    intensity: _Intensity | None = None


def check(kind: type[BaseModel], values: Mapping[str, Any], part: str) -> None:
    """Make sure that values are those of a part.

    Raises:
        ValueError: If they are not; it says which and why.
    """
    try:
        kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(why_unusable(error, part)) from error


def why_unusable(error: ValidationError, part: str = "") -> str:
    """The first of what is wrong: where it stands, and what it should be."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, (*([part] if part else []), *first["loc"])))
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":  # of ours, which say where
        where = where or "card"
    return (f"{where}: {said}" if where else said)[:MOST_SHOWN]


def check_spacing(millimetres: float) -> float:
    """The spacing, where it is one: 0 leaves a case its own.

    Raises:
        ValueError: If a scan on such a grid would fill memory, or be no scan any more.
    """
    if millimetres != 0 and not FINEST <= millimetres <= COARSEST:
        message = f"{millimetres} mm is not 0, nor {FINEST} to {COARSEST}"
        raise ValueError(message)
    return millimetres


def check_names(names: Sequence[str], ids: Sequence[int]) -> None:
    """Make sure that a network's outputs have names and ids that label maps can have.

    Args:
        names: Of the outputs, background first.
        ids: What is written for each.

    Raises:
        ValueError: If they are not as many, not apart, not led by 0, or no names to be shown.
    """
    if len(names) != len(ids):
        message = f"{len(names)} labels but {len(ids)} label_ids"
        raise ValueError(message)
    if ids[0] != 0 or len(set(ids)) < len(ids):
        message = f"label_ids {list(ids)} must begin with 0, the background, none of them twice"
        raise ValueError(message)
    for name in names:
        if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
            message = f"{name[:LONGEST_NAME]!r} is no name of a label, 1 to {LONGEST_NAME} letters "
            message += "that can be shown"
            raise ValueError(message)
        if names.count(name) > 1:
            message = f"two labels are called {name!r}"
            raise ValueError(message)
