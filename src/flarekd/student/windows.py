"""3D sliding windows of the student: all of them, or only those that may hold an organ (§6.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from flarekd.inference.accumulate import Accumulator, Network, check_network, forward
from flarekd.inference.windows import extended_positions, pad_to_patch, positions

Index = tuple[int, int, int]
"""A window's place (z, y, x) in its grid."""

BACKGROUND_LOGIT = 20.0
"""Class 0 where no window was run, against 0 of the others: background, all but certainly."""


@dataclass(frozen=True)
class SkipRules:
    """Which windows the efficient mode leaves out.

    Attributes:
        air: Normalised intensity up to which a voxel is air; a window of nothing but air is not
            run. None: no window is taken for air.
        empty_share: A central window with less foreground than this share of its voxels is empty:
            the others of its level, and the next level, are left out. The paper's is 1000 of
            32×128×192 voxels. 0: no window is empty.
        tubes: A central window that finds only these ids (aorta, inferior vena cava, esophagus)
            lets the others of its level run only where it has foreground at the face to them.
            Empty: no such rule.
        face_above: More foreground voxels than this on a face of a window make the neighbour across
            it run, whatever the rules say.
    """

    air: float | None = None
    empty_share: float = 1000 / (32 * 128 * 192)
    tubes: frozenset[int] = frozenset({5, 6, 10})
    face_above: int = 0


@dataclass(frozen=True)
class Prediction:
    """What the student says of a volume.

    Attributes:
        logits: float32 (C, z, y, x) in main memory; C is 1 where no window was run.
        windows_run: Windows the network was run on.
        windows_total: Windows that skipping nothing takes at the same step.
    """

    logits: torch.Tensor
    windows_run: int
    windows_total: int


@dataclass(frozen=True)
class _Finding:
    """What one window found: foreground voxels, other than tubes, and on each face (axis, side)."""

    foreground: int
    others: int
    faces: dict[tuple[int, int], int]


@torch.inference_mode()
def predict_logits(
    network: Network,
    volume: torch.Tensor,
    patch_zyx: Sequence[int],
    *,
    step: float = 0.5,
    skip: SkipRules | None = None,
    batch: int = 1,
    half: bool = False,
    on_window: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Run the student over a volume in Gaussian-weighted overlapping windows.

    Without `skip` every window of a regular grid is run. With it (method.md §6.4, with guards),
    levels are visited upwards and the window in the middle goes first: where it finds nothing, the
    level's others and the next level are left out. Guards, which the paper lacks: windows reach to
    the volume's ends, not only to the central 2·patch, and those that hold tissue out there are
    run; so are those of the centre where the middle window is nothing but air; a level is only
    skipped where its neighbours cover it; and foreground at a window's face makes the neighbour
    across it run. What was never looked at is background.

    Args:
        network: Maps (n, 1, z, y, x) to logits (n, C, z, y, x), in eval mode.
        volume: float32 (z, y, x), normalised, at the network's spacing and on its device.
        patch_zyx: Window size; a smaller volume is padded with zeros on both sides.
        step: Largest distance of neighbouring windows as a share of the patch.
        skip: Rules of the efficient mode; None runs everything.
        batch: Windows a forward pass.
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
    regular = [positions(size, patch, step) for size, patch in sizes]
    total = len(regular[0]) * len(regular[1]) * len(regular[2])
    if skip is None:
        run = _Run(network, padded, patch=patch_zyx, grid=regular, batch=batch, half=half)
        run.report(on_window, total)
        run.visit(_product(*(range(len(starts)) for starts in regular)))
    else:
        extended = [extended_positions(size, patch, step) for size, patch in sizes[1:]]
        grid = [regular[0], extended[0][0], extended[1][0]]
        run = _Run(network, padded, patch=patch_zyx, grid=grid, batch=batch, half=half, rules=skip)
        run.report(on_window, len(grid[0]) * len(grid[1]) * len(grid[2]))
        _visit_efficiently(run, crop, skip, extended[0][1], extended[1][1])
    logits = run.accumulator.mean(BACKGROUND_LOGIT)[(slice(None), *crop)]
    return Prediction(logits, len(run.seen), total)


class _Run:
    """The windows of one volume: runs those asked for, and the neighbours of what they find."""

    def __init__(
        self,
        network: Network,
        volume: torch.Tensor,
        *,
        patch: Sequence[int],
        grid: list[list[int]],
        batch: int,
        half: bool,
        rules: SkipRules | None = None,
    ) -> None:
        self.volume, self.patch, self.grid = volume, tuple(patch), grid
        self.accumulator = Accumulator(volume.shape, patch)
        self.findings: dict[Index, _Finding] = {}
        self.seen: set[Index] = set()
        self._network, self._batch, self._half, self._rules = network, batch, half, rules
        self._on_window: Callable[[int, int], None] | None = None
        self._total = self._done = 0

    def report(self, on_window: Callable[[int, int], None] | None, total: int) -> None:
        """Tell `on_window` from now on how far things are."""
        self._on_window, self._total = on_window, total

    def advance(self, done: int) -> None:
        """Say that at least `done` windows are run or skipped."""
        if self._on_window is not None and done > self._done:
            self._done = done
            self._on_window(done, self._total)

    def place(self, index: Index) -> tuple[slice, slice, slice]:
        """The voxels of a window."""
        z, y, x = (
            slice(starts[i], starts[i] + size)
            for starts, i, size in zip(self.grid, index, self.patch, strict=True)
        )
        return z, y, x

    def visit(self, indices: Iterable[Index]) -> None:
        """Run the windows that were not run yet, and then those that their faces ask for."""
        queue = [index for index in indices if index not in self.seen]
        while queue:
            now, queue = queue[: self._batch], queue[self._batch :]
            self.seen.update(now)
            windows = torch.stack([self.volume[self.place(index)] for index in now])[:, None]
            logits = forward(self._network, windows, self._half)
            for index, window in zip(now, logits, strict=True):
                start = [starts[i] for starts, i in zip(self.grid, index, strict=True)]
                self.accumulator.add(window, start)
                if self._rules is not None:
                    self.findings[index] = _look(window, self._rules.tubes)
                    asked = self._neighbours(index, self._rules.face_above)
                    queue += [i for i in asked if i not in self.seen and i not in queue]
            self.advance(len(self.seen))

    def _neighbours(self, index: Index, face_above: int) -> list[Index]:
        asked: list[Index] = []
        for (axis, side), count in self.findings[index].faces.items():
            place = list(index)
            place[axis] += side
            if count > face_above and 0 <= place[axis] < len(self.grid[axis]):
                asked.append((place[0], place[1], place[2]))
        return asked


def _visit_efficiently(
    run: _Run, crop: tuple[slice, ...], rules: SkipRules, rows: list[int], columns: list[int]
) -> None:
    """Walk the levels upwards; `rows` and `columns` are the central indices in y and x."""
    tissue, outside = _tissue(run, crop, rules.air, rows, columns)
    middle = (rows[len(rows) // 2], columns[len(columns) // 2])
    is_empty = False
    for level in range(len(run.grid[0])):
        wanted = [index for index in outside if index[0] == level]
        probe = (level, *middle)
        is_skipped = is_empty and _is_covered(run, level) and probe not in run.seen
        is_empty = False
        if not is_skipped:
            others = [i for i in _product([level], rows, columns) if i in tissue and i != probe]
            if probe not in tissue and probe not in run.seen:
                wanted += others  # a probe of air says nothing about the patient beside it
            else:
                run.visit([probe])
                finding = run.findings[probe]
                share = finding.foreground / (run.patch[0] * run.patch[1] * run.patch[2])
                is_empty = share < rules.empty_share
                is_tube = bool(rules.tubes) and finding.foreground > 0 and not finding.others
                # the neighbours of a tube are run where it touches their face, and only there
                if not is_empty and not is_tube:
                    wanted += others
        run.visit(wanted)
        run.advance((level + 1) * len(run.grid[1]) * len(run.grid[2]))


def _is_covered(run: _Run, level: int) -> bool:
    """Whether the levels below and above leave no slice between them that nobody looks at."""
    starts = run.grid[0]
    return 0 < level < len(starts) - 1 and starts[level + 1] <= starts[level - 1] + run.patch[0]


def _tissue(
    run: _Run, crop: tuple[slice, ...], air: float | None, rows: list[int], columns: list[int]
) -> tuple[set[Index], list[Index]]:
    """The windows that hold tissue, and those that hold some outside the central region."""
    body = torch.zeros(run.volume.shape, dtype=torch.bool, device=run.volume.device)
    # padding is never tissue, though its value may lie above that of air
    body[crop] = True if air is None else run.volume[crop] > air
    grid = list(_product(*(range(len(starts)) for starts in run.grid)))
    tissue = {index for index in grid if bool(body[run.place(index)].any())}
    first, last = run.place((0, rows[0], columns[0])), run.place((0, rows[-1], columns[-1]))
    body[:, first[1].start : last[1].stop, first[2].start : last[2].stop] = False
    return tissue, [index for index in grid if bool(body[run.place(index)].any())]


def _look(logits: torch.Tensor, tubes: frozenset[int]) -> _Finding:
    """Count what a window (C, z, y, x) found."""
    # max, not argmax: several times faster across the first axis
    labels = logits.max(0).indices
    found = labels > 0
    others = found.clone()
    for tube in tubes:
        others &= labels != tube
    faces = {
        (axis, side): int(found.select(axis, 0 if side < 0 else -1).sum())
        for axis in range(3)
        for side in (-1, 1)
    }
    return _Finding(int(found.sum()), int(others.sum()), faces)


def _product(levels: Iterable[int], rows: Iterable[int], columns: Iterable[int]) -> list[Index]:
    rows, columns = list(rows), list(columns)
    return [(level, row, column) for level in levels for row in rows for column in columns]
