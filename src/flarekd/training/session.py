"""One training from cohort to model file.

Store, statistics, loop, curves. Teacher and student differ in a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.atomic import write_text
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.ledger import stamp
from flarekd.modelfile import ModelCard, read_card, read_weights, save_model
from flarekd.parallel import cpu_count
from flarekd.protocol import Training
from flarekd.training import checkpoint
from flarekd.training.batches import Batches
from flarekd.training.loop import CHECKPOINT, LOG, Trainer, read_log
from flarekd.training.prepare import Grid, Source, intensity_statistics, prepare, store_hash

Advance = Callable[[int, int, str], None]
Resume = Literal["never", "must", "may"]
MODEL = "model.safetensors"
NOT_LEARNED = {"checkpoint_minutes", "step", "windows", "probe", "min_foreground"}
"""Settings that the weights do not depend on: changing one trains nothing anew."""


class Screen(Protocol):
    """What a session needs to speak; `flarekd.console` is one."""

    def progress(self, title: str) -> AbstractContextManager[Advance]:
        """Show progress."""

    def info(self, text: str) -> None:
        """Say something."""

    def warn(self, text: str) -> None:
        """Say something to look at."""


@dataclass(frozen=True)
class Plan:
    """What distinguishes one training from another.

    Attributes:
        role: ``teacher`` or ``student``.
        network: Arguments `build` takes, kept in the model file.
        build: Makes the network.
        settings: The section of the configuration.
        grid: What the store holds.
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
    labels: tuple[str, ...]
    label_ids: tuple[int, ...]
    inference: dict[str, Any]
    seed: int
    config: str
    missing: Mapping[str, str] = field(default_factory=dict)


def run(
    plan: Plan,
    sources: Sequence[Source],
    folder: Path,
    device: torch.device,
    *,
    resume: Resume,
    screen: Screen,
    draw: Callable[[list[dict[str, Any]], Path], None],
) -> Path:
    """Train and write the model file, or find that it is written already.

    Args:
        plan: What to train.
        sources: On what.
        folder: Run folder: config.yaml, store/, log.jsonl, curves.png, checkpoint and model.
        device: Where.
        resume: Whether a checkpoint is passed over, demanded, or used where there is a fitting one.
        screen: Where to speak.
        draw: Draws log records as a picture.

    Returns:
        The model file.

    Raises:
        InputError: If there is nothing to train on, or no fitting checkpoint to continue.
        CasesFailedError: After training, if some cases could not be used.
    """
    if not sources:
        raise InputError(f"no case to train the {plan.role} on", "look at cohort.csv")
    folder.mkdir(parents=True, exist_ok=True)
    with screen.progress("Training store") as advance:
        cases, failed = prepare(sources, folder / "store", plan.grid, cpu_count(), advance)
    if not cases:
        first = next(iter(failed.items()))
        raise InputError(f"no case could be read; the first: {first[0]}: {first[1]}")
    trained_on = store_hash(cases)
    facts = plan.settings.model_dump(mode="json", exclude=NOT_LEARNED)
    identity = stamp(plan.role, plan.network, facts, plan.seed, trained_on)
    model = folder / MODEL
    if _is_done(model, identity):
        _update_inference(model, plan.inference)
        screen.info(f"{model} is up to date")
    else:
        prepared = _Prepared(cases, identity, trained_on)
        _train(plan, prepared, folder, device, resume=resume, screen=screen, draw=draw)
    failed = {**plan.missing, **failed}
    if failed:
        names = "; ".join(f"{case}: {reason}" for case, reason in failed.items())
        raise CasesFailedError(f"{len(failed)} cases were left out of training: {names}")
    return model


@dataclass(frozen=True)
class _Prepared:
    """What a training starts from."""

    cases: Sequence[StoredCase]
    identity: str
    trained_on: str


def _train(
    plan: Plan,
    prepared: _Prepared,
    folder: Path,
    device: torch.device,
    *,
    resume: Resume,
    screen: Screen,
    draw: Callable[[list[dict[str, Any]], Path], None],
) -> None:
    model = folder / MODEL
    continues = _continues(folder, prepared.identity, resume, screen)
    # now, not earlier or later: a model of other settings must not stand beside the new config
    model.unlink(missing_ok=True)
    write_text(folder / "config.yaml", plan.config)
    statistics = intensity_statistics(prepared.cases, plan.settings.window)
    torch.manual_seed(plan.seed)
    network = plan.build(**plan.network).to(device)
    trainer = Trainer(network, plan.settings, folder, plan.seed, prepared.identity, device)
    if continues:
        trainer.resume()
        screen.info(f"continuing at iteration {trainer.iteration} of {trainer.total}")
    else:
        (folder / CHECKPOINT).unlink(missing_ok=True)
        write_text(folder / LOG, "")
    batches = Batches(prepared.cases, plan.settings, statistics, plan.seed, device)

    def on_epoch() -> None:
        if trainer.iteration == trainer.total or _is_round(trainer):
            draw(read_log(folder / LOG), folder / "curves.png")

    with screen.progress(f"Training the {plan.role}") as advance:
        weights = trainer.train(batches, advance, on_epoch)
    records = read_log(folder / LOG)
    summary = {
        "identity": prepared.identity,
        "cases": len(prepared.cases),
        "iterations": trainer.total,
    }
    # no times: the same training gives the same file, byte for byte
    summary |= {key: records[-1][key] for key in ("loss", "dsc")} if records else {}
    save_model(model, weights, _card(plan, statistics, summary, prepared.trained_on))


def _is_round(trainer: Trainer) -> bool:
    """Whether this epoch ends a twentieth of the run: often enough for a picture."""
    epoch = trainer.iteration // trainer.settings.iterations
    return epoch % max(1, trainer.settings.epochs // 20) == 0


def _is_done(model: Path, identity: str) -> bool:
    if not model.exists():
        return False
    try:
        return read_card(model).training.get("identity") == identity
    except InputError:
        return False


def _update_inference(model: Path, inference: dict[str, Any]) -> None:
    """Give a model file other settings of its windows; its weights stay."""
    card = read_card(model)
    if card.inference != inference:
        save_model(model, read_weights(model), card.model_copy(update={"inference": inference}))


def _continues(folder: Path, identity: str, resume: Resume, screen: Screen) -> bool:
    """Whether the folder's checkpoint is to be continued; refuses what cannot be."""
    path = folder / CHECKPOINT
    if resume == "must" and not path.exists():
        raise InputError(f"no checkpoint in {str(folder)!r}", "train without --resume")
    if not path.exists():
        return False
    if resume != "never":
        if checkpoint.read_facts(path)["identity"] == identity:
            return True
        if resume == "must":
            raise InputError(
                f"{str(path)!r} comes from other settings or other data",
                "give those it was started with, or train anew without --resume",
            )
    screen.warn(f"starting anew: the checkpoint in {folder} is not used")
    return False


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
