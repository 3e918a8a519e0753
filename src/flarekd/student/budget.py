"""Keep to the memory a user allows: known from the scans' headers before anything is read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from flarekd.errors import FlarekdError, UsageError
from flarekd.imaging.files import read_geometry, voxel_bytes
from flarekd.imaging.volume import Shape
from flarekd.inference.accumulate import forward
from flarekd.inference.memory_plan import ALLOWANCE, Need, alone, need, overlapped
from flarekd.inference.mixing import working_bytes
from flarekd.memory import give_back_freed_memory
from flarekd.student.segment import Student

GB = 10**9


@dataclass(frozen=True)
class Budget:
    """What may be taken, and what a run takes whatever the scan.

    Attributes:
        student: Whose scans are planned.
        allowed: Bytes the process may take.
        base: Bytes it takes at the peak of one window, model and libraries among them.
        keeps_scan: Whether scans are needed again beside their labels.
        beside: Bytes that are taken by what is written beside the labels of a shape (z, y, x).
    """

    student: Student
    allowed: float
    base: int
    keeps_scan: bool
    beside: Callable[[Shape], int]

    @classmethod
    def of(
        cls,
        student: Student,
        max_memory_gb: float,
        *,
        keeps_scan: bool,
        beside: Callable[[Shape], int],
    ) -> Budget:
        """Run one window of nothing, to see what the network takes on this machine.

        To be made once, before the first case: what the process holds then is taken for what it
        always takes. All that is loaded later would come on top.

        Raises:
            UsageError: If that is more than is allowed.
        """
        predictor = student.predictor
        _forget_peak()
        window = torch.zeros((1, 1, *predictor.card.patch), device=predictor.device)
        with torch.inference_mode():
            forward(predictor.network, window)
        budget = cls(student, max_memory_gb * GB, _most_taken() + ALLOWANCE, keeps_scan, beside)
        if budget.base > budget.allowed:
            raise UsageError(
                f"--max-memory {max_memory_gb:g}: the network alone takes {budget.base / GB:.2f} GB"
                " for one window",
                f"allow {budget.base / GB + 0.5:.1f} or more",
            )
        return budget

    def needs(self, path: Path) -> Need:
        """What a scan takes, from its header."""
        geometry = read_geometry(path)
        grid = self.student.predictor.grid(geometry)
        patch = self.student.predictor.card.patch
        z, y, x = (max(size, least) for size, least in zip(grid, patch, strict=True))
        # in full mode planes leave as they are done, two of them for the labels between them
        planes = min(z, patch[0] + 2) if self.student.windows == "full" else z
        shape, channels = geometry.shape_zyx, self.student.predictor.channels
        return need(
            shape,
            (z, y, x),
            channels,
            planes,
            keeps_scan=self.keeps_scan,
            stored=voxel_bytes(path),
            labelling=working_bytes(channels, (y, x), shape[1:], self.student.predictor.head),
            beside=self.beside(shape),
        )

    def plan(
        self, scans: Mapping[str, Path], labelled: Collection[str] = ()
    ) -> tuple[dict[str, str], bool]:
        """What fits into the budget.

        Args:
            scans: By case.
            labelled: Those that have their label maps, and lack something beside it: the network
                does not run.

        Returns:
            The scans that cannot be done, and why; and whether the next of the others may be read
            and the last written while one is segmented.
        """
        refused: dict[str, str] = {}
        needs = []
        for case, path in scans.items():
            try:
                takes = self.needs(path)
            except FlarekdError as error:
                refused[case] = str(error)
                continue
            if case in labelled:
                takes = replace(takes, network=0)
            whole = self.base + alone(takes)
            if whole > self.allowed:
                refused[case] = (
                    f"{path} takes about {whole / GB:.2f} GB, --max-memory allows"
                    f" {self.allowed / GB:g} · allow more"
                    + ("" if case in labelled else ", or take a model of coarser spacing")
                )
            else:
                needs.append(takes)
        return refused, len(needs) > 1 and self.base + overlapped(needs) <= self.allowed


def _forget_peak() -> None:
    """Let the peak begin anew: a worker of a cluster may have done other runs before this one."""
    give_back_freed_memory()
    with suppress(OSError):  # not Linux, or not allowed: the plan is too careful, no less
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _most_taken() -> int:
    """Bytes this process has held at its peak so far."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells counts what the process that started this one held
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    import resource  # not on Windows, where nobody has asked for this yet

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
