"""Killed, every verb leaves whole files or none and does the rest when run again.

Here a few times with whole processes and their workers; ``test_kills.py`` (slow) is thorough.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
from tests.end_to_end.command import TINY, flarekd
from tests.end_to_end.warm import CORES

from flarekd.cohort import Case, format_cohort
from flarekd.errors import LESS_MEMORY
from flarekd.imaging.files import list_scans, read_labels, write_labels
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.parallel import cpu_count
from flarekd.training.log import read_log

SETTINGS = [part for setting in TINY for part in ("--set", setting)]


def killed(arguments, after_s, how=signal.SIGKILL, once=None):
    """Start the command and kill it; whether it was still running.

    Args:
        arguments: Of the command.
        after_s: Seconds after it began.
        how: The signal.
        once: A file that has to be there before the seconds are counted.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flarekd", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(CORES)},  # sums go as where it goes on
        # a job started in the background ignores Ctrl-C, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads)
    )
    until = time.monotonic() + 120
    while once and not once.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(after_s)
    running = process.poll() is None
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    return running, process.returncode, stderr


def files(folder, *patterns):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for pattern in patterns
        for path in sorted(folder.rglob(pattern))
        if not path.name.startswith(".tmp-")
    }


@pytest.mark.parametrize("after_s", [0.3, 0.8, 1.1])
def test_fuse_killed_and_run_again_gives_the_same_bytes(demo, tmp_path, after_s):
    out, _ = demo
    verb = [
        "fuse",
        "--cohort",
        out / "cohort.csv",
        "--tumor",
        out / "tumor",
        "--out",
        tmp_path / "f",
    ]
    killed(verb, after_s)
    for path in list_scans(tmp_path / "f").values() if (tmp_path / "f").exists() else ():
        read_labels(path)  # whatever is visible is whole
    flarekd(*verb)
    assert files(tmp_path / "f", "*.nii.gz") == files(out / "fused", "*.nii.gz")


@pytest.fixture(scope="module")
def segmented(demo, tmp_path_factory):
    """The command that segments, but for its folder, and what it makes without a stop."""
    out, _ = demo
    scans = out / "cohort" / "imagesTr"
    verb = ["infer", scans, "--model", out / "student" / "model.safetensors", "--out"]
    whole = tmp_path_factory.mktemp("segmented") / "whole"
    flarekd(*verb, whole)
    assert len(files(whole, "*.nii.gz")) == len(list_scans(scans))
    return verb, whole


@pytest.mark.parametrize(("once", "after_s"), [(None, 2.5), ("done.jsonl", 0.0)])
def test_infer_killed_and_run_again_gives_the_same_bytes(segmented, tmp_path, once, after_s):
    verb, whole = segmented
    cut = tmp_path / "cut"
    running, *_ = killed([*verb, cut], after_s, once=once and cut / once)
    assert running or not once
    flarekd(*verb, cut)
    assert files(cut, "*.nii.gz") == files(whole, "*.nii.gz")


@pytest.fixture(scope="module")
def teacher(demo, tmp_path_factory):
    """The command that trains a teacher, but for its folder, and one trained without a stop."""
    out, _ = demo
    verb = ["train-teacher", "--cohort", out / "cohort.csv", "--config", "configs/quick.yaml"]
    verb += [*SETTINGS, "--set", "teacher.epochs=6", "--set", "teacher.iterations=6"]
    verb += ["--set", "teacher.checkpoint_minutes=0", "--out"]
    whole = tmp_path_factory.mktemp("teacher") / "whole"
    flarekd(*verb, whole)
    return verb, whole


@pytest.mark.parametrize("once", ["config.yaml", "checkpoint-previous.safetensors"])
def test_training_killed_and_resumed_gives_the_same_model(teacher, tmp_path, once):
    verb, whole = teacher
    cut = tmp_path / "cut"
    running, *_ = killed([*verb, cut], 0.0, once=cut / once)
    assert running
    checkpoint = cut / "checkpoint.safetensors"
    again = flarekd(*verb, cut, *(["--resume"] if checkpoint.exists() else []))
    assert ("continuing at iteration" in again.stderr) == ("--resume" in again.args)
    assert files(whole, "model.safetensors") == files(cut, "model.safetensors")
    losses = [[record["loss"] for record in read_log(run / "log.jsonl")] for run in (whole, cut)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_phantoms_killed_and_made_again_have_the_same_bytes(tmp_path):
    verb = ["phantom", "--cases", "4", "--seed", "5", "--jobs", "1", "--out"]
    flarekd(*verb, tmp_path / "whole")
    cut = tmp_path / "cut"
    running, *_ = killed([*verb, cut], 0.6, once=cut / "phantom.json")
    assert running
    flarekd(*verb, cut)
    assert files(cut, "*.nii.gz") == files(tmp_path / "whole", "*.nii.gz")


def test_group_data_and_evaluate_killed_leave_no_torn_file(demo, tmp_path):
    out, _ = demo
    cohort = out / "cohort"
    group = ["group-data", "--images", cohort / "imagesTr", "--labels", cohort / "labelsTr"]
    score = ["evaluate", "--predictions", out / "predictions", "--references", cohort / "labelsVal"]
    for verb, results in ((group, "*.csv"), (score, "scores.*")):
        target = [*verb, "--out", tmp_path / "cut" / ("cohort.csv" if verb is group else "scores")]
        whole = [*verb, "--out", tmp_path / "whole" / ("cohort.csv" if verb is group else "scores")]
        flarekd(*whole)
        killed(target, 0.9)
        flarekd(*target)
        assert files(tmp_path / "cut", results) == files(tmp_path / "whole", results)
        assert files(tmp_path / "cut", results)


HUGE = (512, 512, 600)
LIMIT = 500 * 2**20
"""Bytes of a worker's memory: small cases take a third of it, a huge one half as much again."""


def kill_large_workers(process):
    """Do as the kernel does where memory is short, until the process has ended; how many fell."""
    fallen = set()
    while process.poll() is None:
        for worker in psutil.Process(process.pid).children():
            with suppress(psutil.Error):
                if worker.memory_info().rss > LIMIT:
                    worker.kill()
                    fallen.add(worker.pid)
        time.sleep(0.01)
    return len(fallen)


@pytest.mark.skipif(cpu_count() < 2, reason="one processor has no workers")
def test_a_case_that_workers_die_of_is_named_and_the_rest_is_fused(tmp_path):
    rows = []
    for name in ("a", "huge", "b", "c"):
        geometry = Geometry(HUGE if name == "huge" else (20, 20, 10), (1.0, 1.0, 1.0))
        empty = LabelMap(np.zeros(geometry.shape_zyx, np.uint8), geometry)
        paths = [tmp_path / folder / f"{name}.nii.gz" for folder in ("labels", "organs", "tumor")]
        for path in paths:
            write_labels(path, empty)
        rows.append(Case(name, paths[0], "train", 2, frozenset({1}), paths[0], paths[1]))
    (tmp_path / "cohort.csv").write_text(format_cohort(rows, tmp_path), encoding="utf-8")
    verb = ["fuse", "--cohort", tmp_path / "cohort.csv", "--tumor", tmp_path / "tumor"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flarekd", *map(str, verb), "--out", tmp_path / "fused"],
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    fallen = kill_large_workers(process)
    _, stderr = process.communicate()
    assert process.returncode == 4, stderr
    # with the others, and twice alone
    assert fallen == 3
    assert "1 case not fused: huge: its process was killed, and again when" in stderr
    assert LESS_MEMORY in stderr
    assert sorted(list_scans(tmp_path / "fused")) == ["a", "b", "c"]


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(demo, tmp_path):
    out, _ = demo
    verb = ["train-student", "--cohort", out / "cohort.csv", "--labels", out / "fused", *SETTINGS]
    verb += [
        "--config",
        "configs/quick.yaml",
        "--set",
        "student.epochs=500",
        "--out",
        tmp_path / "s",
    ]
    running, status, stderr = killed(verb, 0.5, signal.SIGINT, once=tmp_path / "s" / "log.jsonl")
    assert running
    assert status == 130, stderr
    assert "interrupted · run the same command again" in stderr
    assert "Traceback" not in stderr
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
