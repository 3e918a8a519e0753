"""What sets a training apart from the one whose files lie in its folder: told before they go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flarekd import plain_yaml
from flarekd.errors import InputError, listed
from flarekd.modelfile import read_card
from flarekd.training.checkpoint import latest
from flarekd.training.plan import Plan, Prepared

CONFIG = "config.yaml"
MODEL = "model.safetensors"
BEFORE = "model-before.safetensors"
"""The model of a training that was begun anew: other settings may have been a slip."""

NOT_LEARNED = {
    "checkpoint_minutes", "collapse_epoch", "compile", "epochs", "min_foreground", "min_ml",
    "on_unreadable", "probe", "step", "threshold", "validation", "volumes_every", "windows",
}  # fmt: skip
"""Settings that do not make another training of it: a run may go on when they change, though more
epochs must be asked for."""


def tell_anew(folder: Path, plan: Plan, prepared: Prepared) -> str:
    """A sentence about what a training that begins leaves unused, and why; empty of a new folder.

    Args:
        folder: Of the run, as the training before left it.
        plan: What is asked for now.
        prepared: On what.
    """
    unused = []
    if latest(folder).exists():
        unused.append(f"the checkpoint in {folder} is not used and goes")
    if (folder / MODEL).exists():
        unused.append(f"the model that is there is kept as {BEFORE}")
    if not unused:
        return ""
    others = _settings(folder, plan) + _data(folder / MODEL, plan, prepared)
    why = f" since {listed(others, between='; ')}" if others else ""
    return f"starting anew{why}: {', '.join(unused)}"


def _settings(folder: Path, plan: Plan) -> list[str]:
    """The settings of this training that are others now."""
    try:
        before = plain_yaml.read(folder / CONFIG)
    except (OSError, ValueError):
        return []
    now = dict(_learned(plain_yaml.parse(plan.config), plan.role))
    then = dict(_learned(before, plan.role))
    return [
        f"{key} is {now.get(key)} and was {then.get(key)}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key)
    ]


def _data(model: Path, plan: Plan, prepared: Prepared) -> list[str]:
    """What else is another, as far as the model before tells."""
    try:
        card = read_card(model)
    except InputError:
        return []
    others = []
    if card.trained_on != prepared.trained_on:
        others.append("the cases, their scans or their labels are others")
    if card.training.get("initial") != (plan.initial.sha256 if plan.initial else None):
        others.append("the model to start from (--init) is another")
    return others


def _learned(tree: Any, role: str) -> Iterator[tuple[str, Any]]:
    """Key and value of each setting that makes another training of it."""
    if not isinstance(tree, Mapping):
        return
    section = tree.get(role)
    if isinstance(section, Mapping):
        passed = NOT_LEARNED - {"epochs"}
        yield from _leaves(role, {k: v for k, v in section.items() if k not in passed})
    yield "seed", tree.get("seed")


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inner in value.items():
        yield from _leaves(f"{key}.{name}", inner)
