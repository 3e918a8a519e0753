"""What both sides of a comparison of inference get: a scan, trained weights, an nnU-Net model.

Weights come from a short training on the patient of the scan, since random ones label noise, and
the work at the borders of labels would be another. How well they do is told beside the times.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import nnunet
from flarekd import config
from flarekd.imaging.atomic import replacing
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import NAMES
from flarekd.modelfile import ModelCard, read_card, read_weights, save_model
from flarekd.phantom.case import make_case
from flarekd.phantom.plan import plan_cohort

ROOT = Path(__file__).parents[1]
WIDTH = 512
"""Pixels of a phantom's slices at full size."""

TORCH_RESAMPLER = "resample_torch_fornnunet"
TRAINED_PATCH = [32, 96, 128]
"""Near to the patch of inference, whose instance norm would see other statistics otherwise."""

NETWORK = "benchmarks.peer_network.PlainConvUNet"


def flarekd_command(*words: object) -> list[str]:
    """The command line of this checkout, free to use all cores."""
    bare = ["env", "-u", "OMP_NUM_THREADS", f"PYTHONPATH={ROOT / 'src'}:{ROOT}"]
    return [*bare, sys.executable, "-m", "flarekd", *map(str, words)]


def make_scan(
    scan: Path, truth: Path, slices: int, thickness_mm: float = 1.0, shrink: int = 1
) -> None:
    """Write a phantom (512 / `shrink`)² × `slices` about the abdomen, and its true labels.

    Pixels are 0.8 mm, or 0.8 · `shrink` mm. More slices than the phantom's trunk is long show
    what lies beyond it: nothing but its skin and muscle, on the same table.
    """
    if scan.exists() and truth.exists():
        return
    plan = plan_cohort(4, "full", 1)[0]
    half = slices * thickness_mm / 2
    habitus = replace(plan.habitus, height=1.0, girth=1.0, arms_down=False)
    plan = replace(
        plan,
        thickness_mm=thickness_mm,
        pixel_mm=0.8,
        bottom_mm=-half,
        top_mm=half,
        circle=False,
        habitus=habitus,
        storage=replace(plan.storage, axes="LPS", oblique_deg=(0.0, 0.0, 0.0)),
    )
    case = make_case(plan)
    image, labels = (
        np.ascontiguousarray(array[:, ::shrink, ::shrink])
        for array in (case.rendering.image, case.rendering.labels)
    )
    width, pixel = WIDTH // shrink, 0.8 * shrink
    origin = case.geometry.origin_xyz
    geometry = Geometry((width, width, slices), (pixel, pixel, thickness_mm), origin)
    write_labels(truth, LabelMap(labels, geometry))
    write_volume(scan, Volume(image, geometry))


def train(
    work: Path, iterations: int, channels: Sequence[int] | None = None, device: str = "cpu"
) -> Path:
    """A student of the paper's spacing and patch that knows one patient by heart; made once.

    It is trained on the very patient of all scans here, so that minutes are enough for labels
    shaped like organs. What it would make of others is nobody's concern.

    Args:
        work: Gets the scan it is trained on, ``cohort.csv`` and ``run``.
        iterations: Steps of two patches of `TRAINED_PATCH`, one about an organ and one anywhere.
        channels: Features of each stage; None for the published ones.
        device: Where to train.

    Returns:
        The model file, its card with the paper's patch.
    """
    model = work / "student.safetensors"
    if model.exists():
        return model
    images, labels = work / "images", work / "labels"
    make_scan(images / "patient_0000.nii.gz", labels / "patient.nii.gz", 300)
    cohort = ["--images", images, "--labels", labels, "--out", work / "cohort.csv"]
    subprocess.run(flarekd_command("group-data", *cohort), check=True)
    words = ["--cohort", work / "cohort.csv", "--labels", labels, "--out", work / "run"]
    for setting in _settings(iterations, channels):
        words += ["--set", setting]
    subprocess.run(flarekd_command("train-student", *words, "--device", device), check=True)
    trained = work / "run" / "model.safetensors"
    patch = config.load(config.builtin("flare23"), []).student.patch
    card = read_card(trained).model_copy(update={"patch": tuple(patch)})
    save_model(model, read_weights(trained), card)
    return model


def _settings(iterations: int, channels: Sequence[int] | None) -> list[str]:
    settings = [
        f"student.patch={TRAINED_PATCH}",
        f"student.oversize={TRAINED_PATCH}",
        "student.batch=2",
        "student.epochs=1",
        f"student.iterations={iterations}",
        "student.validation=0",
        "student.precision=bf16",
        "student.foreground=0.5",
        "student.window=[-150, 250]",
        "student.optimizer.name=adamw",
        "student.optimizer.lr=0.003",
        "student.optimizer.weight_decay=0.01",
        "student.optimizer.warmup=20",
        "student.optimizer.ema=0.95",
        "student.augmentation.elastic=0",
        "student.augmentation.rotation=0",
        "student.augmentation.scaling=0",
    ]
    return settings + ([f"student.channels={list(channels)}"] if channels else [])


def write_nnunet(model: Path, folder: Path, *, torch_resampler: bool) -> Path:
    """Write a student as a model folder of nnU-Net v2, with weights to the last bit the same.

    Args:
        model: Student of published shape.
        folder: Gets plans.json, dataset.json and fold_0/checkpoint_final.pth.
        torch_resampler: nnU-Net's torch resampler instead of its default, linear along z too, as
            flarekd resamples; the default takes the nearest slice where slices are thick.

    Returns:
        The checkpoint.
    """
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    if checkpoint.exists():
        return checkpoint
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    card = read_card(model)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {name: label for label, name in enumerate(card.labels)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    plans = _plans(card, torch_resampler)
    saved = {
        "network_weights": peer_weights(read_weights(model)),
        "trainer_name": "nnUNetTrainer",
        "init_args": {
            "plans": plans,
            "configuration": "3d_fullres",
            "fold": 0,
            "dataset_json": dataset,
        },
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    for name, content in (("plans", plans), ("dataset", dataset)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    with replacing(checkpoint) as temporary:
        torch.save(saved, temporary)
    return checkpoint


def _plans(card: ModelCard, torch_resampler: bool) -> dict[str, Any]:
    student = config.load(config.builtin("flare23"), []).student
    plans = nnunet.plans(student)
    settings = plans["configurations"]["3d_fullres"]
    settings["architecture"]["network_class_name"] = NETWORK
    settings["patch_size"] = list(card.patch)
    settings["spacing"] = list(card.spacing)
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        options: dict[str, Any] = {"is_seg": what == "seg", "force_separate_z": None}
        options |= {"order": order, "order_z": 0}
        name = "resample_data_or_seg_to_shape"
        if torch_resampler:
            name, options = TORCH_RESAMPLER, {"is_seg": what == "seg", "force_separate_z": False}
        settings[f"resampling_fn_{what}"] = name
        settings[f"resampling_fn_{what}_kwargs"] = options
    low, high, mean, sd = card.intensity
    intensity = {"percentile_00_5": low, "percentile_99_5": high, "mean": mean, "std": sd}
    return plans | {
        "image_reader_writer": "SimpleITKIO",
        "foreground_intensity_properties_per_channel": {"0": intensity},
    }


def peer_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A student's weights with the names that nnU-Net v2 gives them.

    Its networks hold each block twice and the encoder in the decoder once more; it loads nothing
    that lacks a name or has one too many.
    """
    levels = sum(re.fullmatch(r"heads\.\d+\.weight", name) is not None for name in weights)
    named = {}
    for ours, tensor in weights.items():
        part, level, *rest = ours.split(".")
        stage = int(level) if part == "encoder" else levels - 1 - int(level)
        if part in ("up", "heads"):
            group = "transpconvs" if part == "up" else "seg_layers"
            named[f"decoder.{group}.{stage}.{rest[-1]}"] = tensor
            continue
        block, layer, what = rest
        inner = ".0" if part == "encoder" else ""
        before = f"{part}.stages.{stage}{inner}.convs.{block}"
        once = [
            f"{before}.{'conv' if layer == '0' else 'norm'}.{what}",
            f"{before}.all_modules.{layer}.{what}",
        ]
        again = [f"decoder.{name}" for name in once] if part == "encoder" else []
        named |= dict.fromkeys([*once, *again], tensor)
    return named


def border_share(labels: NDArray[np.uint8], spacing_zyx: Sequence[float], card: ModelCard) -> float:
    """Share of the network's cells whose eight corners do not all carry one label.

    Args:
        labels: uint8 (z, y, x), at the scan's resolution.
        spacing_zyx: Its spacing, mm.
        card: Says how far apart the network's voxels are.
    """
    picks = []
    for size, have, wanted in zip(labels.shape, spacing_zyx, card.spacing, strict=True):
        count = max(1, round(size * have / wanted))
        at = (np.arange(count) + 0.5) * size / count
        picks.append(np.minimum(at.astype(int), size - 1))
    corners = labels[np.ix_(*picks)]
    first = corners[:-1, :-1, :-1]
    mixed = np.zeros(first.shape, bool)
    for z in (0, 1):
        for y in (0, 1):
            for x in (0, 1):
                ends = [
                    slice(i, size - 1 + i) for i, size in zip((z, y, x), corners.shape, strict=True)
                ]
                mixed |= corners[tuple(ends)] != first
    return float(mixed.mean())


def dice(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean DSC of the classes that are there."""
    scores = []
    for label in range(1, len(NAMES)):
        ours, theirs = found == label, truth == label
        if theirs.any():
            both = np.count_nonzero(ours & theirs)
            scores.append(2 * both / (np.count_nonzero(ours) + np.count_nonzero(theirs)))
    return float(np.mean(scores))
