"""SIGTERM, as a container engine sends it: every verb leaves in time, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tests.end_to_end.command import TINY, flarekd

from flarekd.interrupts import GRACE_S
from flarekd.lock import NAME
from flarekd.training.checkpoint import read_facts

SETTINGS = [part for setting in TINY for part in ("--set", setting)]
QUICK = ["--config", "configs/quick.yaml", *SETTINGS]
ALLOWED_S = 10


def start(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "flarekd", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop(process):
    """Ask it to end; seconds taken, and what it said."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    return time.monotonic() - began, stderr


def left(process):
    """Processes of its session that are still there after a moment; they saw their parent end."""
    for _ in range(30):
        found = [one for one in psutil.process_iter() if is_of(one, process.pid)]
        if not found:
            break
        time.sleep(0.1)
    return found


def is_of(one, session):
    try:
        return os.getsid(one.pid) == session and one.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def litter(folder):
    return [p for p in folder.rglob("*") if p.name.startswith(".tmp-") or p.name == NAME]


def wait_for(process, folder, pattern, seconds=120):
    until = time.monotonic() + seconds
    while not any(path.stat().st_size for path in folder.rglob(pattern) if path.exists()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("jobs", [1, 3])
def test_phantom_stops_in_time_with_its_workers(tmp_path, jobs):
    out = tmp_path / "cohort"
    process = start(["phantom", "--cases", 60, "--jobs", jobs, "--out", out])
    wait_for(process, out, "*.nii.gz")
    took_s, stderr = stop(process)
    assert process.returncode == 143
    assert took_s < ALLOWED_S
    assert "ended by SIGTERM · run the same command again" in stderr
    assert "Traceback" not in stderr
    assert not left(process)
    assert not litter(tmp_path)


def test_training_stops_with_a_checkpoint_and_goes_on_from_it(demo, tmp_path):
    out, _ = demo
    run = tmp_path / "run"
    verb = ["train-teacher", "--cohort", out / "cohort.csv", *QUICK, "--out", run]
    many = ["--set", "teacher.epochs=100000"]
    process = start([*verb, *many])
    wait_for(process, run, "log.jsonl")
    took_s, stderr = stop(process)
    assert process.returncode == 143, stderr
    assert took_s < ALLOWED_S
    assert not left(process)
    assert not litter(run)
    assert "Traceback" not in stderr
    if took_s > GRACE_S:
        pytest.skip("this machine had no time for a checkpoint")
    facts = read_facts(run / "checkpoint.safetensors")
    assert f"a checkpoint of iteration {facts['iteration']} is written" in stderr
    process = start([*verb, *many, "--resume"])
    until = f"continuing at iteration {facts['iteration']}"
    seen = ""
    while until not in seen and (line := process.stderr.readline()):
        seen += line
    assert until in seen
    stop(process)
    assert process.returncode == 143


# after a second every verb still imports what all import
@pytest.mark.parametrize(
    ("name", "after_s"),
    [
        ("infer", 1.0),
        *((name, 2.5) for name in ("group-data", "pseudo-tumor", "fuse", "infer", "evaluate")),
    ],
)
def test_other_verbs_finish_or_leave_cleanly(demo, tmp_path, name, after_s):
    out, _ = demo
    cohort, model = out / "cohort", out / "student" / "model.safetensors"
    target = tmp_path / "out"
    verb = {
        "group-data": ["--images", cohort / "imagesTr", "--labels", cohort / "labelsTr"],
        "pseudo-tumor": ["--cohort", out / "cohort.csv", "--model", out / "teacher" / model.name],
        "fuse": ["--cohort", out / "cohort.csv", "--tumor", out / "tumor"],
        "infer": [cohort / "imagesTr", "--model", model],
        "evaluate": ["--predictions", out / "predictions", "--references", cohort / "labelsVal"],
    }[name]
    where = target / "cohort.csv" if name == "group-data" else target
    process = start([name, *verb, "--out", where])
    time.sleep(after_s)
    took_s, stderr = stop(process)
    # SIGTERM itself where Python had not even begun to run the verb
    assert process.returncode in (0, 143, -signal.SIGTERM), stderr
    assert took_s < ALLOWED_S
    assert "Traceback" not in stderr
    assert not left(process)
    assert not litter(tmp_path)
    flarekd(name, *verb, "--out", where)


def test_a_second_run_in_a_folder_is_refused(demo, tmp_path):
    out, _ = demo
    run = tmp_path / "run"
    verb = ["train-teacher", "--cohort", out / "cohort.csv", *QUICK, "--out", run]
    first = start([*verb, "--set", "teacher.epochs=100000"])
    wait_for(first, run, "log.jsonl")
    again = flarekd(*verb, check=False)
    assert again.returncode == 2
    assert f"process {first.pid} on " in again.stderr
    assert "wait until it is done" in again.stderr
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert flarekd(*verb).returncode == 0
    assert not litter(run)
