"""`bench` by the real command line: its files, its table, its status, and Ctrl-C."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from matplotlib.image import imread
from tests.end_to_end.command import separate as flarekd  # memory is measured

from flarekd.efficiency import Run, Sample, area
from flarekd.errors import InputError
from flarekd.report.bench_files import read_bench
from flarekd.report.usage import draw_usage
from flarekd.stages.bench import bench

HOLD = "import time; block = b'x' * (120 << 20); time.sleep(0.5)"


def rows_of(out):
    return list(csv.DictReader((out / "bench.csv").read_text(encoding="utf-8").splitlines()))


def facts(out):
    return json.loads((out / "bench.json").read_text(encoding="utf-8"))


def test_a_command_is_measured_and_its_files_agree(tmp_path):
    done = flarekd("bench", "--out", tmp_path, "--", sys.executable, "-c", HOLD)
    found = facts(tmp_path)
    assert found["command"] == [sys.executable, "-c", HOLD]
    (run,) = found["runs"]
    assert 125 < run["ram"]["peak_mb"] < 150
    assert run["ram"]["process_peak_mb"] == pytest.approx(run["ram"]["sampled_peak_mb"], abs=5)
    rows = rows_of(tmp_path)
    points = [(float(row["time_s"]), float(row["ram_mb"])) for row in rows]
    surface = sum((b - a) * (u + v) / 2 for (a, u), (b, v) in pairwise(points))
    surface += (run["seconds"] - points[-1][0]) * points[-1][1]
    assert run["ram"]["area_mb_s"] == pytest.approx(surface, rel=1e-3)
    assert run["ram"]["flare_area_mb_s"] == pytest.approx(0.1 * sum(v for _, v in points), rel=1e-3)
    assert f"{run['ram']['peak_mb']:.2f}" in done.stdout
    if found["gpu"] is None:
        assert "gpu_mb" not in rows[0]
        assert run["gpu"] is None
        assert "without GPU memory" in done.stderr
    assert imread(tmp_path / "bench.png").std() > 0.02


def test_a_short_peak_between_samples_is_found(tmp_path):
    code = "import time; time.sleep(0.3); b = bytearray(b'x') * (200 << 20); del b; time.sleep(0.5)"
    flarekd("bench", "--interval", "5", "--out", tmp_path, sys.executable, "-c", code)
    (run,) = facts(tmp_path)["runs"]
    assert run["ram"]["sampled_peak_mb"] < 50
    assert run["ram"]["peak_mb"] > 200


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_it_ends_as_the_command_ends_and_still_writes(tmp_path, capfd, script, status):
    assert bench(["sh", "-c", script], tmp_path, repeat=3) == status
    assert [run["status"] for run in facts(tmp_path)["runs"]] == [status]
    assert "not a whole run" in capfd.readouterr().err


def test_runs_are_numbered_and_told_by_their_spread(tmp_path, capfd):
    touch = f"touch {tmp_path}/made-{{run}}; sleep 0.0{{run}}"
    assert bench(["sh", "-c", touch], tmp_path / "out", 0.02, repeat=3) == 0
    assert sorted(path.name for path in tmp_path.glob("made-*")) == ["made-1", "made-2", "made-3"]
    rows = rows_of(tmp_path / "out")
    assert {row["run"] for row in rows} == {"1", "2", "3"}
    shown = capfd.readouterr().out
    assert "median" in shown
    assert "3 whole runs" in shown


@pytest.mark.parametrize(
    ("command", "repeat", "is_told"),
    [
        (["true", "/bin/flarekd", "infer", "--out", "out"], 3, True),
        (["true", "-m", "flarekd", "infer", "--out", "out"], 2, True),
        (["true", "flarekd", "infer", "--out", "out-{run}"], 3, False),
        (["true", "flarekd", "infer", "--out", "out"], 1, False),
        (["true", "docker", "run"], 3, False),
        (["true", "--out", "/data/flarekd"], 3, False),
    ],
)
def test_runs_that_would_find_their_work_done_are_warned_of(
    tmp_path, capfd, command, repeat, is_told
):
    assert bench(command, tmp_path, 0.02, repeat=repeat) == 0
    told = " ".join(capfd.readouterr().err.split())
    assert (f"runs 2 to {repeat} find the files of run 1" in told) == is_told
    assert ("--out 'out-{run}'" in told) == is_told


def test_what_is_written_is_read_back(tmp_path):
    assert bench(["sleep", "0.2"], tmp_path, 0.02, repeat=2) == 0
    found = read_bench(tmp_path)
    assert found.command == ("sleep", "0.2")
    assert list(found.summaries) == facts(tmp_path)["runs"]
    for summary, run in zip(found.summaries, found.runs, strict=True):
        assert (run.seconds, run.status) == (summary["seconds"], 0)
        times = [sample.time_s for sample in run.samples]
        ram = [sample.ram_mb for sample in run.samples]
        surface = area(times, ram, run.seconds)
        assert surface == pytest.approx(summary["ram"]["area_mb_s"], rel=1e-3)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"runs": [], "gpu": null}'])
def test_what_is_no_file_of_bench_is_refused(tmp_path, text):
    (tmp_path / "bench.json").write_text(text, encoding="utf-8")
    (tmp_path / "bench.csv").write_text("run,time_s\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no files of bench"):
        read_bench(tmp_path)


def test_a_run_that_failed_is_kept_out_of_the_spread(tmp_path, capfd):
    script = "test {run} -lt 3 && exec sleep 0.{run}; exit 5"
    assert bench(["sh", "-c", script], tmp_path, repeat=4) == 5
    assert [run["status"] for run in facts(tmp_path)["runs"]] == [0, 0, 5]
    told = capfd.readouterr()
    assert "2 whole runs" in told.out
    assert "run 3 ended with status 5" in told.err


def test_a_command_that_is_not_there_is_wrong_usage_and_writes_nothing(tmp_path):
    done = flarekd("bench", "--out", tmp_path / "out", "--", "no-such-tool", check=False)
    assert done.returncode == 2
    assert "cannot run 'no-such-tool'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_ctrl_c_reaches_the_command_and_what_was_seen_is_written(tmp_path):
    told = tmp_path / "told"
    script = f"trap 'echo got > {told}; exit 130' INT; touch {tmp_path}/ready; sleep 20 & wait"
    bench_it = [sys.executable, "-m", "flarekd", "bench", "--out", tmp_path, "--"]
    process = subprocess.Popen(
        [*bench_it, "sh", "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # a test run in the background may have inherited an ignored SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
    )
    for _ in range(200):
        if (tmp_path / "ready").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert told.read_text() == "got\n"
    assert facts(tmp_path)["runs"][0]["status"] == 130


def test_the_picture_has_a_panel_for_the_gpu_where_there_is_one(tmp_path):
    def run(gpu):
        samples = tuple(Sample(t, 100.0 * t, 1.0, 50.0, 1, gpu) for t in range(4))
        return Run(samples, 4.0, 0, 2.0, None, 1.0, gpu)

    draw_usage([run(None)], tmp_path / "two.png")
    draw_usage([run(5000.0), run(4000.0)], tmp_path / "three.png")
    heights = [imread(tmp_path / name).shape[0] for name in ("two.png", "three.png")]
    assert heights[1] > 1.3 * heights[0]
