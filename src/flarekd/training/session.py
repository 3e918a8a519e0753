"""One training from cohort to model file: made, found done, continued or refused.

Teacher and student differ in a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from flarekd.errors import CasesFailedError, InputError, counted
from flarekd.imaging.store import open_case
from flarekd.ledger import stamp
from flarekd.modelfile import read_card, read_weights, save_model
from flarekd.parallel import cpu_count
from flarekd.protocol import Training
from flarekd.training.anew import MODEL, NOT_LEARNED
from flarekd.training.course import train
from flarekd.training.plan import Place, Plan, Prepared
from flarekd.training.prepare import Source, prepare, store_hash
from flarekd.training.ranks import holding, joined
from flarekd.training.resume import Resume
from flarekd.training.screen import Screen, Silence


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
        UsageError: If another run writes to the folder.
        CasesFailedError: After training, if some cases could not be used.
    """
    if not sources:
        raise InputError(f"no case to train the {plan.role} on", "look at cohort.csv")
    with joined(device) as (ranks, own), holding(folder, ranks, screen.warn):
        speaks = screen if ranks.is_first else Silence()
        place = Place(folder, own, ranks, speaks, draw, tensorboard)
        prepared = _prepare(plan, sources, place)
        skipped: Mapping[str, int] = {}
        if _is_done(folder / MODEL, prepared.identity, plan.settings):
            if ranks.is_first:
                _update_inference(folder / MODEL, plan.inference)
            speaks.info(f"{folder / MODEL} is up to date")
        else:
            skipped = train(plan, prepared, place, resume)
        ranks.wait()
    failed = {**plan.missing, **prepared.failed}
    failed |= {
        case: f"could not be read while training, {count} samples came from other cases"
        for case, count in skipped.items()
    }
    if failed:
        names = "; ".join(f"{case}: {reason}" for case, reason in failed.items())
        raise CasesFailedError(f"{counted(failed, 'case')} left out of training: {names}")
    return folder / MODEL


def _prepare(plan: Plan, sources: Sequence[Source], place: Place) -> Prepared:
    """The store, made by the first rank and opened by all."""
    store = place.folder / "store"
    failed: dict[str, str] | None = None
    if place.ranks.is_first:
        place.folder.mkdir(parents=True, exist_ok=True)
        place.screen.info(f"{plan.role}: {counted(sources, 'case')} to train on")
        with place.screen.progress("Training store") as advance:
            say = place.screen.info
            _, failed = prepare(sources, store, plan.grid, cpu_count(), advance, say=say)
    failed = place.ranks.share(failed)
    cases = [open_case(store / f"{s.case}.b2nd") for s in sources if s.case not in failed]
    if not cases:
        case, reason = next(iter(failed.items()))
        raise InputError(f"no case could be read; the first: {case}: {reason}")
    trained_on = store_hash(cases)
    facts = plan.settings.model_dump(mode="json", exclude=NOT_LEARNED)
    parts = [plan.role, plan.network, facts, plan.seed, trained_on]
    parts += [plan.initial.sha256] if plan.initial else []
    known = {s.case: s.annotated for s in sources if s.annotated is not None}
    annotated = {case.case: known[case.case] for case in cases if case.case in known}
    # an organ that is annotated and not there leaves no trace in the store
    parts += [{case: sorted(ids) for case, ids in annotated.items()}] if annotated else []
    if place.ranks.size > 1:
        parts.append(place.ranks.size)  # other ranks draw other batches
    return Prepared(cases, failed, stamp(*parts), trained_on, annotated)


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
