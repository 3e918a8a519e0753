"""A clock that jumps, as time servers and virtual machines make it, changes no span and no file."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from tests.end_to_end import whole
from tests.end_to_end.command import flarekd, set_all

from flarekd.imaging.files import list_scans, read_labels, write_labels
from flarekd.training.log import read_log

JUMPS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <sys/time.h>
static unsigned turn;
static time_t jump(void) {
  turn = turn * 1103515245 + 12345;
  return (time_t)(turn >> 16) - 32768;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += jump();
  return status;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec time;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &time);
  now->tv_sec = time.tv_sec;
  now->tv_usec = time.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *now) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (now) *now = found.tv_sec;
  return found.tv_sec;
}
"""
"""Each look at the time of day is up to nine hours early or late, at random."""

TEN_YEARS_S = 10 * 365 * 86400


@pytest.fixture(scope="module")
def jumping(tmp_path_factory):
    """Variables of a process whose clock jumps, whoever looks at it."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler to make a clock that jumps")
    folder = tmp_path_factory.mktemp("clock")
    source, library = folder / "jumps.c", folder / "jumps.so"
    source.write_text(JUMPS, encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    variables = os.environ | {"LD_PRELOAD": str(library)}
    look = [sys.executable, "-c", "import time; print(time.time() - time.time())"]
    looked = subprocess.run(look, env=variables, capture_output=True, check=True)
    assert abs(float(looked.stdout)) > 600
    return variables


def test_spans_are_right_and_checkpoints_wait_for_their_minutes(demo, jumping, tmp_path):
    """A training watched by bench: speed, waiting, what is left, RAM over time."""
    run, bench = tmp_path / "run", tmp_path / "bench"
    words = [sys.executable, "-m", "flarekd"]
    train = [*words, "train-teacher", "--cohort", demo[0] / "cohort.csv", "--out", run]
    train += ["--config", "configs/quick.yaml"]
    # minutes that pass in a jump and not while this runs
    train += set_all("teacher.epochs=4", "teacher.checkpoint_minutes=60")
    began = time.monotonic()
    done = subprocess.run(
        [*map(str, [*words, "bench", "--out", bench, "--", *train])],
        env=jumping, capture_output=True, encoding="utf-8", timeout=240, check=True,
    )  # fmt: skip
    passed_s = time.monotonic() - began
    assert not (run / "checkpoint-previous.safetensors").exists()  # one checkpoint, at the end
    records = read_log(run / "log.jsonl")
    assert len(records) == 4
    assert 0 < sum(record["seconds"] for record in records) < passed_s
    for record in records:
        assert 3 / passed_s < record["iterations_per_s"]
        assert 0 <= record["data_wait_share"] <= 1
    shown = [int(number) for number in re.findall(r"(-?\d+) s\b", done.stderr)]
    assert shown
    assert all(0 <= number < 100 * passed_s for number in shown)
    (watched,) = json.loads((bench / "bench.json").read_text(encoding="utf-8"))["runs"]
    assert 0 < watched["seconds"] < passed_s


@pytest.mark.parametrize("years", [-1, 1])
def test_files_of_another_time_are_current_and_changed_ones_are_not(demo, tmp_path, years):
    """The clock jumped between two runs: results are older than their sources, or from tomorrow."""
    cohort = tmp_path / "demo"
    shutil.copytree(demo[0] / "cohort", cohort / "cohort")
    shutil.copytree(demo[0] / "tumor", cohort / "tumor")
    shutil.copyfile(demo[0] / "cohort.csv", cohort / "cohort.csv")
    out = tmp_path / "fused"
    verb = ["fuse", *whole.verbs(cohort)["fuse"], "--out", out]
    flarekd(*verb)
    before = whole.results(out)
    moment = time.time() + years * TEN_YEARS_S
    for path in out.rglob("*"):
        os.utime(path, (moment, moment))
    assert "fusing 0 of" in flarekd(*verb).stderr
    assert whole.results(out) == before
    changed = next(iter(list_scans(cohort / "cohort" / "labelsTr").values()))
    labels = read_labels(changed)
    labels.array[...] = 0
    write_labels(changed, labels)
    os.utime(changed, (moment, moment))  # its clock is the one that had jumped
    assert "fusing 1 of" in flarekd(*verb).stderr
    name = changed.name
    assert (out / name).read_bytes() != before[name]
