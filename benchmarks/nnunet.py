"""The peer: nnU-Net v2's own trainer on the data and with the network that flarekd trains.

Install: ``pip install --editable . nnunetv2==2.8.1`` (one environment: one torch for both sides).

nnU-Net's parts are used as they are: its blosc2 files with its chunks, its loader and foreground
sampling, its augmentation with mirroring off (``nnUNetTrainerNoMirroring``; elastic deformation is
off by its default, while flarekd deforms as the paper does), its loss and ``train_step``. Only what
would otherwise come from its planner is written here: a plan with flarekd's patch, batch, channels
and strides. Data come from flarekd's store, normalised, so that both sides see the same arrays.

nnU-Net takes its folders from environment variables, which `command` sets for a new process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flarekd.imaging.intensity import IntensityStatistics
from flarekd.imaging.store import StoredCase
from flarekd.protocol import Student, Teacher

DATASET = "Dataset001_Phantoms"
NAMES = {2: "2d", 3: "3d_fullres"}
ALL_AXES = {2: "torch.nn.modules.conv.Conv2d", 3: "torch.nn.modules.conv.Conv3d"}
NORMS = {
    2: "torch.nn.modules.instancenorm.InstanceNorm2d",
    3: "torch.nn.modules.instancenorm.InstanceNorm3d",
}


def run_worker(module: str, work: Path, arguments: Sequence[str], workers: int = 0) -> Any:
    """Run ``python -m module arguments`` with nnU-Net's folders set; what its last line says.

    Args:
        module: The worker, which prints one line of JSON at its end.
        work: Holds ``preprocessed`` and ``results``.
        arguments: Of the worker.
        workers: Processes of nnU-Net's augmenter; 0 is its single-threaded one.
    """
    folders = [f"nnUNet_{name}={work / name}" for name in ("raw", "preprocessed", "results")]
    command = ["env", *folders, f"nnUNet_n_proc_DA={workers}", sys.executable, "-m", module]
    done = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def axes(settings: Student | Teacher) -> int:
    """2 for the teacher's slices, 3 for the student's volumes."""
    return 2 if settings.patch[0] == 1 else 3


def plans(settings: Student | Teacher) -> dict[str, Any]:
    """What nnU-Net's planner would write, for flarekd's patch, batch and network."""
    dims = axes(settings)
    ones = [1] * dims
    if isinstance(settings, Student):
        strides = [ones, *([int(s) for s in stride] for stride in settings.strides)]
    else:
        strides = [ones, *([2] * dims for _ in settings.channels[1:])]
    kernels = [[3] * dims for _ in settings.channels]
    if dims == 3 and strides[1][0] == 1:
        kernels[0] = [1, 3, 3]
    spacing = [float(length) for length in settings.spacing]
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": len(settings.channels),
            "features_per_stage": list(settings.channels),
            "conv_op": ALL_AXES[dims],
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage": [2] * len(settings.channels),
            "n_conv_per_stage_decoder": [2] * (len(settings.channels) - 1),
            "conv_bias": True,
            "norm_op": NORMS[dims],
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": f"nnUNetPlans_{NAMES[dims]}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": settings.batch,
        "patch_size": list(settings.patch[-dims:]),
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": True,
        "architecture": architecture,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "configurations": {NAMES[dims]: configuration},
    }


def write_dataset(
    cases: Sequence[StoredCase],
    statistics: IntensityStatistics,
    work: Path,
    settings: Student | Teacher,
    classes: int,
) -> None:
    """Write flarekd's stored cases as nnU-Net's preprocessing writes them.

    Args:
        cases: Of flarekd's store.
        statistics: What normalises HU, for both sides the same.
        work: Gets ``preprocessed/…``.
        settings: Section of the configuration.
        classes: Outputs, background included.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    dims = axes(settings)
    folder = work / "preprocessed" / DATASET / f"nnUNetPlans_{NAMES[dims]}"
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if (folder / f"{case.case}.pkl").exists():
            continue
        z, y, x = case.shape_zyx
        hu, ids = case.read((slice(0, z), slice(0, y), slice(0, x)))
        image = statistics.normalize(hu)[None]
        labels = ids[None].astype("int16")
        sample = DefaultPreprocessor._sample_foreground_locations
        found = {"class_locations": sample(labels, list(range(1, classes)))}
        patch = tuple(settings.patch[-dims:])
        blocks, chunks = comp_blosc2_params(image.shape, patch, image.itemsize)
        label_blocks, label_chunks = comp_blosc2_params(labels.shape, patch, labels.itemsize)
        nnUNetDatasetBlosc2.save_case(
            image,
            labels,
            found,
            str(folder / case.case),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=label_chunks,
            blocks_seg=label_blocks,
        )


def make_trainer(settings: Student | Teacher, classes: int, device: torch.device) -> Any:
    """nnU-Net's trainer, initialised and with its loader running.

    Its network is given the published shape (`peer_network`).
    """
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (  # noqa: E501 (its name)
        nnUNetTrainerNoMirroring,
    )

    from benchmarks.peer_network import as_published

    class SameShape(nnUNetTrainerNoMirroring):
        @staticmethod
        def build_network_architecture(
            plans_manager: Any, configuration_manager: Any, *inputs: int, **options: Any
        ) -> nn.Module:
            build = nnUNetTrainerNoMirroring.build_network_architecture
            return as_published(build(plans_manager, configuration_manager, *inputs, **options))

    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"class_{i}": i for i in range(1, classes)}},
        "file_ending": ".nii.gz",
    }
    plan = plans(settings) | {"continue_training": False}
    name = NAMES[axes(settings)]
    trainer = SameShape(plan, name, "all", dataset, device)
    trainer.initialize()
    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    trainer.network.train()
    return trainer


def stop_loaders(trainer: Any) -> None:
    """End the processes of nnU-Net's augmenters, where there are any."""
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()
