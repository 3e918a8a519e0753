"""Thousands of cases: group-data and fuse, their time and memory, killed in the middle, on Dask.

`python -m benchmarks.cohort [--cases 4000] [--out cohort-benchmark] [--kills 3] [--cluster]`. The
cases are tiny (32×32×24 voxels): what is measured is all that is done for a case, not its voxels. A
quarter has each of groups 1, 4 and 7 and no label at all; all have organ pseudo-labels, and those
that need them tumour pseudo-labels. Memory is that of all processes of a verb together, for all
cases and for a quarter of them. The verbs are then killed (SIGKILL) at random moments and run
again, and run by a Dask cluster of two local workers; what they write must be the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.processes import Run, measure
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import GROUPS, ORGANS, TUMOR
from flarekd.parallel import cpu_count, map_cases

GEOMETRY = Geometry((32, 32, 24), (6.0, 6.0, 10.0), (-96.0, -96.0, 0.0))
KINDS = (1, 4, 7, None)
"""Groups in turn; None has no label file."""

FLARE = (sys.executable, "-m", "flarekd")


@dataclass(frozen=True)
class Case:
    """One case to make."""

    folder: Path
    number: int

    @property
    def name(self) -> str:
        """Its id."""
        return f"tiny_{self.number:05d}"


def make(case: Case) -> None:
    """Write a body of thirteen ellipsoids and a tumour in the liver, its labels and pseudo-labels.

    The left kidney is left out of every tenth label file, and every twentieth scan ends below the
    stomach.
    """
    name, group = f"{case.name}.nii.gz", KINDS[case.number % len(KINDS)]
    image = case.folder / "imagesTr" / f"{case.name}_0000.nii.gz"
    if image.exists():
        return
    organs, tumor = body(np.random.default_rng(case.number))
    if group is not None:
        drawn = np.where(tumor, TUMOR, organs)
        ids = set(GROUPS[group]) - ({13} if case.number % 10 == 0 else set())
        labels(case.folder / "labelsTr" / name, np.where(np.isin(drawn, list(ids)), drawn, 0))
    labels(case.folder / "organPseudo" / name, organs)
    if group not in (1, 4):
        labels(case.folder / "tumor" / name, np.where(tumor, TUMOR, 0))
    hu = np.where(organs > 0, 60, -50).astype(np.int16)
    write_volume(image, Volume(hu, GEOMETRY))


def body(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Organ ids (z, y, x) and the tumour's mask."""
    grid = np.indices(GEOMETRY.shape_zyx).astype(np.float64)
    organs = np.zeros(GEOMETRY.shape_zyx, np.uint8)
    for organ in ORGANS:
        # a place of its own for each, moved a little from body to body
        z, y, x = 3 + 1.4 * organ, 8 + 5 * (organ % 4), 6 + 5 * (organ % 5)
        centre = np.asarray([z, y, x]) + generator.normal(0, 0.5, 3)
        radii = generator.uniform(2.0, 3.0, 3)
        distance = sum(
            ((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)
        )
        organs[np.asarray(distance) < 1] = organ
    tumor = (organs == 1) & (grid[2] > 10)
    return organs, tumor


def labels(path: Path, array: np.ndarray) -> None:
    """Write a label map."""
    write_labels(path, LabelMap(array.astype(np.uint8), GEOMETRY))


def quarter(cohort: Path, out: Path, count: int) -> Path:
    """A cohort of links to the first cases of another."""
    for folder in ("imagesTr", "labelsTr", "organPseudo", "tumor"):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted((cohort / folder).glob("*.nii.gz")):
            link = out / folder / path.name
            if int(path.name[5:10]) < count and not link.exists():
                link.symlink_to(path.resolve())
    return out


def commands(cohort: Path, out: Path, scheduler: str | None = None) -> dict[str, list[str]]:
    """Both verbs."""
    more = ["--scheduler", scheduler] if scheduler else []
    folders = {"images": "imagesTr", "labels": "labelsTr", "organ-pseudo": "organPseudo"}
    given = [word for name, folder in folders.items() for word in (f"--{name}", cohort / folder)]
    table = out / "cohort.csv"
    tumor = ["--tumor", cohort / "tumor", "--out", out / "fused"]
    verbs = {
        "group-data": ["group-data", *given, "--out", table, *more],
        "fuse": ["fuse", "--cohort", table, *tumor, *more],
    }
    return {name: [*FLARE, *map(str, words)] for name, words in verbs.items()}


def run(cohort: Path, out: Path, scheduler: str | None = None) -> dict[str, Run]:
    """Run both verbs into a fresh folder."""
    shutil.rmtree(out, ignore_errors=True)
    runs = {}
    for verb, command in commands(cohort, out, scheduler).items():
        runs[verb] = measure(command, out / f"{verb}.log")
        if runs[verb].status:
            raise SystemExit(f"{verb} ended with {runs[verb].status}: see {out / verb}.log")
    return runs


def digest(out: Path) -> str:
    """SHA-256 of what was written: no dot-files of kills, no logs, nor the order it was done in."""
    found = [
        path
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix not in (".log", ".jsonl") and "/." not in path.as_posix()
    ]
    whole = hashlib.sha256()
    for path in found:
        name = path.relative_to(out).as_posix()
        whole.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return f"{whole.hexdigest()[:16]} of {len(found)} files"


def killed(cohort: Path, out: Path, after: dict[str, float]) -> str:
    """Kill each verb after so many seconds, run it again, and return the digest."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for verb, command in commands(cohort, out).items():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(after[verb])
            print(f"  {verb} was done before it could be killed")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, check=True, capture_output=True)
    return digest(out)


@contextmanager
def cluster() -> Iterator[str]:
    """A Dask scheduler and two workers of one thread each."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        yield local.scheduler_address


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the cohort, run everything and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path("cohort-benchmark"))
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--cluster", action="store_true")
    options = parser.parse_args(arguments)
    cohort = options.out / f"cases-{options.cases}"
    todo = [Case(cohort, number) for number in range(options.cases)]
    failed = [one.error for one in map_cases(make, todo, cpu_count()) if one.error]
    if failed:
        raise SystemExit(failed[0])
    facts: dict[str, object] = {"cases": options.cases, "processors": cpu_count()}
    few = quarter(cohort, options.out / f"quarter-{options.cases}", options.cases // 4)
    for name, source in (("a quarter", few), ("all", cohort)):
        runs = run(source, options.out / "whole")
        facts[name] = {verb: asdict(one) for verb, one in runs.items()}
        for verb, one in runs.items():
            print(
                f"{name}: {verb} {one.wall_s:.1f} s, {one.cpu_s:.1f} CPU s, {one.peak_mib:.0f} MiB"
            )
    facts["bytes"] = whole = digest(options.out / "whole")
    print(f"bytes: {whole}")
    chance = random.Random(0)
    for number in range(options.kills):
        after = {verb: one.wall_s * chance.uniform(0.1, 0.7) for verb, one in runs.items()}
        found = killed(cohort, options.out / "killed", after)
        moments = ", ".join(f"{verb} after {seconds:.1f} s" for verb, seconds in after.items())
        print(f"killed {moments}, run again: {'the same' if found == whole else found}")
        facts[f"killed {number}"] = {"after_s": after, "same": found == whole}
    with cluster() if options.cluster else nullcontext() as scheduler:
        if scheduler:
            runs = run(cohort, options.out / "dask", scheduler)
            found = digest(options.out / "dask")
            facts["dask"] = {verb: asdict(one) for verb, one in runs.items()}
            facts["dask"]["same"] = found == whole  # type: ignore[index]
            walls = ", ".join(f"{verb} {one.wall_s:.1f} s" for verb, one in runs.items())
            print(f"Dask, two workers: {walls}; {'the same' if found == whole else found}")
    (options.out / "cohort.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
