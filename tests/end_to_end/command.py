"""The real command line in a process of its own, and a demo at toy size."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.end_to_end import warm

TINY = [
    "phantoms.cases=10",
    "teacher.epochs=1",
    "teacher.iterations=3",
    "teacher.batch=2",
    "teacher.channels=[4, 4, 8, 8]",
    "teacher.spacing=[12.0, 12.0]",
    "teacher.patch=[1, 16, 32]",
    "teacher.oversize=[1, 16, 32]",
    "student.epochs=1",
    "student.iterations=3",
    "student.batch=1",
    "student.channels=[4, 4, 8, 8]",
    "student.spacing=[16.0, 12.0, 12.0]",
    "student.patch=[8, 16, 24]",
    "student.oversize=[8, 16, 24]",
]


def flarekd(*arguments, check=True, **options):
    """Run the command line; the finished process with its output as text.

    Args:
        arguments: Of the verb.
        check: Whether it must succeed.
        options: As `warm.start` takes them.
    """
    words = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        process = warm.start(words, *said, **options)
        process.join(240)
        is_late = process.is_alive()
        process.kill()
        texts = [path.read_text(encoding="utf-8") for path in said]
    assert not is_late, texts
    if check:
        assert process.exitcode == 0, texts[1]
    return subprocess.CompletedProcess(words, process.exitcode, *texts)


def separate(*arguments, check=True):
    """As `flarekd`, in a process that begins anew: slower, and with no memory but its own."""
    words = list(map(str, arguments))
    done = subprocess.run(
        [sys.executable, "-m", "flarekd", *words],
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def set_all(*settings):
    """The options of a toy size, and further settings."""
    return [part for setting in [*TINY, *settings] for part in ("--set", setting)]


def demo_arguments(out, *settings):
    return ["demo", "--out", out, "--seed", "3", *set_all(*settings)]
