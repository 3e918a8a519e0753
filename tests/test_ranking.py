"""FLARE's rank table: worked by hand, against scipy, and its tolerances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from flarekd.ranking import METRICS, Metric, rank_models, standings

DSC, TIME = Metric("dsc", "DSC"), METRICS[4]


@pytest.mark.paper
def test_the_metrics_are_two_of_organs_two_of_tumours_time_and_gpu_area():
    names = ["organs_dsc", "organs_nsd", "tumor_dsc", "tumor_nsd", "seconds", "gpu_area_over_mb_s"]
    assert [metric.name for metric in METRICS] == names
    assert [metric.is_cost for metric in METRICS] == [False] * 4 + [True] * 2
    assert TIME.allowed == 15


def test_the_best_score_is_first_equals_share_and_failures_are_last():
    values = np.asarray([[0.9, np.nan, 0.5], [0.8, 0.1, 0.5], [0.7, np.nan, 0.5], [0.9, 0.2, 0.4]])
    expected = [[1, 3, 1], [3, 2, 1], [4, 3, 1], [1, 1, 4]]
    np.testing.assert_array_equal(rank_models(values, DSC), expected)


def test_ranks_are_those_of_scipy_from_the_better_end():
    values = np.random.default_rng(0).integers(0, 5, (7, 30)) / 4
    np.testing.assert_array_equal(rank_models(values, DSC), stats.rankdata(-values, "min", axis=0))


def test_time_within_fifteen_seconds_is_time_well_spent():
    seconds = np.asarray([[3.0, 15.0, 15.01], [14.9, 15.1, 15.0], [16.0, 15.2, np.nan]])
    expected = [[1, 1, 2], [1, 2, 1], [3, 3, 3]]
    np.testing.assert_array_equal(rank_models(seconds, TIME), expected)


def test_the_table_averages_over_cases_and_metrics_and_equals_share_a_place():
    ranks = {
        "dsc": np.asarray([[1, 1, 2], [2, 2, 1], [3, 3, 3]], float),
        "seconds": np.asarray([[2, 2, 1], [1, 1, 2], [3, 3, 3]], float),
    }
    table = standings(["a", "b", "c"], ranks)
    assert [(one.model, one.place, one.rank) for one in table] == [
        ("a", 1, 1.5), ("b", 1, 1.5), ("c", 3, 3.0),
    ]  # fmt: skip
    assert table[0].ranks == pytest.approx({"dsc": 4 / 3, "seconds": 5 / 3})


def test_many_small_wins_beat_a_single_large_one():
    values = np.asarray([[0.51, 0.51, 0.10], [0.50, 0.50, 0.99]])
    assert values[0].mean() < values[1].mean()
    assert standings(["often", "far"], {"dsc": rank_models(values, DSC)})[0].model == "often"


def test_nothing_to_rank_by_is_refused():
    for ranks in ({}, {"dsc": np.zeros((2, 0))}):
        with pytest.raises(ValueError, match="no case or no metric"):
            standings(["a", "b"], ranks)
