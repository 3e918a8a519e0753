"""3D sliding windows of the student: all of them, or only those that may change a label."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from flarekd.inference.accumulate import Network, check_network
from flarekd.inference.head import BACKGROUND_LOGIT, Head
from flarekd.inference.windows import (
    bounding_box,
    check_count,
    cover,
    extended_positions,
    pad_to_patch,
    positions,
)
from flarekd.labels import NAMES
from flarekd.student import paper_windows
from flarekd.student.paper_windows import PaperRules, tubes_of
from flarekd.student.visits import Index, Visits


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


class Stream:
    """What the student says of a volume, while it looks at it.

    Args:
        planes: Logits float32 (C, y, x) where `Planes` holds them, z ascending, each when no window
            to come reaches it; C is 1 where no window was run. Of a network without its head what
            that takes.
        visits: The windows.
        total: As `windows_total`.

    Attributes:
        planes: To be taken once.
        windows_total: Of the full mode at the same step; of `PaperRules`, all of their own grid.
    """

    def __init__(self, planes: Iterator[torch.Tensor], visits: Visits, total: int) -> None:
        self.planes, self.windows_total = planes, total
        self._visits = visits

    @property
    def windows_run(self) -> int:
        """Windows the network was run on so far."""
        return len(self._visits.seen)


def skip_rules(
    windows: str, air: float | None, names: Sequence[str] = NAMES
) -> SkipRules | PaperRules | None:
    """What the name of a mode, as model files have it, means for `predict_logits`.

    Args:
        windows: ``full``, ``efficient`` (the labels of full), ``body`` (the body's own grid) or
            ``paper``.
        air: Normalised intensity up to which a voxel is air.
        names: Of the network's outputs: ``paper`` has a rule for some organs.

    Raises:
        ValueError: If there is no such mode.
    """
    modes: dict[str, SkipRules | PaperRules | None] = {
        "full": None,
        "efficient": SkipRules(air),
        "body": SkipRules(air, in_body=True),
        "paper": PaperRules(air, tubes=tubes_of(names)),
    }
    if windows not in modes:
        raise ValueError(f"windows must be one of {', '.join(modes)}, not {windows!r}")
    return modes[windows]


def predict_logits(
    network: Network,
    volume: torch.Tensor,
    patch_zyx: Sequence[int],
    *,
    step: float = 0.5,
    skip: SkipRules | PaperRules | None = None,
    batch: int = 1,
) -> Prediction:
    """`stream_logits` at once: the logits of the whole volume."""
    stream = stream_logits(network, volume, patch_zyx, step=step, skip=skip, batch=batch)
    first = next(stream.planes)
    logits = torch.empty((len(first), *volume.shape))
    logits[:, 0] = first
    for z, plane in enumerate(stream.planes, 1):
        logits[:, z] = plane
    return Prediction(logits, stream.windows_run, stream.windows_total)


def stream_logits(
    network: Network,
    volume: torch.Tensor,
    patch_zyx: Sequence[int],
    *,
    step: float = 0.5,
    skip: SkipRules | PaperRules | None = None,
    batch: int = 1,
    head: Head | None = None,
    on_window: Callable[[int, int], None] | None = None,
) -> Stream:
    """Run the student over a volume in Gaussian-weighted overlapping windows.

    Without `skip` every window of a regular grid is run, level by level, and no more planes are
    held than a window is thick. With `SkipRules` (see `_visit_efficiently` for what they promise)
    those windows that change no label are left out. With `PaperRules` the paper's grid and order
    are used (method.md §6.4). What was never looked at is background. Both look at the whole volume
    before the first plane comes.

    Args:
        network: Maps (n, 1, z, y, x) to logits (n, C, z, y, x), in eval mode.
        volume: float32 (z, y, x), normalised, at the network's spacing and on its device.
        patch_zyx: Window size; a smaller volume is padded with zeros on both sides.
        step: Largest distance of neighbouring windows as a share of the patch.
        skip: What to leave out; None runs everything.
        batch: Windows a forward pass, at most.
        head: Of a network that has none: what it gives is averaged, and this says what is
            foreground in it.
        on_window: Called with (done, total) windows, run or skipped, as the work goes on.

    Returns:
        Logits at the volume's shape, plane by plane, and counts of windows. The network runs while
        the planes are taken.

    Raises:
        ValueError: If the volume is not 3D, or the network is in training mode or, once planes are
            taken, not at full resolution.
    """
    check_network(network)
    if volume.ndim != 3 or len(patch_zyx) != 3:
        raise ValueError(f"volume {tuple(volume.shape)} and patch {tuple(patch_zyx)} must be 3D")
    padded, crop = pad_to_patch(volume, patch_zyx)
    sizes = list(zip(padded.shape, patch_zyx, strict=True))
    # planes leave with their level where all windows are run
    held = patch_zyx[0] if skip is None else None
    visits = Visits(network, padded, patch_zyx, batch, head, held=held)
    grid = [positions(size, patch, step) for size, patch in sizes]
    total = math.prod(len(starts) for starts in grid)
    levels: Callable[[], Iterator[range]] = partial(_every_level, visits)
    if isinstance(skip, PaperRules):
        extended = [extended_positions(size, patch, step) for size, patch in sizes[1:]]
        grid = [grid[0], *(starts for starts, _ in extended)]
        total = math.prod(len(starts) for starts in grid)
        central = [indices for _, indices in extended]
        body = _body(padded, crop, skip.air)
        look = partial(paper_windows.visit, visits, body, skip, *central)
        levels = partial(_all_at_once, visits, look)
    elif skip is not None:
        body = _body(padded, crop, skip.air)
        if skip.in_body:
            box = bounding_box(body, patch_zyx)
            grid = [
                [part.start + start for start in positions(part.stop - part.start, patch, step)]
                for part, patch in zip(box, patch_zyx, strict=True)
            ]
        levels = partial(_all_at_once, visits, partial(_visit_efficiently, visits, body))
    check_count(total)
    visits.begin(grid, total, on_window)
    return Stream(_planes(visits, levels(), crop), visits, total)


@torch.inference_mode()
def _planes(
    visits: Visits, levels: Iterator[range], crop: tuple[slice, ...]
) -> Iterator[torch.Tensor]:
    """The planes of the volume without its padding, once they are done."""
    own = range(visits.volume.shape[0])[crop[0]]
    for done in levels:
        for z in done:
            plane = visits.planes.take(z, BACKGROUND_LOGIT)
            if z in own:
                yield plane[(slice(None), *crop[1:])]
            del plane  # or it would be held while the next level is looked at


def _every_level(visits: Visits) -> Iterator[range]:
    """Run all windows, from level to level; the planes that each leaves done."""
    starts = visits.grid[0]
    for level, (start, end) in enumerate(pairwise([*starts, visits.volume.shape[0]])):
        for _ in visits.run(index for index in visits.everything() if index[0] == level):
            pass
        yield range(start, end)


def _all_at_once(visits: Visits, look: Callable[[], None]) -> Iterator[range]:
    """Run the windows of a mode that goes up and down; all planes are done then."""
    look()
    visits.finish()
    yield range(visits.volume.shape[0])


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
            found[visits.place(index)] |= visits.labels(window) > 0
        wanted = [index for index in everything if index not in visits.seen and is_wanted(index)]


def _body(padded: torch.Tensor, crop: tuple[slice, ...], air: float | None) -> torch.Tensor:
    """Bool (z, y, x): what is not air, at the network's resolution."""
    body = torch.zeros(padded.shape, dtype=torch.bool, device=padded.device)
    # padding is never tissue, though its value may lie above that of air
    body[crop] = True if air is None else padded[crop] > air
    return body
