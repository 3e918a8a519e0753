"""One training from cohort to model file.

Store, statistics, loop, validation, curves. Teacher and student differ in a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.atomic import write_text
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase, open_case
from flarekd.ledger import stamp
from flarekd.modelfile import ModelCard, read_card, read_weights, save_model
from flarekd.parallel import cpu_count
from flarekd.protocol import Training
from flarekd.training import checkpoint
from flarekd.training.batches import Batches
from flarekd.training.loop import LOG, Trainer, read_log
from flarekd.training.prepare import Grid, Source, intensity_statistics, prepare, store_hash
from flarekd.training.ranks import Ranks, joined
from flarekd.training.resume import Resume, continues
from flarekd.training.screen import Screen, Silence
from flarekd.training.track import events
from flarekd.training.validation import Segment, Validation, is_best, mean, split, still

MODEL = "model.safetensors"
BEST = "model-best.safetensors"
NOT_LEARNED = {
    "epochs", "compile", "validation", "volumes_every", "collapse_epoch", "checkpoint_minutes",
    "step", "windows", "probe", "min_foreground",
}  # fmt: skip
"""Settings that do not make another training of it: a run may go on when they change, though more
epochs must be asked for."""
VALIDATION_SEED = 1
"""Added to the run's seed for validation batches: they are others than those trained on."""


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


@dataclass(frozen=True)
class _Place:
    """Where a training happens and who hears of it."""

    folder: Path
    device: torch.device
    ranks: Ranks
    screen: Screen
    draw: Callable[[list[dict[str, Any]], Path], None]
    tensorboard: bool


@dataclass(frozen=True)
class _Prepared:
    """What a training starts from."""

    cases: Sequence[StoredCase]
    failed: dict[str, str]
    identity: str
    trained_on: str


def run(
    plan: Plan,
    sources: Sequence[Source],
    folder: Path,
    device: torch.device,
    *,
    resume: Resume,
    screen: Screen,
    draw: Callable[[list[dict[str, Any]], Path], None],
    tensorboard: bool = False,
) -> Path:
    """Train and write the model file, or find that it is written already.

    Started by torchrun it is one of several ranks: the first makes the store, speaks and writes.

    Args:
        plan: What to train.
        sources: On what.
        folder: Run folder: config.yaml, store/, log.jsonl, curves.png, checkpoints and models.
        device: Where.
        resume: Whether a checkpoint is passed over, demanded, used where there is a fitting one, or
            demanded and allowed to go on for more epochs than it was begun with.
        screen: Where to speak.
        draw: Draws log records as a picture.
        tensorboard: Whether event files are written too.

    Returns:
        The model file.

    Raises:
        InputError: If there is nothing to train on, or no fitting checkpoint to continue.
        CasesFailedError: After training, if some cases could not be used.
    """
    if not sources:
        raise InputError(f"no case to train the {plan.role} on", "look at cohort.csv")
    with joined(device) as (ranks, own):
        speaks = screen if ranks.is_first else Silence()
        place = _Place(folder, own, ranks, speaks, draw, tensorboard)
        prepared = _prepare(plan, sources, place)
        if _is_done(folder / MODEL, prepared.identity, plan.settings):
            if ranks.is_first:
                _update_inference(folder / MODEL, plan.inference)
            speaks.info(f"{folder / MODEL} is up to date")
        else:
            _train(plan, prepared, place, resume)
        ranks.wait()
    failed = {**plan.missing, **prepared.failed}
    if failed:
        names = "; ".join(f"{case}: {reason}" for case, reason in failed.items())
        raise CasesFailedError(f"{len(failed)} cases were left out of training: {names}")
    return folder / MODEL


def _prepare(plan: Plan, sources: Sequence[Source], place: _Place) -> _Prepared:
    """The store, made by the first rank and opened by all."""
    store = place.folder / "store"
    failed: dict[str, str] | None = None
    if place.ranks.is_first:
        place.folder.mkdir(parents=True, exist_ok=True)
        place.screen.info(f"{plan.role}: {len(sources)} cases to train on")
        with place.screen.progress("Training store") as advance:
            _, failed = prepare(sources, store, plan.grid, cpu_count(), advance)
    failed = place.ranks.share(failed)
    cases = [open_case(store / f"{s.case}.b2nd") for s in sources if s.case not in failed]
    if not cases:
        case, reason = next(iter(failed.items()))
        raise InputError(f"no case could be read; the first: {case}: {reason}")
    trained_on = store_hash(cases)
    facts = plan.settings.model_dump(mode="json", exclude=NOT_LEARNED)
    parts = [plan.role, plan.network, facts, plan.seed, trained_on]
    if place.ranks.size > 1:
        parts.append(place.ranks.size)  # other ranks draw other batches
    return _Prepared(cases, failed, stamp(*parts), trained_on)


def _train(plan: Plan, prepared: _Prepared, place: _Place, resume: Resume) -> None:
    folder, settings, first = place.folder, plan.settings, place.ranks.is_first
    goes_on = place.ranks.share(
        continues(folder, settings, prepared.identity, resume, place.screen) if first else None
    )
    if first:
        # now, not earlier or later: a model of other settings must not stand beside the new config
        (folder / MODEL).unlink(missing_ok=True)
        write_text(folder / "config.yaml", plan.config)
    training, held_out = (
        [prepared.cases[i] for i in indices]
        for indices in split([case.case for case in prepared.cases], settings.fold)
    )
    statistics = intensity_statistics(training, settings.window)
    torch.manual_seed(plan.seed)
    network = plan.build(**plan.network).to(place.device)
    trainer = Trainer(
        network,
        settings,
        folder,
        plan.seed,
        prepared.identity,
        place.device,
        place.ranks,
        place.screen.warn,
    )
    if goes_on:
        trainer.resume()
        place.screen.info(f"continuing at iteration {trainer.iteration} of {trainer.total}")
    elif first:
        checkpoint.remove(folder)
        (folder / BEST).unlink(missing_ok=True)
        write_text(folder / LOG, "")
    place.ranks.wait()
    judge = _validation(plan, statistics, held_out, place)

    def write(path: Path, weights: dict[str, Tensor], **facts: Any) -> None:
        summary = {
            "identity": prepared.identity,
            "cases": len(training),
            "iterations": trainer.iteration,
        }
        card = _card(plan, statistics, summary | facts, prepared.trained_on)
        save_model(path, weights, card)

    with (
        place.screen.progress(f"Training the {plan.role}") as advance,
        events(folder / "tensorboard", place.tensorboard and first, trainer.iteration) as track,
    ):

        def on_epoch(record: dict[str, Any]) -> None:
            track(record)
            value = mean(record.get("validation_dsc", ()))
            if settings.fold != "all" and value is not None and is_best(trainer.facts, value):
                # of the judged network: for the averaged weights where there are some
                weights = trainer.average or trainer.network.state_dict()
                if first:
                    write(folder / BEST, weights, validation_dsc=record["validation_dsc"])
            if first and (trainer.iteration == trainer.total or _is_round(trainer)):
                place.draw(read_log(folder / LOG), folder / "curves.png")

        batches = Batches(training, settings, statistics, plan.seed, ranks=place.ranks)
        weights = trainer.train(batches, advance, on_epoch, judge)
    if first:
        records = read_log(folder / LOG)
        # no times: the same training gives the same file, byte for byte
        kept = ("loss", "dsc", "validation_dsc", "volumes_dsc")
        last = {key: records[-1][key] for key in kept if key in records[-1]} if records else {}
        write(folder / MODEL, weights, **last)


def _validation(
    plan: Plan, statistics: IntensityStatistics, held_out: Sequence[StoredCase], place: _Place
) -> Validation | None:
    """What judges the network after each epoch, where the settings ask for it."""
    settings = plan.settings
    if not held_out or not (settings.validation or settings.volumes_every):
        return None
    batches = Batches(held_out, still(settings), statistics, plan.seed + VALIDATION_SEED)
    return Validation(
        batches, held_out, statistics, plan.segment, settings, len(plan.labels), place.ranks
    )


def _is_round(trainer: Trainer) -> bool:
    """Whether this epoch ends a twentieth of the run: often enough for a picture."""
    epoch = trainer.iteration // trainer.settings.iterations
    return epoch % max(1, trainer.settings.epochs // 20) == 0


def _is_done(model: Path, identity: str, settings: Training) -> bool:
    if not model.exists():
        return False
    try:
        training = read_card(model).training
    except InputError:
        return False
    iterations = settings.epochs * settings.iterations
    return bool(training.get("identity") == identity and training.get("iterations") == iterations)


def _update_inference(model: Path, inference: dict[str, Any]) -> None:
    """Give a model file other settings of its windows; its weights stay."""
    card = read_card(model)
    if card.inference != inference:
        save_model(model, read_weights(model), card.model_copy(update={"inference": inference}))


def _card(
    plan: Plan, statistics: IntensityStatistics, summary: dict[str, Any], trained_on: str
) -> ModelCard:
    return ModelCard(
        role=plan.role,
        network=plan.network,
        labels=plan.labels,
        label_ids=plan.label_ids,
        spacing=plan.grid.spacing,
        patch=plan.settings.patch,
        intensity=(statistics.lower, statistics.upper, statistics.mean, statistics.sd),
        inference=plan.inference,
        training=summary,
        trained_on=trained_on,
    )
