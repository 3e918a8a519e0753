"""Real children are watched: memory, trees, ends, signals, and the clock."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from flarekd.efficiency import area
from flarekd.errors import UsageError
from flarekd.watch import watch

HOLD = "import time; block = b'x' * (300 << 20); time.sleep(1)"
NOTHING = "import time; time.sleep(0.3)"


def python(code):
    return [sys.executable, "-c", code]


def ram(run):
    return np.array([sample.ram_mb for sample in run.samples])


def test_the_memory_of_a_child_is_seen_and_its_area():
    idle = np.median(ram(watch(python(NOTHING), 0.02)))
    run = watch(python(HOLD), 0.02)
    assert run.status == 0
    assert ram(run).max() - idle == pytest.approx(300, abs=15)
    times = [sample.time_s for sample in run.samples]
    above = np.clip(ram(run) - idle, 0, None)
    # 300 MB for one second and the ramp before; the rest is what the machine is slowed by
    assert 295 <= area(times, above, run.seconds) <= 300 * (run.seconds + 0.05)
    assert run.seconds >= 1


def test_children_of_the_child_count_also_when_their_parent_is_gone():
    # a shell starts two and ends at once; a sleeper that it waits for keeps the run alive
    grand = f"{sys.executable} -c \"import time; b = b'x' * (100 << 20); time.sleep(1.2)\""
    run = watch(["sh", "-c", f"({grand} & {grand} &) ; sleep 1"], 0.05)
    assert ram(run).max() > 200
    assert max(sample.processes for sample in run.samples) == 4  # two, the shell, its sleep


def test_a_grandchild_in_a_session_of_its_own_counts():
    inner = "import time; b = b'x' * (100 << 20); time.sleep(0.6)"
    outer = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]],"
    outer += "start_new_session=True)"
    run = watch([*python(outer), inner], 0.05)
    assert ram(run).max() > 105


def test_processor_time_is_that_of_the_tree():
    spin = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    run = watch(python(spin), 0.05)
    assert 0.4 <= run.cpu_seconds < 0.7
    step_s = np.diff([sample.time_s for sample in run.samples])
    seen = sum(s.cpu_percent * t for s, t in zip(run.samples[1:], step_s, strict=True)) / 100
    assert seen == pytest.approx(run.cpu_seconds, abs=0.12)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -2 $$", 130)]
)
def test_the_status_is_the_shells(script, status):
    assert watch(["sh", "-c", script], 0.05).status == status


def test_samples_keep_to_the_grid_and_lateness_does_not_add_up():
    run = watch(["sleep", "1.5"], 0.1, gpu_mb=lambda: time.sleep(0.015) or 1.0)
    times = np.array([sample.time_s for sample in run.samples])
    # on a drifting clock the last one would be 15 × 15 ms late
    late = times - 0.1 * np.floor(times / 0.1 + 1e-9)
    assert np.median(late) < 0.05
    assert len(times) == pytest.approx(15, abs=1)
    assert run.seconds == pytest.approx(1.5, abs=0.2)


def test_a_sampler_that_is_too_slow_leaves_samples_out_and_says_when_they_were():
    run = watch(["sleep", "1"], 0.1, gpu_mb=lambda: time.sleep(0.25) or 5.0)
    times = np.array([sample.time_s for sample in run.samples])
    assert 2 <= len(times) <= 4
    assert np.diff(times).min() >= 0.25
    assert {sample.gpu_mb for sample in run.samples} == {5.0}
    assert run.gpu_before_mb == 5.0


def test_the_end_is_known_more_finely_than_the_grid():
    run = watch(["sleep", "0.3"], 10.0)
    assert len(run.samples) == 1
    assert 0.3 <= run.seconds < 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_on_to_the_whole_group(tmp_path, number):
    told = tmp_path / "told"
    script = f"trap 'echo got > {told}; exit 9' INT TERM; sleep 5 & wait; exit 1"
    threading.Timer(0.4, os.kill, [os.getpid(), number]).start()
    run = watch(["sh", "-c", script], 0.05)
    assert told.read_text() == "got\n"
    assert run.status == 9
    assert run.seconds < 3


def test_handlers_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    watch(["true"], 0.1)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_what_cannot_be_sampled_any_more_ends_the_child(tmp_path):
    calls = []

    def breaks():
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("the driver is gone")
        return 1.0

    late = tmp_path / "late"
    with pytest.raises(RuntimeError, match="driver"):
        watch(["sh", "-c", f"sleep 0.6; touch {late}"], 0.1, breaks)
    time.sleep(0.8)
    assert not late.exists()


@pytest.mark.parametrize(("mode", "why"), [(None, "No such file"), (0o644, "Permission denied")])
def test_a_command_that_cannot_be_run_is_wrong_usage(tmp_path, mode, why):
    command = tmp_path / "tool"
    if mode is not None:
        command.write_text("#!/bin/sh\n")
        command.chmod(mode)
    with pytest.raises(UsageError, match=f"cannot run .*tool.*{why}"):
        watch([str(command)], 0.1)


def test_a_command_has_no_keyboard():
    assert watch(["sh", "-c", "read line"], 0.1).status == 1
