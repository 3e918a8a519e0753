"""The real command line as a subprocess, and a demo at toy size."""

import subprocess
import sys

TINY = [
    "phantoms.cases=10",
    "teacher.epochs=1",
    "teacher.iterations=3",
    "teacher.batch=2",
    "teacher.channels=[4, 4, 8, 8]",
    "student.epochs=1",
    "student.iterations=3",
    "student.batch=1",
    "student.channels=[4, 4, 8, 8]",
]


def flarekd(*arguments, check=True):
    """Run the command line; the finished process with its output as text."""
    done = subprocess.run(
        [sys.executable, "-m", "flarekd", *map(str, arguments)],
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
