"""bench: a command → what it took, as FLARE measures it: bench.csv, bench.json, bench.png."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

from flarekd import __version__, console, efficiency
from flarekd.efficiency import Run
from flarekd.errors import UsageError
from flarekd.gpu_memory import GpuMemory
from flarekd.imaging.atomic import write_json, write_text
from flarekd.lock import NAME, alone
from flarekd.report.usage import draw_usage, usage_table
from flarekd.tables import format_table
from flarekd.watch import watch


# a lock of its own: the command that is measured may take the folder's
@alone(console.warn, name=lambda _: f"{NAME}-bench")
def bench(
    command: Sequence[str],
    out: Path,
    interval_s: float = 0.1,
    repeat: int = 1,
    gpu_index: int | None = None,
) -> int:
    """Run a command, once or several times, and write what it took.

    Args:
        command: Program and arguments; ``{run}`` in an argument becomes the number of the run,
            from 1.
        out: Gets bench.csv, bench.json and bench.png.
        interval_s: Nominal time between samples.
        repeat: Runs; the first that fails is the last.
        gpu_index: The device whose memory is sampled; None is device 0 if there is one.

    Returns:
        The exit status of the last run, as a shell gives it.

    Raises:
        UsageError: If there is no such command or GPU, or another bench writes to `out`.
    """
    gpu = _open_gpu(gpu_index)
    if repeat > 1 and _skips_what_is_done(command):
        console.warn(
            f"runs 2 to {repeat} find the files of run 1, and flarekd leaves alone what is done: "
            "their numbers would be of that · give each run a folder: --out 'out-{run}'"
        )
    started = datetime.now(timezone.utc)
    runs: list[Run] = []
    for number in range(1, repeat + 1):
        words = [word.replace("{run}", str(number)) for word in command]
        runs.append(watch(words, interval_s, gpu.used_mb if gpu else None))
        if runs[-1].status:
            break
    summaries = [efficiency.summary(run, interval_s) for run in runs]
    write_text(out / "bench.csv", _curve(runs))
    facts = {
        "flarekd": __version__,
        "command": list(command),
        "started": started.isoformat(timespec="seconds"),
        "interval_s": interval_s,
        "gpu": {"index": gpu_index or 0, "name": gpu.name} if gpu else None,
        "allowed": {"seconds": efficiency.SECONDS_ALLOWED, "gpu_mb": efficiency.GPU_MB_ALLOWED},
        "runs": summaries,
    }
    write_json(out / "bench.json", facts)
    draw_usage(runs, out / "bench.png")
    console.table(*usage_table(shlex.join(command), summaries))
    status = runs[-1].status
    if status:
        console.warn(f"run {len(runs)} ended with status {status}: its numbers are not a whole run")
    console.info(f"{out}: bench.csv, bench.json, bench.png")
    return status


def _skips_what_is_done(command: Sequence[str]) -> bool:
    """Whether a verb of flarekd is run again and again on the same files."""
    is_ours = any(
        Path(word).name == "flarekd" and (before == "-m" or not before.startswith("-"))
        for before, word in pairwise(["", *command])  # not what an option is given
    )
    return is_ours and not any("{run}" in word for word in command)


def _open_gpu(index: int | None) -> GpuMemory | None:
    """The device; None where there is none and nobody asked for one, which is said."""
    try:
        return GpuMemory(index or 0)
    except UsageError as error:
        if index is not None:
            raise
        console.info(f"without GPU memory: {error.what}")
        return None


def _curve(runs: Sequence[Run]) -> str:
    columns = ["run", *asdict(runs[0].samples[0])]
    if runs[0].samples[0].gpu_mb is None:
        columns.remove("gpu_mb")
    rows = []
    for number, run in enumerate(runs, 1):
        for sample in run.samples:
            rounded = {key: round(value, 4) for key, value in asdict(sample).items() if value}
            rows.append({**dict.fromkeys(columns, 0), "run": number, **rounded})
    return format_table(columns, rows)
