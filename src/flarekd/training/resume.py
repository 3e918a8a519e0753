"""Whether a training goes on from the checkpoint in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flarekd.errors import InputError
from flarekd.protocol import Training
from flarekd.training import checkpoint
from flarekd.training.screen import Screen

Resume = Literal["never", "must", "may", "extend"]


def continues(
    folder: Path, settings: Training, identity: str, resume: Resume, screen: Screen
) -> bool:
    """Whether a run folder's checkpoint is to be continued.

    Args:
        folder: Of the run.
        settings: What is asked for now.
        identity: Hash of settings and data now.
        resume: ``never`` passes a checkpoint over, ``must`` demands a fitting one, ``may`` uses
            one where it fits, ``extend`` demands one and goes on for more epochs than it was begun
            with.
        screen: Hears of a checkpoint that is damaged.

    Raises:
        InputError: If one is demanded and there is none, or it does not fit.
    """
    path = checkpoint.latest(folder)
    demanded = resume in ("must", "extend")
    if demanded and not path.exists():
        raise InputError(f"no checkpoint in {str(folder)!r}", "train without --resume")
    if not path.exists():
        return False
    if resume != "never":
        refusal = _refusal(path, settings, identity, resume)
        if refusal is None:
            if path.name == checkpoint.PREVIOUS:
                screen.warn(f"the last checkpoint is damaged; taking {path}")
            return True
        if demanded:
            raise refusal
    return False


def _refusal(path: Path, settings: Training, identity: str, resume: Resume) -> InputError | None:
    """Why a checkpoint is not to be continued, or None where it is."""
    facts = checkpoint.read_facts(path)
    begun, wanted = facts["epochs"], settings.epochs
    if facts["identity"] != identity:
        return InputError(
            f"{str(path)!r} comes from other settings or other data",
            "give those it was started with, or train anew without --resume",
        )
    if resume == "extend" and facts["iteration"] > wanted * settings.iterations:
        done = facts["iteration"] // settings.iterations
        return InputError(
            f"{str(path)!r} has {done} epochs behind it, {wanted} are asked for", "ask for more"
        )
    if resume != "extend" and begun != wanted:
        return InputError(
            f"{str(path)!r} was begun for {begun} epochs, not {wanted}",
            f"give --extend to go on to {wanted}, or the number it was begun with",
        )
    return None
