"""The paper's way through a volume: the middle window of each level decides (method.md §6.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from flarekd.foreign import ALIASES, alias
from flarekd.labels import IDS
from flarekd.student.visits import Index, Visits

TUBES = frozenset({IDS["aorta"], IDS["ivc"], IDS["esophagus"]})


def tubes_of(names: Sequence[str]) -> frozenset[int]:
    """The outputs of a network that are aorta, inferior vena cava or esophagus, by their names.

    Args:
        names: Of the outputs, as anybody calls them; models of other labels have other organs under
            our ids.
    """
    return frozenset(i for i, name in enumerate(names) if ALIASES.get(alias(name)) in TUBES)


@dataclass(frozen=True)
class PaperRules:
    """Which windows the paper leaves out. Loses what the middle windows do not hint at.

    Attributes:
        air: Normalised intensity up to which a voxel is air; a window of nothing but air is not
            run. None: no window is taken for air.
        empty_share: A middle window with less foreground than this share of its voxels is empty:
            the others of its level, and the next level, are left out. The paper's is 1000 of
            32×128×192 voxels. 0: no window is empty.
        tubes: A middle window that finds only these outputs of the network (aorta, inferior vena
            cava, esophagus; see `tubes_of`) lets the others of its level run only where it has
            foreground at the face to them. Empty: no such rule.
        face_above: More foreground voxels than this on a face of a window make the neighbour across
            it run, whatever the rules say.
    """

    air: float | None = None
    empty_share: float = 1000 / (32 * 128 * 192)
    tubes: frozenset[int] = TUBES
    face_above: int = 0


@dataclass(frozen=True)
class _Finding:
    """What one window found: foreground voxels, other than tubes, and on each face (axis, side)."""

    foreground: int
    others: int
    faces: dict[tuple[int, int], int]


def visit(
    visits: Visits, body: torch.Tensor, rules: PaperRules, rows: list[int], columns: list[int]
) -> None:
    """Walk the levels upwards, the middle window first.

    Where it finds nothing, the level's others and the next level are left out. Guards, which the
    paper lacks: windows outside the central region that hold tissue are run; so are those of the
    centre where the middle window is nothing but air; a level is only skipped where its neighbours
    cover it; and foreground at a window's face makes the neighbour across it run.

    Args:
        visits: Its grid goes to the ends of the volume.
        body: bool (z, y, x), what is not air.
        rules: What to leave out.
        rows: Indices of the central region in y.
        columns: Its indices in x.
    """
    tissue, outside = _tissue(visits, body, rows, columns)
    findings: dict[Index, _Finding] = {}
    middle = (rows[len(rows) // 2], columns[len(columns) // 2])
    is_empty = False
    for level in range(len(visits.grid[0])):
        wanted = [index for index in outside if index[0] == level]
        probe = (level, *middle)
        is_skipped = is_empty and _is_covered(visits, level) and probe not in visits.seen
        is_empty = False
        if not is_skipped:
            others = [i for i in product([level], rows, columns) if i in tissue and i != probe]
            if probe not in tissue and probe not in visits.seen:
                wanted += others  # a probe of air says nothing about the patient beside it
            else:
                _follow(visits, [probe], rules, findings)
                finding = findings[probe]
                share = finding.foreground / body[visits.place(probe)].numel()
                is_empty = share < rules.empty_share
                is_tube = bool(rules.tubes) and finding.foreground > 0 and not finding.others
                # the neighbours of a tube are run where it touches their face, and only there
                if not is_empty and not is_tube:
                    wanted += others
        _follow(visits, wanted, rules, findings)
        visits.advance((level + 1) * len(visits.grid[1]) * len(visits.grid[2]))


def _follow(
    visits: Visits, indices: Iterable[Index], rules: PaperRules, findings: dict[Index, _Finding]
) -> None:
    """Run windows, and then those that their faces ask for."""
    asked = list(indices)
    while asked:
        now, asked = asked, []
        for index, window in visits.run(now):
            findings[index] = _look(visits.labels(window), rules.tubes)
            for (axis, side), count in findings[index].faces.items():
                place = list(index)
                place[axis] += side
                if count > rules.face_above and 0 <= place[axis] < len(visits.grid[axis]):
                    asked.append((place[0], place[1], place[2]))
        asked = [index for index in dict.fromkeys(asked) if index not in visits.seen]


def _is_covered(visits: Visits, level: int) -> bool:
    """Whether the levels below and above leave no slice between them that nobody looks at."""
    starts = visits.grid[0]
    return 0 < level < len(starts) - 1 and starts[level + 1] <= starts[level - 1] + visits.patch[0]


def _tissue(
    visits: Visits, body: torch.Tensor, rows: list[int], columns: list[int]
) -> tuple[set[Index], list[Index]]:
    """The windows that hold tissue, and those that hold some outside the central region."""
    grid = visits.everything()
    tissue = {index for index in grid if bool(body[visits.place(index)].any())}
    first = visits.place((0, rows[0], columns[0]))
    last = visits.place((0, rows[-1], columns[-1]))
    beside = body.clone()
    beside[:, first[1].start : last[1].stop, first[2].start : last[2].stop] = False
    return tissue, [index for index in grid if bool(beside[visits.place(index)].any())]


def _look(labels: torch.Tensor, tubes: frozenset[int]) -> _Finding:
    """Count what a window (z, y, x) found."""
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
