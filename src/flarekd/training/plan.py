"""What distinguishes one training from another, and where it happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.modelfile import ModelCard
from flarekd.protocol import Training
from flarekd.training.fingerprint import Fingerprint
from flarekd.training.initial import Initial
from flarekd.training.prepare import Grid
from flarekd.training.ranks import Ranks
from flarekd.training.screen import Screen
from flarekd.training.validation import Segment


@dataclass(frozen=True)
class Plan:
    """What distinguishes one training from another.

    Attributes:
        role: ``teacher`` or ``student``.
        network: Arguments `build` takes, kept in the model file.
        build: Makes the network.
        settings: The section of the configuration.
        grid: What the store holds.
        segment: How a network labels a whole volume, for validation.
        labels: Output names, background first.
        label_ids: Id of each output.
        inference: Settings of its windows, kept in the model file.
        seed: Of the run.
        config: The resolved configuration as YAML, for the run folder.
        missing: Cases that should have been sources and why they are not; named at the end.
        initial: A model to start from.
    """

    role: Literal["teacher", "student"]
    network: dict[str, Any]
    build: Callable[..., nn.Module]
    settings: Training
    grid: Grid
    segment: Segment
    labels: tuple[str, ...]
    label_ids: tuple[int, ...]
    inference: dict[str, Any]
    seed: int
    config: str
    missing: Mapping[str, str] = field(default_factory=dict)
    initial: Initial | None = None

    def card(
        self,
        statistics: IntensityStatistics,
        fingerprint: Fingerprint,
        summary: dict[str, Any],
        trained_on: str,
    ) -> ModelCard:
        """What the model file says of itself.

        Args:
            statistics: What normalised the scans.
            fingerprint: Of the cohort.
            summary: Of the training.
            trained_on: Hash of the store.
        """
        return ModelCard(
            role=self.role,
            network=self.network,
            labels=self.labels,
            label_ids=self.label_ids,
            spacing=self.grid.spacing,
            patch=self.settings.patch,
            intensity=(statistics.lower, statistics.upper, statistics.mean, statistics.sd),
            inference=self.inference,
            fingerprint=fingerprint.model_dump(mode="json"),
            training=summary,
            trained_on=trained_on,
        )


@dataclass(frozen=True)
class Place:
    """Where a training happens and who hears of it.

    Attributes:
        folder: Run folder.
        device: Of this process.
        ranks: This process among those that train together.
        screen: Where to speak.
        draw: Draws log records as a picture.
        tensorboard: Whether event files are written too.
    """

    folder: Path
    device: torch.device
    ranks: Ranks
    screen: Screen
    draw: Callable[[list[dict[str, Any]], Path], None]
    tensorboard: bool


@dataclass(frozen=True)
class Prepared:
    """What a training starts from.

    Attributes:
        cases: Of the store.
        failed: Case to why it could not be stored.
        identity: Hash of settings and data.
        trained_on: Hash of the store.
        annotated: Case to the classes its labels vouch for; empty where labels are complete.
    """

    cases: Sequence[StoredCase]
    failed: dict[str, str]
    identity: str
    trained_on: str
    annotated: Mapping[str, frozenset[int]] = field(default_factory=dict)
