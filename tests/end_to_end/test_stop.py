"""SIGTERM, as a container engine sends it: every verb leaves in time, and leaves nothing behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tests.end_to_end.command import TINY, demo_arguments, flarekd, set_all
from tests.imaging.bad_inputs import SIZE, nifti
from tests.stages.test_pseudo_organs import model

from flarekd.imaging.files import list_scans
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


def assert_left_cleanly(process, folder, took_s, stderr, statuses=(143,)):
    """That a process which was asked to end did so in time, and left nothing behind."""
    assert process.returncode in statuses, stderr
    assert took_s < ALLOWED_S
    assert "Traceback" not in stderr
    assert not left(process)
    assert not litter(folder)


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
    assert_left_cleanly(process, tmp_path, took_s, stderr)
    assert "ended by SIGTERM · run the same command again" in stderr


def test_training_stops_with_a_checkpoint_and_goes_on_from_it(demo, tmp_path):
    out, _ = demo
    run = tmp_path / "run"
    verb = ["train-teacher", "--cohort", out / "cohort.csv", *QUICK, "--out", run]
    many = ["--set", "teacher.epochs=100000"]
    process = start([*verb, *many])
    wait_for(process, run, "log.jsonl")
    took_s, stderr = stop(process)
    assert_left_cleanly(process, run, took_s, stderr)
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
    assert_left_cleanly(process, tmp_path, took_s, stderr, (0, 143, -signal.SIGTERM))
    flarekd(name, *verb, "--out", where)


def stopped_once(verb, folder, pattern, statuses=(0, 143)):
    """Stop a command as soon as it has written such a file, and run it again to its end."""
    process = start(verb)
    wait_for(process, folder, pattern)
    assert_left_cleanly(process, folder, *stop(process), statuses)
    return flarekd(*verb)


def test_review_leaves_cleanly_between_two_pictures(demo, tmp_path):
    out, _ = demo
    verb = ["review", out / "cohort.csv", "--labels", out / "fused", "--out", tmp_path / "page"]
    stopped_once(verb, tmp_path, "*.webp")
    cases = list_scans(out / "fused")
    assert {path.stem for path in tmp_path.rglob("*.webp")} == set(cases)
    assert (tmp_path / "page" / "review.html").exists()


def test_pseudo_organs_leave_cleanly_and_go_on(demo, tmp_path):
    out, _ = demo
    made = model(tmp_path / "organs.safetensors", spacing=(16.0, 12.0, 12.0))
    verb = ["pseudo-organs", "--cohort", out / "cohort.csv", "--model", made, "--quality"]
    stopped_once([*verb, "--out", tmp_path / "organs"], tmp_path, "*.nii.gz")
    with (tmp_path / "organs" / "quality.csv").open(encoding="utf-8") as file:
        figures = [row["case"] for row in csv.DictReader(file)]
    assert set(figures) == set(list_scans(tmp_path / "organs"))
    assert figures


def test_check_leaves_cleanly_while_it_repairs(tmp_path):
    """With workers, where there is more than one processor: each writes copies."""
    count = 300
    for number in range(count):
        nifti(f"case_{number:03d}.nii.gz", dim=[4, *SIZE, 1, 1, 1, 1])(tmp_path / "in")
    fix = tmp_path / "fixed"
    stopped_once(["check", tmp_path / "in", "--fix", fix], fix, "*.nii.gz", (143,))
    assert len(list_scans(fix / "in")) == count
    assert len(json.loads((fix / "changes.json").read_text(encoding="utf-8"))) == count


def test_run_stops_with_a_checkpoint_and_goes_on_from_it(demo, tmp_path):
    cohort, out = demo[0] / "cohort", tmp_path / "out"
    config = tmp_path / "mine.yaml"
    names = {"images": "imagesTr", "labels": "labelsTr", "organ_pseudo": "organPseudo"}
    data = "".join(f"  {key}: {cohort / name}\n" for key, name in names.items())
    config.write_text(f"base: quick\ndata:\n{data}  out: {out}\n", encoding="utf-8")
    verb = ["run", "--config", config, *set_all("teacher.epochs=30"), "--device", "cpu"]
    process = start(verb)
    wait_for(process, out, "log.jsonl")
    took_s, stderr = stop(process)
    assert_left_cleanly(process, out, took_s, stderr)
    done = flarekd(*verb)
    # a busy machine may have had no time for a checkpoint
    assert took_s > GRACE_S or "continuing at iteration" in done.stderr
    assert (out / "student" / "model.safetensors").exists()


@pytest.mark.slow
def test_demo_leaves_cleanly_and_goes_on(tmp_path):
    out = tmp_path / "demo"
    # among phantoms, which workers make; then in the training, which is all that comes after them
    for pattern in ("*.nii.gz", "log.jsonl"):
        process = start(demo_arguments(out, "teacher.epochs=100000"))
        wait_for(process, out, pattern)
        assert_left_cleanly(process, out, *stop(process))


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
