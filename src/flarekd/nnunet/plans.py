"""What nnU-Net's plans say of the arrays a network expects: spacing, patch, intensity, names.

Whatever flarekd would do differently from nnU-Net is refused here with its reason, so that an
imported network never sees anything else than it was trained on. The structure of the network is
not read from the plans but from its weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.card_parts import MOST_SHOWN
from flarekd.errors import InputError, said
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.modelfile import Orientation
from flarekd.nnunet.unpickle import read_pickle

OTHER_BLOCKS = re.compile(r"relu|mish|gelu|_gn\b|_gn_|frn", re.IGNORECASE)
"""Trainers that change activation or norm without leaving a trace in weights or plans."""


@dataclass(frozen=True)
class Plans:
    """What the network expects.

    Attributes:
        spacing: Millimetres (z, y, x); z is 0 for a 2D network, whose slices keep their own.
        patch: Voxels (z, y, x); z is 1 for a 2D network.
        intensity: Clip limits, mean and standard deviation in HU.
        names: Name of each output, background first; empty where nothing says.
        orientation: Axes of its arrays where nnU-Net reoriented them itself, else None.
        clip_first: Whether scans are clipped before they are resampled (v2) and not after it (v1).
    """

    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    intensity: IntensityStatistics
    names: tuple[str, ...] = ()
    orientation: Orientation | None = None
    clip_first: bool = False


MOST_PARENTS = 16
"""Configurations that inherit from one another."""


def find_plans(checkpoint: Path) -> Path:
    """The plans that lie where nnU-Net leaves them: beside a checkpoint, or one folder up.

    Raises:
        InputError: If there are none.
    """
    folder = checkpoint.parent
    beside = (checkpoint.with_name(checkpoint.name + ".pkl"),)
    for path in (*beside, *(f / n for f in (folder, folder.parent) for n in _NAMES)):
        if path.exists():
            return path
    raise InputError(
        f"no plans beside {str(checkpoint)!r}", "give --plans: plans.json, plans.pkl or *.model.pkl"
    )


_NAMES = ("plans.json", "plans.pkl")


def read_plans(path: Path, content: Mapping[str, Any]) -> Plans:
    """Read the plans of a checkpoint.

    Args:
        path: plans.json of v2; plans.pkl or ``*.model.pkl`` of v1.
        content: What else lies in the checkpoint: v2 says there which configuration it is.

    Raises:
        InputError: If the file cannot be read, something is missing in it, or the network needs
            what flarekd does not do.
    """
    try:
        if "network_weights" in content:
            return _read_v2(_read_json(path), content)
        return _read_v1(read_pickle(path))
    except _Unfit as error:
        what = f"{str(path)!r}: {str(error)[:MOST_SHOWN]}"
        raise InputError(what, "it cannot be imported") from error
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise InputError(
            f"{str(path)!r} is no plans file for this checkpoint: {repr(error)[:MOST_SHOWN]}",
            "give the plans that the checkpoint was trained with",
        ) from error


class _Unfit(Exception):  # noqa: N818 (it says what a network is, not that something failed)
    """The network needs what flarekd does not do."""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plans: dict[str, Any] = plain_json.read(path, plain_json.MOST_OF_OTHERS)
        return plans
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read: {said(error)}", "give plans.json"
        ) from error


def _read_v2(plans: dict[str, Any], content: Mapping[str, Any]) -> Plans:
    said = content["init_args"]
    configurations = plans["configurations"]
    name = said["configuration"]
    settings = _inherited(configurations, name)
    if settings.get("previous_stage"):
        raise _Unfit(f"configuration {name!r} is the second stage of a cascade")
    _check_trainer(content["trainer_name"])
    _check_blocks(settings)
    _check_transpose(plans["transpose_forward"])
    _check_resampling(settings.get("resampling_fn_data", ""))
    schemes = settings["normalization_schemes"]
    _check_schemes([str(scheme).removesuffix("Normalization") for scheme in schemes])
    found = plans["foreground_intensity_properties_per_channel"]["0"]
    spacing, patch = settings["spacing"], settings["patch_size"]
    reader = str(plans.get("image_reader_writer", ""))
    return Plans(
        spacing=_zyx(spacing, 0.0, len(patch)),
        patch=_zyx(patch, 1, len(patch)),
        intensity=_statistics(found, "std"),
        names=_names(said["dataset_json"]["labels"]),
        orientation="RAS" if reader == "NibabelIOWithReorient" else None,
        clip_first=True,
    )


def _inherited(configurations: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """A configuration with what it has of its parents."""
    settings = dict(configurations[name])
    for _ in range(MOST_PARENTS):
        if "inherits_from" not in settings:
            return settings
        settings = {**configurations[settings.pop("inherits_from")], **settings}
    raise ValueError(f"configuration {name!r} inherits without end")


def _read_v1(saved: dict[str, Any]) -> Plans:
    plans = saved.get("plans", saved)
    stages = plans["plans_per_stage"]
    # the trainer's arguments, as v1 keeps them in *.model.pkl: the sixth is the stage
    stage = saved["init"][5] if "init" in saved else None
    if stage is None and len(stages) > 1:
        raise _Unfit("it plans several stages, and which one this is only *.model.pkl says")
    settings = stages[min(stages) if stage is None else stage]
    _check_trainer(saved.get("name", ""))
    _check_transpose(plans.get("transpose_forward", [0, 1, 2]))
    _check_resampling(plans.get("preprocessor_name", ""))
    _check_schemes([plans["normalization_schemes"][i] for i in range(plans["num_modalities"])])
    if any(plans["use_mask_for_norm"].values()):
        raise _Unfit("intensities outside a mask are set to zero")
    found = plans["dataset_properties"]["intensityproperties"][0]
    spacing, patch = settings["current_spacing"], settings["patch_size"]
    return Plans(
        spacing=_zyx(spacing, 0.0, len(patch)),
        patch=_zyx(patch, 1, len(patch)),
        intensity=_statistics(found, "sd"),
    )


def _check_trainer(name: str) -> None:
    if OTHER_BLOCKS.search(name.removeprefix("nnUNetTrainer")):
        raise _Unfit(f"trainer {name!r} changes activation or norm")


def _check_blocks(settings: Mapping[str, Any]) -> None:
    """Whether a v2 network is made of convolution, instance norm and leaky ReLU."""
    if "architecture" not in settings:  # before v2.3: a plain U-Net has no other choice
        _check_network(settings["UNet_class_name"])
        return
    architecture = settings["architecture"]
    _check_network(architecture["network_class_name"].rpartition(".")[2])
    blocks = architecture["arch_kwargs"]
    norm, activation = blocks["norm_op_kwargs"] or {}, blocks["nonlin_kwargs"] or {}
    usual = (
        re.fullmatch(r".*\.InstanceNorm[23]d", blocks["norm_op"])
        and norm.get("eps", 1e-5) == 1e-5
        and str(blocks["nonlin"]).endswith(".LeakyReLU")
        and activation.get("negative_slope", 0.01) == 0.01
        and not blocks.get("nonlin_first")
        and blocks.get("pool", "conv") == "conv"
    )
    if not usual:
        raise _Unfit("its blocks are not convolution, instance norm and leaky ReLU of slope 0.01")


def _check_network(name: str) -> None:
    if name != "PlainConvUNet":
        raise _Unfit(f"its network is a {name}; only plain U-Nets (PlainConvUNet) fit")


def _check_transpose(order: Any) -> None:
    if list(order) != [0, 1, 2]:
        raise _Unfit(f"it turns axes (transpose_forward {list(order)}): slices must come first")


def _check_resampling(name: str) -> None:
    if re.search(r"no_?resampling", name, re.IGNORECASE):
        raise _Unfit(f"it does not resample ({name}): there is no spacing to bring scans to")


def _check_schemes(schemes: list[str]) -> None:
    if len(schemes) != 1:
        raise _Unfit(f"its network takes {len(schemes)} input channels; a CT has one")
    if schemes != ["CT"]:
        raise _Unfit(f"it normalises by {schemes[0]!r}; only 'CT' is what flarekd does")


def _statistics(found: Mapping[str, Any], sd: str) -> IntensityStatistics:
    lower, upper = (float(found[f"percentile_{share}"]) for share in ("00_5", "99_5"))
    return IntensityStatistics(lower, upper, float(found["mean"]), float(found[sd]))


def _zyx(numbers: Any, missing: Any, dims: int) -> Any:
    """The last `dims` of `numbers` as (z, y, x) of the type of `missing`, a 2D network's z."""
    if dims not in (2, 3) or len(numbers) < dims:
        raise ValueError(f"{numbers} are not {dims} axes")
    inner = tuple(type(missing)(number) for number in numbers[-dims:])
    if any(number != given for number, given in zip(inner, numbers[-dims:], strict=True)):
        raise ValueError(f"{numbers} are no sizes")
    return inner if dims == 3 else (missing, *inner)


def _names(labels: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the outputs in their order, of v2's dataset.json."""
    if any(isinstance(value, list | tuple) for value in labels.values()):
        raise _Unfit("it finds overlapping regions, not labels")
    ids = {int(value): name for name, value in labels.items() if name != "ignore"}
    if not all(isinstance(name, str) for name in ids.values()):
        raise ValueError("labels are not called by words")
    if sorted(ids) != list(range(len(ids))):
        raise ValueError(f"labels {sorted(ids)} are not 0, 1, 2 …")
    return tuple(ids[value] for value in range(len(ids)))
