"""Augmentation alone, per sample on one core: flarekd against batchgeneratorsv2.

Both get the same regions of one phantom, the same list of transforms with the same probabilities
and ranges, and take turns in one process. Times are the processor's, so that other work on the
machine counts little. "peer linear" interpolates images linearly, its own default and nnU-Net's;
"peer cubic" cubically, as flarekd does. Needs ``pip install batchgeneratorsv2==0.3.6``, then::

    OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.augmentation
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

from flarekd import config
from flarekd.imaging.intensity import FLARE22_STATISTICS
from flarekd.imaging.resampling import resample, resample_labels, target_shape
from flarekd.imaging.store import open_case, write_case
from flarekd.labels import TUMOR
from flarekd.phantom.case import make_case
from flarekd.phantom.plan import plan_cohort
from flarekd.protocol import Augmentation, Training
from flarekd.training import augment
from flarekd.training.batches import Batches

Sample = tuple[Tensor, Tensor]
Pipeline = Callable[[Tensor, Tensor], Sample]

TRANSFORMS = (
    "elastic",
    "rotation",
    "scaling",
    "noise",
    "blur",
    "brightness",
    "contrast",
    "low_resolution",
    "gamma_inverted",
    "gamma",
)


def regions(settings: Training, spacing: tuple[float, ...], *, binary: bool) -> list[Sample]:
    """Oversized regions of one phantom as training draws them: float32 and uint8, (z, y, x)."""
    plan = plan_cohort(16, "full", 0)[7]
    case = make_case(plan).rendering
    old = plan.grid().spacing
    new = (old[0], spacing[-2], spacing[-1]) if len(spacing) == 2 else spacing
    shape = target_shape(case.image.shape, old, new)
    image = np.rint(resample(case.image, shape)).astype(np.int16)
    labels = resample_labels(case.labels, shape)
    if binary:
        labels = (labels == TUMOR).astype(np.uint8)
    plain = only(settings.augmentation, ())
    whole = settings.model_copy(update={"patch": settings.oversize, "augmentation": plain})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.b2nd"
        write_case(path, image, labels, spacing_zyx=new, chunk_zyx=settings.patch, key="")
        make = Batches([open_case(path)], whole, FLARE22_STATISTICS, 0)
        batches = [make(iteration) for iteration in range(16 // settings.batch)]
    return [
        (image.view(settings.oversize), ids.view(settings.oversize).byte())
        for batch in batches
        for image, ids in zip(*batch, strict=True)
    ]


def flarekd_pipeline(settings: Training, on: Augmentation) -> Pipeline:
    """Draw and apply, a batch of one."""
    generator = np.random.default_rng(0)

    def run(image: Tensor, labels: Tensor) -> Sample:
        draws = [augment.sample(generator, on)]
        return augment.apply(image[None], labels[None], draws, settings.patch)

    return run


def peer_pipeline(settings: Training, on: Augmentation, mode: str) -> Pipeline:
    """The same list for batchgeneratorsv2, put together as nnU-Net does; `mode` is the image's."""
    flat = settings.patch[0] == 1
    plane = settings.patch[1:]
    generator = np.random.default_rng(0)

    def smoothness(*_: Any, dim: int, **__: Any) -> float:
        return float(generator.uniform(*on.elastic_sigma)) / plane[dim]

    def between(low: float, high: float) -> BGContrast:
        return BGContrast((low, high))  # half below 1, half above

    def sometimes(probability: float, transform: Any) -> Any:
        return RandomTransform(transform, apply_probability=probability)

    spatial = SpatialTransform(
        plane,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=on.elastic,
        elastic_deform_scale=smoothness,
        elastic_deform_magnitude=(0.0, 10.0),
        p_rotation=on.rotation,
        rotation=tuple(np.deg2rad(on.rotation_degrees)),
        p_scaling=on.scaling,
        scaling=between(on.scaling_down[0], on.scaling_up[1]),
        p_synchronize_scaling_across_axes=1,
        mode_image=mode,
    )
    gamma = between(on.gamma_down[0], on.gamma_up[1])
    one = {"synchronize_channels": False, "p_per_channel": 1}
    chain = [
        *([] if flat else [Convert3DTo2DTransform()]),
        spatial,
        *([] if flat else [Convert2DTo3DTransform()]),
        sometimes(on.noise, GaussianNoiseTransform(on.noise_sd, 1, synchronize_channels=True)),
        sometimes(
            on.blur * 0.5,
            GaussianBlurTransform(on.blur_sigma, synchronize_axes=False, benchmark=True, **one),
        ),
        sometimes(
            on.brightness,
            MultiplicativeBrightnessTransform(between(*on.brightness_factor), **one),
        ),
        sometimes(
            on.contrast,
            ContrastTransform(
                between(on.contrast_down[0], on.contrast_up[1]), preserve_range=True, **one
            ),
        ),
        sometimes(
            on.low_resolution * 0.5,
            SimulateLowResolutionTransform(
                on.low_resolution_zoom,
                synchronize_axes=True,
                ignore_axes=None if flat else (0,),
                **one,
            ),
        ),
        sometimes(on.gamma_inverted, GammaTransform(gamma, 1, p_retain_stats=1, **one)),
        sometimes(on.gamma, GammaTransform(gamma, 0, p_retain_stats=1, **one)),
    ]
    compose = ComposeTransforms(chain)

    def run(image: Tensor, labels: Tensor) -> Sample:
        channels = slice(None) if flat else None
        # a copy: some of its transforms work in place
        out = compose(image=image[channels].clone(), segmentation=labels[channels].short())
        return out["image"], out["segmentation"]

    return run


def measure(
    pipelines: dict[str, Pipeline], crops: list[Sample], rounds: int, samples: int
) -> dict[str, list[float]]:
    """Mean milliseconds a sample of each round; the pipelines take turns."""
    for run in pipelines.values():
        for crop in crops:
            run(*crop)
    times: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(rounds):
        for name, run in pipelines.items():
            began = time.process_time()
            for index in range(samples):
                run(*crops[index % len(crops)])
            times[name].append((time.process_time() - began) / samples * 1e3)
    return times


def only(on: Augmentation, names: tuple[str, ...]) -> Augmentation:
    """Settings under which the transforms `names` always happen and no other does."""
    # blur and low resolution: once more than a certainty, since a coin is tossed besides
    certain = {"blur": 2.0, "low_resolution": 2.0}
    chances = {name: certain.get(name, 1.0) if name in names else 0.0 for name in TRANSFORMS}
    return on.model_copy(update=chances)


def show(title: str, times: dict[str, list[float]]) -> None:
    """One line: min / median / max of each pipeline, and the ratios of the medians."""
    ours, *peers = (statistics.median(values) for values in times.values())
    cells = [
        f"{name} {min(values):7.2f} {statistics.median(values):7.2f} {max(values):7.2f}"
        for name, values in times.items()
    ]
    ratios = " ".join(f"{peer / ours:6.2f}" for peer in peers)
    print(f"{title:28} {' | '.join(cells)} | ratio {ratios}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    settings = config.load(config.builtin("flare23"))
    for name, training in (("student", settings.student), ("teacher", settings.teacher)):
        crops = regions(training, training.spacing, binary=name == "teacher")
        whole = training.augmentation

        def pipelines(on: Augmentation, training: Training = training) -> dict[str, Pipeline]:
            return {
                "flarekd": flarekd_pipeline(training, on),
                "peer linear": peer_pipeline(training, on, "bilinear"),
                "peer cubic": peer_pipeline(training, on, "bicubic"),
            }

        print(f"{name} {training.oversize} -> {training.patch}, ms a sample: min median max")
        show(
            "all, as often as they are",
            measure(pipelines(whole), crops, asked.rounds, asked.samples),
        )
        for case in ((), *((one,) for one in TRANSFORMS), TRANSFORMS[:3]):
            title = " + ".join(case) or "crop alone"
            show(title, measure(pipelines(only(whole, case)), crops, 5, 8))


if __name__ == "__main__":
    main()
