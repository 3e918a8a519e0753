"""The training protocol: sections of the configuration, frozen, with every unknown key an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flarekd.labels import NAMES

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
Zyx = tuple[Positive, Positive, Positive]
FINEST, COARSEST = 0.05, 50
Spacing = Annotated[float, Field(ge=FINEST, le=COARSEST)]
"""Millimetres. A scan on a finer grid would fill memory, on a coarser one no organ is left."""

MOST_STAGES, MOST_CHANNELS = 12, 4096
Channels = Annotated[
    tuple[Annotated[int, Field(gt=0, le=MOST_CHANNELS)], ...], Field(max_length=MOST_STAGES)
]
Stride = Annotated[int, Field(gt=0, le=64)]
LEAST_STEP = 0.05
Step = Annotated[float, Field(ge=LEAST_STEP, le=1)]
"""Distance of windows as a share of the patch: at 0.05 each voxel is seen 8,000 times."""

Windows = Literal["full", "efficient", "body", "paper"]
Probe = Literal["top-left", "center"]
Threshold = Annotated[float, Field(gt=0, lt=1)]
LONGEST_PATCH, LARGEST_PATCH = 4096, 1 << 24
"""Voxels of an axis, and of a patch: 256×256×256."""

Precision = Literal["fp16", "bf16", "fp32"]
FOLDS = 5


class Section(BaseModel):
    """A part of the configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimizer(Section):
    """How weights move.

    Attributes:
        name: ``sgd`` (Nesterov, the paper's), ``adamw``, or ``muon`` (`training.muon`).
        lr: Initial learning rate.
        momentum: Of SGD and Muon.
        weight_decay: L2 for SGD, decoupled for the others.
        warmup: Iterations over which the learning rate rises linearly from zero.
        clip: Largest gradient norm.
        ema: Decay of the averaged weights that are saved; 0 saves the last ones, as the paper does.
    """

    name: Literal["sgd", "adamw", "muon"]
    lr: float = Field(gt=0)
    momentum: float = Field(0.99, ge=0, lt=1)
    weight_decay: float = Field(3e-5, ge=0)
    warmup: int = Field(0, ge=0)
    clip: float = Field(12.0, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)


class Augmentation(Section):
    """Probabilities and ranges of each transform (method.md §5), mirroring not among them.

    Attributes:
        elastic: Probability; `elastic_alpha` is the amplitude and `elastic_sigma` the smoothness,
            voxels.
        rotation: Probability; `rotation_degrees` in-plane.
        scaling: Probability; `scaling_down` and `scaling_up` are drawn half and half.
        noise: Probability; `noise_sd` of the normalised intensity.
        blur: Probability; `blur_sigma` in voxels. A further coin is tossed per channel, of which
            there is one.
        brightness: Probability; `brightness_factor` multiplies.
        contrast: Probability; `contrast_down` and `contrast_up` are drawn half and half.
        low_resolution: Probability; `low_resolution_zoom` is the grid it goes through. Coin per
            channel as for blur.
        gamma_inverted: Probability of gamma on the negated intensity.
        gamma: Probability; `gamma_down` and `gamma_up` are drawn half and half.
        tissue: Probability that each class is shifted by an intensity of its own, of a standard
            deviation drawn from `tissue_sd`; not in the paper, for training on phantoms.
    """

    elastic: Probability
    elastic_alpha: Range
    elastic_sigma: Range
    rotation: Probability
    rotation_degrees: Range
    scaling: Probability
    scaling_down: Range
    scaling_up: Range
    noise: Probability
    noise_sd: Range
    blur: Probability
    blur_sigma: Range
    brightness: Probability
    brightness_factor: Range
    contrast: Probability
    contrast_down: Range
    contrast_up: Range
    low_resolution: Probability
    low_resolution_zoom: Range
    gamma_inverted: Probability
    gamma: Probability
    gamma_down: Range
    gamma_up: Range
    tissue: Probability
    tissue_sd: Range


class Training(Section):
    """What teacher and student training have in common.

    Attributes:
        epochs: Epochs in all; 0 writes the untrained network.
        iterations: Iterations an epoch (250 in the paper).
        batch: Patches an iteration.
        patch: Voxels (z, y, x); z is 1 for the 2D teacher.
        oversize: Voxels (z, y, x) read around a patch so that rotating it leaves no empty corners.
        foreground: Share of a batch, taken from its end, that is centred on a foreground voxel
            (method.md §5: 0.33).
        lesions: Share of these that is drawn around a lesion instead, small and large ones alike,
            somewhat off the centre; 0 as in the paper.
        on_unreadable: Whether a case of the store that cannot be read stops the run, or is passed
            over, counted, and named at the end.
        deep_supervision: Loss weight of each output, full resolution first; they sum to 1.
        class_weights: Weight of each class, background first, in the loss and in how often a
            forced patch is centred on it; empty treats all alike, as the paper does.
        window: HU that scans are clipped to; where left out, the foreground's percentiles 0.5 and
            99.5 as in the paper, which the stomach's gas and the bones' rims make wide.
        optimizer: See `Optimizer`.
        augmentation: See `Augmentation`.
        accumulate: Batches whose gradients are averaged for one step; the Dice is of each batch.
        precision: Of the forward pass: ``fp16`` with gradient scaling (the paper's), ``bf16`` or
            ``fp32``. CPUs take bf16 where they have instructions for it, else float32.
        compile: Whether torch.compile is tried; where it fails, training goes on without.
        fold: Which fifth of the cases is held out for validation, 0 to 4; ``all`` trains on every
            case and validates on the same, as the paper does.
        validation: Batches after each epoch whose pseudo-DSC is logged (the paper's 50 and 1).
        volumes_every: Epochs between two validations on whole held-out volumes; 0 for none.
        collapse_epoch: Epoch by which the network must label something as foreground; 0 never asks.
        checkpoint_minutes: Least time between two checkpoints.
    """

    epochs: int = Field(ge=0)
    iterations: Positive
    batch: Positive
    patch: Zyx
    oversize: Zyx
    foreground: Probability
    lesions: Probability = 0.0
    on_unreadable: Literal["stop", "skip"] = "stop"
    deep_supervision: tuple[float, ...]
    class_weights: tuple[float, ...] = ()
    window: Range | None = None
    optimizer: Optimizer
    augmentation: Augmentation
    accumulate: Positive = 1
    precision: Precision = "fp16"
    compile: bool = False
    fold: Literal["all"] | Annotated[int, Field(ge=0, lt=FOLDS)] = "all"
    validation: int = Field(0, ge=0)
    volumes_every: int = Field(0, ge=0)
    collapse_epoch: int = Field(0, ge=0)
    checkpoint_minutes: float = Field(10.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        check_patch_size(self.patch)
        if any(outer < inner for outer, inner in zip(self.oversize, self.patch, strict=True)):
            raise ValueError(f"oversize {self.oversize} is smaller than patch {self.patch}")
        if abs(sum(self.deep_supervision) - 1) > 1e-3:
            raise ValueError(f"deep_supervision sums to {sum(self.deep_supervision):.4f}, not 1")
        if self.window and self.window[0] >= self.window[1]:
            raise ValueError(f"window {self.window} is empty")
        if self.volumes_every and self.fold == "all":
            raise ValueError("volumes_every needs held-out cases: set fold to 0, 1, 2, 3 or 4")
        return self


class Teacher(Training):
    """The 2D tumour teacher.

    Attributes:
        spacing: Millimetres (y, x); z keeps each case's own.
        channels: Features of each stage.
        attention: Which blocks the decoder is made of.
        probe: Which window of a slice decides whether the others run.
        min_foreground: Tumour pixels τ the first window must hold for the others to run; 0 runs
            them all.
        threshold: Probability above which a voxel is tumour; 0.5 is the paper's arg max.
        min_ml: Tumours smaller than this, in 3D, are left out of the pseudo-label; the paper keeps
            all.
    """

    spacing: tuple[Spacing, Spacing]
    channels: Channels
    attention: Literal["published", "equations", "none"] = "published"
    probe: Probe = "top-left"
    min_foreground: int = Field(1, ge=0)
    threshold: Threshold = 0.5
    min_ml: float = Field(0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits_network(self) -> Teacher:
        _check_classes(self.class_weights, 2)
        halvings = len(self.channels) - 1
        _check_patch(self.patch[1:], (2**halvings,) * 2)
        _check_heads(self.deep_supervision, halvings)
        return self


class Student(Training):
    """The 3D student.

    Attributes:
        spacing: Millimetres (z, y, x).
        channels: Features of each stage.
        strides: (z, y, x) between stages.
        step: Stride of inference windows over patch size.
        windows: ``full`` visits every window, ``efficient`` those that may change a label, ``body``
            lays them over the body only, ``paper`` skips by the rules of method.md §6.4.
    """

    spacing: tuple[Spacing, Spacing, Spacing]
    channels: Channels
    strides: tuple[tuple[Stride, Stride, Stride], ...]
    step: Step = 0.5
    windows: Windows = "full"

    @model_validator(mode="after")
    def _fits_network(self) -> Student:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} channels need {len(self.channels) - 1} strides")
        _check_classes(self.class_weights, len(NAMES))
        _check_patch(self.patch, [math.prod(axis) for axis in zip(*self.strides, strict=True)])
        _check_heads(self.deep_supervision, len(self.strides))
        return self


def check_patch_size(patch: Sequence[int]) -> None:
    """Make sure that a patch (z, y, x) is one that a machine can hold.

    Raises:
        ValueError: If it is larger.
    """
    if max(patch) > LONGEST_PATCH or math.prod(patch) > LARGEST_PATCH:
        raise ValueError(
            f"patch {tuple(patch)} has more than {LARGEST_PATCH:,} voxels, or {LONGEST_PATCH:,} "
            "along an axis"
        )


def _check_patch(patch: Sequence[int], divisor: Sequence[int]) -> None:
    """A patch must divide down to a bottleneck of more than one voxel, as instance norm needs."""
    uneven = any(size % by for size, by in zip(patch, divisor, strict=True))
    if uneven or math.prod(patch) <= math.prod(divisor):
        raise ValueError(f"patch {tuple(patch)} must be a multiple of {tuple(divisor)} and larger")


def _check_classes(weights: Sequence[float], classes: int) -> None:
    if weights and len(weights) != classes:
        raise ValueError(f"class_weights has {len(weights)} weights for {classes} classes")


def _check_heads(weights: Sequence[float], outputs: int) -> None:
    if len(weights) != outputs:
        raise ValueError(f"deep_supervision has {len(weights)} weights for {outputs} outputs")
