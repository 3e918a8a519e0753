"""The course of one training: split, loop, validation, best and last model, curves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flarekd.imaging.atomic import write_text
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.modelfile import save_model
from flarekd.training import checkpoint
from flarekd.training.anew import BEFORE, CONFIG, MODEL, tell_anew
from flarekd.training.batches import Batches
from flarekd.training.fingerprint import Fingerprint, intensity_statistics, take_fingerprint
from flarekd.training.initial import Initial, start_from
from flarekd.training.log import LOG, read_log
from flarekd.training.loop import Trainer
from flarekd.training.marginal import masks
from flarekd.training.plan import Place, Plan, Prepared
from flarekd.training.resume import Resume, continues
from flarekd.training.track import events
from flarekd.training.validation import Validation, is_best, mean, split, still

BEST = "model-best.safetensors"
PICTURE_S = 60
"""Seconds from one picture of the curves to the next: drawing one takes half a second."""

VALIDATION_SEED = 1
"""Added to the run's seed for validation batches: they are others than those trained on."""


def train(plan: Plan, prepared: Prepared, place: Place, resume: Resume) -> Mapping[str, int]:
    """Train and write the model file.

    Args:
        plan: What to train.
        prepared: On what.
        place: Where.
        resume: What to do with a checkpoint.

    Returns:
        Cases that could not be read while training, and how many samples they missed.
    """
    settings, first = plan.settings, place.ranks.is_first
    goes_on = place.ranks.share(
        continues(place.folder, settings, prepared.identity, resume, place.screen)
        if first
        else None
    )
    training, held_out = (
        [prepared.cases[i] for i in indices]
        for indices in split([case.case for case in prepared.cases], settings.fold)
    )
    network = _network(plan, None if goes_on else plan.initial, place)
    trainer = Trainer(
        network, settings, place.folder, plan.seed, prepared.identity, place.device,
        place.ranks, place.screen.warn, any(case.ignored for case in prepared.cases),
    )  # fmt: skip
    # before training: afterwards a case may be gone
    statistics = intensity_statistics(training, settings.window)
    course = _Course(plan, prepared, place, trainer, statistics, take_fingerprint(training))
    _begin(course, goes_on)
    known = masks(prepared.annotated, [case.case for case in training], len(plan.labels))
    batches = Batches(training, settings, statistics, plan.seed, place.ranks, place.device, known)
    weights = _run(course, batches, _validation(course, held_out, known))
    if first:
        records = read_log(place.folder / LOG)
        # no times: the same training gives the same file, byte for byte
        kept = ("loss", "dsc", "validation_dsc", "volumes_dsc")
        last = {key: records[-1][key] for key in kept if key in records[-1]} if records else {}
        course.write(MODEL, weights, last)
    return batches.skipped


@dataclass(frozen=True)
class _Course:
    """A training under way."""

    plan: Plan
    prepared: Prepared
    place: Place
    trainer: Trainer
    statistics: IntensityStatistics
    fingerprint: Fingerprint

    def write(self, name: str, weights: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Write a model file into the run folder."""
        summary = {
            "identity": self.prepared.identity,
            "cases": self.fingerprint.cases,
            "iterations": self.trainer.iteration,
            **facts,
        }
        if self.plan.initial:
            summary["initial"] = self.plan.initial.sha256
        card = self.plan.card(self.statistics, self.fingerprint, summary, self.prepared.trained_on)
        save_model(self.place.folder / name, weights, card)


def _network(plan: Plan, initial: Initial | None, place: Place) -> nn.Module:
    torch.manual_seed(plan.seed)
    network = plan.build(**plan.network)
    for sentence in start_from(initial, network) if initial else ():
        place.screen.info(sentence)
    return network.to(place.device)


def _begin(course: _Course, goes_on: bool) -> None:
    """Make the run folder ready: for the first iteration, or for the one that comes next."""
    folder, trainer, ranks = course.place.folder, course.trainer, course.place.ranks
    if ranks.is_first:
        told = "" if goes_on else tell_anew(folder, course.plan, course.prepared)
        if told:
            course.place.screen.warn(told)
        # now, not earlier or later: a model of other settings must not stand beside the new config
        if goes_on:
            (folder / MODEL).unlink(missing_ok=True)
        elif (folder / MODEL).exists():
            (folder / MODEL).replace(folder / BEFORE)
        write_text(folder / CONFIG, course.plan.config)
    if goes_on:
        trainer.resume()
        done = f"continuing at iteration {trainer.iteration} of {trainer.total}"
        course.place.screen.info(done)
    elif ranks.is_first:
        checkpoint.remove(folder)
        (folder / BEST).unlink(missing_ok=True)
        write_text(folder / LOG, "")
    ranks.wait()


def _run(course: _Course, batches: Batches, judge: Validation | None) -> dict[str, Tensor]:
    """The loop, and what happens after each epoch; returns the weights to keep."""
    place, trainer, settings = course.place, course.trainer, course.plan.settings
    folder, first = place.folder, place.ranks.is_first
    wanted = place.tensorboard and first
    with (
        place.screen.progress(f"Training the {course.plan.role}") as advance,
        events(folder / "tensorboard", wanted, trainer.iteration) as track,
    ):
        drawn = -math.inf

        def on_epoch(record: dict[str, Any]) -> None:
            nonlocal drawn
            track(record)
            value = mean(record.get("validation_dsc", ()))
            judged = settings.fold != "all" and value is not None
            if judged and is_best(trainer.facts, value or 0.0) and first:
                weights = trainer.average or trainer.network.state_dict()
                course.write(BEST, weights, {"validation_dsc": record["validation_dsc"]})
            is_due = trainer.iteration == trainer.total or time.monotonic() - drawn > PICTURE_S
            if first and is_due:
                place.draw(read_log(folder / LOG), folder / "curves.png")
                drawn = time.monotonic()

        return trainer.train(batches, advance, on_epoch, judge, batches.skipped)


def _validation(
    course: _Course, held_out: Sequence[StoredCase], known: Mapping[str, Tensor]
) -> Validation | None:
    """What judges the network after each epoch, where the settings ask for it."""
    plan, settings = course.plan, course.plan.settings
    if not held_out or not (settings.validation or settings.volumes_every):
        return None
    seed = plan.seed + VALIDATION_SEED
    batches = Batches(
        held_out,
        still(settings),
        course.statistics,
        seed,
        device=course.place.device,
        annotated=known,
    )
    return Validation(
        batches, held_out, course.statistics, plan.segment, settings, len(plan.labels),
        course.place.ranks,
    )  # fmt: skip
