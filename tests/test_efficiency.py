"""Peaks, areas and tolerances against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd.efficiency import (
    GPU_MB_ALLOWED,
    SECONDS_ALLOWED,
    Run,
    Sample,
    area,
    excess,
    flare_area,
    spread,
    summary,
)


@pytest.mark.paper
def test_flare23_allows_15_seconds_and_4_gb():
    assert (SECONDS_ALLOWED, GPU_MB_ALLOWED) == (15, 4096)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1e4)), min_size=1, max_size=30),
    st.floats(0, 5),
)
def test_the_area_is_numpys_trapezoid_of_the_curve_held_to_its_end(steps, rest):
    times = np.cumsum([step for step, _ in steps])
    values = np.array([value for _, value in steps])
    widths = np.diff(times, append=times[-1] + rest)
    nexts = np.append(values[1:], values[-1])
    expected = float(np.sum(widths * (values + nexts) / 2))
    assert area(times, values, times[-1] + rest) == pytest.approx(expected, abs=1e-6)


def test_a_late_sample_counts_for_its_true_step_and_flares_sum_does_not_see_it():
    # 100 MB all the time, one sample 0.4 s late
    times = [0.0, 0.1, 0.6, 0.7]
    assert area(times, [100.0] * 4, 0.8) == pytest.approx(80)
    assert flare_area([100.0] * 4, 0.1) == pytest.approx(40)


def test_as_many_values_as_times_are_needed():
    with pytest.raises(ValueError, match="zip"):
        area([0, 1], [1], 2)


def test_what_is_allowed_costs_nothing():
    assert excess([0, 4096, 4196], 4096) == [0, 0, 100]


def run(gpu=(None, None, None), seconds=20.0, process_peak_mb=None):
    samples = tuple(
        Sample(time, ram, 1000 + ram, cpu, 1, gpu_mb)
        for time, ram, cpu, gpu_mb in zip(
            (0, 5, 10), (100, 300, 200), (0, 150, 50), gpu, strict=True
        )
    )
    return Run(samples, seconds, 0, 30.0, process_peak_mb, 900.0, 10.0 if gpu[0] else None)


def test_a_summary_worked_out_by_hand():
    found = summary(run(gpu=(4000.0, 5096.0, 4096.0)), 5.0)
    assert found["seconds_over"] == 5
    assert found["longest_step_s"] == 5
    assert found["ram"]["peak_mb"] == 300
    assert found["ram"]["area_mb_s"] == 1000 + 1250 + 2000
    assert found["ram"]["flare_area_mb_s"] == 3000
    assert found["machine"] == {"before_mb": 900, "peak_mb": 1300}
    assert found["cpu"]["mean_percent"] == 150
    assert found["cpu"]["peak_percent"] == 150
    assert found["gpu"] == {
        "before_mb": 10,
        "peak_mb": 5096,
        "peak_over_mb": 1000,
        "area_mb_s": 22740 + 22980 + 40960,
        "area_over_mb_s": 2500 + 2500,
        "flare_area_mb_s": 5 * 13192,
        "flare_area_over_mb_s": 5000,
    }


def test_without_a_gpu_there_are_no_numbers_of_one():
    assert summary(run(), 5.0)["gpu"] is None


def test_a_peak_between_samples_is_known_from_the_kernel():
    found = summary(run(process_peak_mb=450.0), 5.0)["ram"]
    assert (found["peak_mb"], found["sampled_peak_mb"]) == (450, 300)


def test_a_quick_run_is_not_over_time_and_one_sample_is_enough():
    quick = Run((Sample(0.0, 1.0, 2.0, 0.0, 1),), 0.25, 0, 0.0, None, 2.0)
    found = summary(quick, 0.1)
    assert found["seconds_over"] == 0
    assert found["longest_step_s"] == 0.25
    assert found["ram"]["area_mb_s"] == 0.25


def test_repeats_are_told_by_least_median_and_greatest():
    assert spread([4.0, 1.0, 2.0, 9.0]) == {"min": 1, "median": 3, "max": 9}
