"""import-nnunet: a checkpoint and plans of nnU-Net v1 or v2 → a model file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError

from flarekd import console
from flarekd.card_parts import why_unusable
from flarekd.errors import InputError, UsageError
from flarekd.labels import NAMES, TUMOR
from flarekd.lock import alone_on_file
from flarekd.modelfile import ModelCard, Orientation, file_hash, save_model
from flarekd.nnunet.admitted import StoredTensor
from flarekd.nnunet.outputs import label_outputs
from flarekd.nnunet.plans import Plans, find_plans, read_plans
from flarekd.nnunet.unpickle import read_checkpoint
from flarekd.nnunet.weights import Converted, convert

INFERENCE: dict[str, dict[str, Any]] = {
    "student": {"step": 0.5, "windows": "full"},
    "teacher": {"probe": "top-left", "min_foreground": 1},
}
"""Windows of imported networks: nnU-Net's half steps, and the paper's first window."""


MOST_TENSORS, LONGEST_NAME = 5000, 200
"""Of weights: nnU-Net's largest have some hundreds, each there two or three times."""


@alone_on_file(console.warn)
def import_nnunet(
    checkpoint: Path,
    plans: Path | None,
    out: Path,
    *,
    labels: str | None,
    orientation: str | None,
) -> None:
    """Turn an nnU-Net checkpoint into a model file, without running anything in it.

    Args:
        checkpoint: ``checkpoint_final.pth`` of v2 or ``*.model`` of v1.
        plans: ``plans.json`` of v2, ``*.model.pkl`` or ``plans.pkl`` of v1; None looks where
            nnU-Net leaves them.
        out: Model file to write.
        labels: Names of the outputs beside the background, with commas between; None takes those
            of v2's dataset.json.
        orientation: Axes of the arrays it was trained on; None takes ``LPS``, or what nnU-Net
            itself turned them to.

    Raises:
        UsageError: If there is no such orientation, or another run writes `out`.
        InputError: If a file cannot be read or names what it has no need of, or the network is one
            that flarekd cannot run as nnU-Net does.
    """
    if orientation not in (None, *get_args(Orientation)):
        raise UsageError(
            f"no orientation is called {orientation!r}", f"use {', '.join(get_args(Orientation))}"
        )
    saved = read_checkpoint(checkpoint)
    state = _state(checkpoint, saved.content)
    converted = convert(state)
    facts = read_plans(plans or find_plans(checkpoint), saved.content)
    card = _card(checkpoint, converted, facts, _outputs(converted, facts, labels), orientation)
    weights = {ours: saved.tensor(state[theirs]) for ours, theirs in converted.names.items()}
    save_model(out, weights, card)
    _tell(out, card, state, converted)


def _card(
    checkpoint: Path,
    converted: Converted,
    facts: Plans,
    outputs: tuple[tuple[str, ...], tuple[int, ...]],
    orientation: str | None,
) -> ModelCard:
    """What the model file says of itself.

    Raises:
        InputError: If plans say what no model file may.
    """
    names, ids = outputs
    axes = orientation or facts.orientation or "LPS"
    known = facts.intensity
    try:
        return ModelCard(
            role=converted.role,
            network=converted.network,
            labels=names,
            label_ids=ids,
            spacing=facts.spacing,
            orientation=cast("Orientation", axes),
            patch=_patch(converted, facts),
            intensity=(known.lower, known.upper, known.mean, known.sd),
            clip_first=facts.clip_first,
            inference=INFERENCE[converted.role],
            training={"imported": checkpoint.name, "sha256": file_hash(checkpoint)},
        )
    except ValidationError as error:
        raise InputError(
            f"{str(checkpoint)!r} cannot become a model: {why_unusable(error)}",
            "look at its plans, and at --labels",
        ) from error


def _state(path: Path, content: Any) -> dict[str, StoredTensor]:
    """The network's tensors, without the prefix that wrappers leave."""
    known = isinstance(content, dict)
    state = known and (content.get("network_weights") or content.get("state_dict"))
    if not isinstance(state, dict) or not state:
        raise InputError(
            f"{str(path)!r} is no checkpoint of nnU-Net: it has neither 'network_weights' (v2) nor "
            "'state_dict' (v1)",
            "give checkpoint_final.pth or model_final_checkpoint.model",
        )
    if len(state) > MOST_TENSORS:
        raise InputError(f"{str(path)!r} holds {len(state):,} weights, more than any network has")
    stored: dict[str, StoredTensor] = {}
    for name, tensor in state.items():
        is_name = isinstance(name, str) and len(name) <= LONGEST_NAME
        if not is_name or not isinstance(tensor, StoredTensor):
            shown = repr(name[:LONGEST_NAME]) if isinstance(name, str) else type(name).__name__
            raise InputError(f"{str(path)!r} holds {shown} among the weights, which is no tensor")
        stored[name.removeprefix("module.").removeprefix("_orig_mod.")] = tensor
    return stored


def _outputs(
    converted: Converted, facts: Plans, labels: str | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    given = (NAMES[0], *map(str.strip, labels.split(","))) if labels else facts.names
    classes = int(converted.network["classes"])
    try:
        names, ids = label_outputs(given, classes)
    except ValueError as error:
        raise InputError(
            f"the outputs cannot be named: {error}", f"give --labels with {classes - 1} names"
        ) from error
    if converted.role == "teacher" and ids != (0, TUMOR):
        raise InputError(
            f"a 2D network is a teacher here, which finds tumours; its output is {names[1]!r}",
            "say so with --labels tumor if that is what it finds",
        )
    return names, ids


def _patch(converted: Converted, facts: Plans) -> tuple[int, int, int]:
    """The planned patch, once it is known to fit the network."""
    network = converted.build()
    divisor: Any = network.divisor
    by = divisor if converted.role == "student" else (1, divisor, divisor)
    is_2d = facts.patch[0] == 1 and facts.spacing[0] == 0
    if is_2d != (converted.role == "teacher") or any(
        size % step for size, step in zip(facts.patch, by, strict=True)
    ):
        raise InputError(
            f"plans and weights do not belong together: patch {facts.patch} for a network that "
            f"divides (z, y, x) by {by}",
            "give the plans that the checkpoint was trained with",
        )
    return facts.patch


def _tell(out: Path, card: ModelCard, state: dict[str, StoredTensor], converted: Converted) -> None:
    parameters = sum(math.prod(w.shape) for w in converted.build().parameters())
    console.info(
        f"{out}: {card.role} of {parameters:,} parameters, patch {card.patch} at "
        f"{card.spacing} mm (z, y, x), axes {card.orientation}"
    )
    pairs = (f"{label} {name}" for label, name in card.names.items())
    console.info("labels: " + ", ".join(pairs))
    if not set(card.labels) <= set(NAMES):
        console.warn("some labels are not flarekd's classes: names and ids are as it was trained")
    if converted.dropped:
        count = sum(math.prod(state[name].shape) for name in converted.dropped)
        console.info(
            f"left out {len(converted.dropped)} tensors of {count:,} numbers that never run, from "
            f"{converted.dropped[0]!r} to {converted.dropped[-1]!r}"
        )
