"""3D sliding windows of the student: all of them, or only those that may change a label."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from flarekd.inference.accumulate import Network, check_network
from flarekd.inference.windows import (
    bounding_box,
    cover,
    extended_positions,
    pad_to_patch,
    positions,
)
from flarekd.student import paper_windows
from flarekd.student.paper_windows import PaperRules
from flarekd.student.visits import Index, Visits

BACKGROUND_LOGIT = 20.0
"""Class 0 where no window was run, against 0 of the others: background, all but certainly."""


@dataclass(frozen=True)
class SkipRules:
    """Leave out windows that change no label.

    Attributes:
        air: Normalised intensity up to which a voxel is air; a window of nothing but air is not
            run. None: no window is taken for air.
        in_body: Lay the grid over the body's bounding box, not over the scan: fewer windows at the
            same step, but others than those of the full mode, so labels at the rims of organs
            differ as they do between two grids.
    """

    air: float | None = None
    in_body: bool = False


@dataclass(frozen=True)
class Prediction:
    """What the student says of a volume.

    Attributes:
        logits: float32 (C, z, y, x) in main memory; C is 1 where no window was run.
        windows_run: Windows the network was run on.
        windows_total: Windows of the full mode at the same step; of `PaperRules`, all of their own
            grid.
    """

    logits: torch.Tensor
    windows_run: int
    windows_total: int


def skip_rules(windows: str, air: float | None) -> SkipRules | PaperRules | None:
    """What the name of a mode, as model files have it, means for `predict_logits`.

    Args:
        windows: ``full``, ``efficient`` (the labels of full), ``body`` (the body's own grid) or
            ``paper``.
        air: Normalised intensity up to which a voxel is air.

    Raises:
        ValueError: If there is no such mode.
    """
    modes: dict[str, SkipRules | PaperRules | None] = {
        "full": None,
        "efficient": SkipRules(air),
        "body": SkipRules(air, in_body=True),
        "paper": PaperRules(air),
    }
    if windows not in modes:
        raise ValueError(f"windows must be one of {', '.join(modes)}, not {windows!r}")
    return modes[windows]


@torch.inference_mode()
def predict_logits(
    network: Network,
    volume: torch.Tensor,
    patch_zyx: Sequence[int],
    *,
    step: float = 0.5,
    skip: SkipRules | PaperRules | None = None,
    batch: int = 1,
    half: bool = False,
    on_window: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Run the student over a volume in Gaussian-weighted overlapping windows.

    Without `skip` every window of a regular grid is run. With `SkipRules` (see `_visit_efficiently`
    for what they promise) those of them that change no label are left out. With `PaperRules` the
    paper's grid and order are used (method.md §6.4). What was never looked at is background.

    Args:
        network: Maps (n, 1, z, y, x) to logits (n, C, z, y, x), in eval mode.
        volume: float32 (z, y, x), normalised, at the network's spacing and on its device.
        patch_zyx: Window size; a smaller volume is padded with zeros on both sides.
        step: Largest distance of neighbouring windows as a share of the patch.
        skip: What to leave out; None runs everything.
        batch: Windows a forward pass, at most.
        half: fp16 on CUDA.
        on_window: Called with (done, total) windows, run or skipped, as the work goes on.

    Returns:
        Logits at the volume's shape and counts of windows.

    Raises:
        ValueError: If the volume is not 3D, or the network is in training mode or not at full
            resolution.
    """
    check_network(network)
    if volume.ndim != 3 or len(patch_zyx) != 3:
        raise ValueError(f"volume {tuple(volume.shape)} and patch {tuple(patch_zyx)} must be 3D")
    padded, crop = pad_to_patch(volume, patch_zyx)
    sizes = list(zip(padded.shape, patch_zyx, strict=True))
    visits = Visits(network, padded, patch_zyx, batch, half)
    grid = [positions(size, patch, step) for size, patch in sizes]
    total = math.prod(len(starts) for starts in grid)
    if skip is None:
        visits.begin(grid, total, on_window)
        for _ in visits.run(visits.everything()):
            pass
    elif isinstance(skip, PaperRules):
        extended = [extended_positions(size, patch, step) for size, patch in sizes[1:]]
        grid = [grid[0], *(starts for starts, _ in extended)]
        total = math.prod(len(starts) for starts in grid)
        visits.begin(grid, total, on_window)
        central = [indices for _, indices in extended]
        paper_windows.visit(visits, _body(padded, crop, skip.air), skip, *central)
    else:
        body = _body(padded, crop, skip.air)
        if skip.in_body:
            box = bounding_box(body, patch_zyx)
            grid = [
                [part.start + start for start in positions(part.stop - part.start, patch, step)]
                for part, patch in zip(box, patch_zyx, strict=True)
            ]
        visits.begin(grid, total, on_window)
        _visit_efficiently(visits, body)
        visits.advance(total)
    logits = visits.accumulator.mean(BACKGROUND_LOGIT)[(slice(None), *crop)]
    return Prediction(logits, len(visits.seen), total)


def _visit_efficiently(visits: Visits, body: torch.Tensor) -> None:
    """Run windows that cover the body once, then all that hold or touch what those found.

    So whatever is foreground has been looked at by every window of the grid that reaches it, and
    has the logits of the full mode; and whatever is body has been looked at. The one thing that can
    be lost is foreground that all windows run call background, and that one of those left out
    would have outvoted them on.

    Args:
        visits: With its grid.
        body: bool (z, y, x), what is not air.
    """
    found = torch.zeros_like(body)
    axes = [set(cover(s, p)) for s, p in zip(visits.grid, visits.patch, strict=True)]

    def is_wanted(index: Index) -> bool:
        return bool(found[visits.place(index, margin=1)].any())

    everything = visits.everything()
    wanted = [
        index
        for index in everything
        if all(i in axis for i, axis in zip(index, axes, strict=True))
        and body[visits.place(index)].any()
    ]
    while wanted:
        for index, window in visits.run(wanted):
            found[visits.place(index)] |= window[1:].amax(0) > window[0]
        wanted = [index for index in everything if index not in visits.seen and is_wanted(index)]


def _body(padded: torch.Tensor, crop: tuple[slice, ...], air: float | None) -> torch.Tensor:
    """Bool (z, y, x): what is not air, at the network's resolution."""
    body = torch.zeros(padded.shape, dtype=torch.bool, device=padded.device)
    # padding is never tissue, though its value may lie above that of air
    body[crop] = True if air is None else padded[crop] > air
    return body
