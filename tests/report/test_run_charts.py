"""Training and bench curves for a page."""

from __future__ import annotations

import json

import pytest

from flarekd import efficiency
from flarekd.efficiency import Run, Sample
from flarekd.report.run_charts import efficiency_of, read_trainings, training_of


def run_of(seconds, ram_mb, gpu_mb=None, status=0):
    samples = tuple(Sample(t * seconds / 4, ram_mb * t / 3, 1.0, 50.0, 1, gpu_mb) for t in range(4))
    return Run(samples, seconds, status, 2.0, None, 1.0, gpu_mb)


def write_bench(folder, *runs):
    """What bench writes, as far as the page reads it."""
    folder.mkdir(parents=True)
    lines = ["run,time_s,ram_mb,machine_mb,cpu_percent,processes,gpu_mb"]
    for number, run in enumerate(runs, 1):
        for s in run.samples:
            gpu = "" if s.gpu_mb is None else s.gpu_mb
            lines.append(f"{number},{s.time_s},{s.ram_mb},1,50,1,{gpu}")
    (folder / "bench.csv").write_text("\n".join(lines) + "\n")
    gpu = None if runs[0].samples[0].gpu_mb is None else {"index": 0, "name": "A card"}
    summaries = [efficiency.summary(run, 0.1) for run in runs]
    facts = {"command": ["segment", "a scan"], "gpu": gpu, "runs": summaries}
    (folder / "bench.json").write_text(json.dumps(facts))


def test_a_training_has_a_chart_of_each_thing_that_its_log_has():
    records = [
        {"epoch": 1, "iteration": 10, "loss": 2.0, "lr": 0.1, "dsc": [0.1, None], "seconds": 30},
        {"epoch": 2, "iteration": 20, "loss": 1.0, "lr": 0.1, "dsc": [0.5, 0.3], "seconds": 30},
        {"epoch": 3, "iteration": 30, "loss": 1.5, "lr": 0.0, "dsc": [0.2, 0.2], "seconds": 30},
    ]
    training = training_of("Student", records, "seed: 1")
    assert [chart.title for chart in training.charts] == [
        "Loss (bold: smoothed)", "Mean pseudo-DSC", "Learning rate",
    ]  # fmt: skip
    assert training.told == (
        "3 epochs, 30 iterations, last loss 1.500, best mean pseudo-DSC 0.400 at iteration 20,"
        " 1.5 minutes"
    )
    assert training.charts[0].lines[0].points == "0.0,0.0 200.0,170.0 400.0,85.0"
    loss_alone = training_of("Student", [{"iteration": 1, "loss": 1.0}], "")
    assert [chart.title for chart in loss_alone.charts] == ["Loss (bold: smoothed)"]


def test_a_folder_without_a_log_has_no_training(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert read_trainings({"teacher": tmp_path, "student": tmp_path / "none"}) == []
    (tmp_path / "log.jsonl").write_text('{"iteration": 1, "loss": 0.5}\n{"iterat')
    (training,) = read_trainings({"teacher": tmp_path})
    assert (training.name, training.settings) == ("Teacher", "seed: 1\n")


def test_no_bench_is_none(tmp_path):
    assert efficiency_of(tmp_path) is None


def test_benches_of_all_cases_are_shown_together(tmp_path):
    write_bench(tmp_path / "bench" / "case_a", run_of(8.0, 900.0, 3000.0))
    write_bench(
        tmp_path / "bench" / "case_b", run_of(4.0, 600.0, 3000.0), run_of(6.0, 750.0, 2100.0)
    )
    found = efficiency_of(tmp_path)
    title, columns, rows = found.table
    assert title == "Time, memory and areas · 3 whole runs"
    assert columns == ("", "min", "median", "max")
    assert rows[0] == ("time, s", "4.00", "6.00", "8.00")
    assert {row[0]: row[1:] for row in rows}["peak RAM, MB"] == ("600.00", "750.00", "900.00")
    assert found.note == "2 benches, the first: segment 'a scan' · GPU: A card"
    gpu, ram, cpu = found.charts
    assert gpu.title.startswith("GPU memory: peak 2,100 MB")
    # two others thin, the middle one bold, and FLARE's 4096 MB since it is near
    assert [line.style for line in gpu.lines] == ["faint", "faint", "bold", "limit"]
    assert [line.style for line in ram.lines] == ["faint", "faint", "bold"]
    assert ram.title.startswith("RAM: peak 750 MB")
    assert cpu.title.startswith("CPU")


def test_runs_that_failed_and_files_that_are_none_are_named_and_not_drawn(tmp_path):
    write_bench(tmp_path / "bench", run_of(4.0, 600.0), run_of(1.0, 50.0, status=3))
    torn = tmp_path / "bench" / "torn"
    torn.mkdir()
    (torn / "bench.json").write_text('{"runs": [')
    found = efficiency_of(tmp_path)
    assert [row[1:] for row in found.table[2][:1]] == [("4.00",)]
    assert [chart.title.split(":")[0] for chart in found.charts] == ["RAM", "CPU"]
    unreadable, failed = found.problems
    assert str(torn) in unreadable
    assert failed == "1 of 2 runs failed and are not shown"


def test_failed_runs_alone_are_told(tmp_path):
    write_bench(tmp_path / "bench", run_of(1.0, 50.0, status=137))
    found = efficiency_of(tmp_path)
    assert (found.table, found.charts) == (None, ())
    assert found.problems == ("1 of 1 runs failed and are not shown",)


@pytest.mark.parametrize("settings", ["", "a: 1"])
def test_an_empty_log_is_no_training(settings):
    assert training_of("Teacher", [], settings) is None
