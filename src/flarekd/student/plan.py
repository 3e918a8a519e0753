"""What a training of the student's network is: of all classes, or of the organs alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flarekd.config import Config, dump
from flarekd.labels import NAMES
from flarekd.protocol import Student
from flarekd.student.network import StudentUNet
from flarekd.student.windows import predict_logits
from flarekd.training.initial import Initial
from flarekd.training.plan import Plan
from flarekd.training.prepare import Grid
from flarekd.training.validation import Segment


def student_plan(
    settings: Config,
    outputs: int,
    *,
    initial: Initial | None = None,
    missing: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """The training of a student.

    Args:
        settings: The configuration, whose section `student` says how.
        outputs: The first so many of our classes are its outputs: 15 are all of them, 14 background
            and the organs.
        initial: A model to start from.
        missing: Cases that should have been there to train on, and why they are not.
    """
    student = settings.student
    weights = student.class_weights[:outputs]
    return Plan(
        role="student",
        network={
            "classes": outputs,
            "channels": student.channels,
            "strides": student.strides,
        },
        build=StudentUNet,
        settings=student.model_copy(update={"class_weights": weights}),
        grid=Grid(student.spacing, student.patch, tumor_only=False),
        segment=_segmenter(student),
        labels=NAMES[:outputs],
        label_ids=tuple(range(outputs)),
        inference={"step": student.step, "windows": student.windows},
        seed=settings.seed,
        config=dump(settings),
        initial=initial,
        missing=missing,
    )


def _segmenter(student: Student) -> Segment:
    """Labels of whole volumes, for validation: the windows of inference."""

    def segment(network: nn.Module, volume: Tensor) -> NDArray[np.uint8]:
        found = predict_logits(network, volume, student.patch, step=student.step)
        labels: NDArray[np.uint8] = found.logits.max(0).indices.to(torch.uint8).numpy()
        return labels

    return segment
