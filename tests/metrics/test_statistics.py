"""Intervals and paired tests, against scipy and answers known on paper."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from flarekd.labels import LABELS, NAMES
from flarekd.metrics import ClassScore, summarize
from flarekd.metrics.statistics import (
    case_means,
    compare,
    deviations,
    holm,
    intervals,
    paired,
    signed_ranks,
)


def cases_of(matrix):
    """Cases whose 14 classes score these values."""
    return {
        f"case_{number:03}": [
            ClassScore(label.id, float(value), float(value) / 2)
            for label, value in zip(LABELS, row, strict=True)
        ]
        for number, row in enumerate(matrix)
    }


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(0.7, 0.1, (40, 14))


def test_intervals_of_a_mean_are_those_of_scipy_within_their_own_noise(matrix):
    found = intervals(cases_of(matrix))
    reference = stats.bootstrap(
        (matrix[:, 2],), np.mean, method="percentile", n_resamples=4000, random_state=1
    ).confidence_interval
    assert found["classes"]["spleen"]["dsc"] == pytest.approx(tuple(reference), abs=0.004)
    means = matrix.mean(axis=1)
    reference = stats.bootstrap(
        (means,), np.mean, method="percentile", n_resamples=4000, random_state=1
    ).confidence_interval
    assert found["all"]["dsc"] == pytest.approx(tuple(reference), abs=0.002)
    assert found["all"]["nsd"] == pytest.approx([bound / 2 for bound in found["all"]["dsc"]])


def test_intervals_are_shaped_as_means_lie_about_them_and_come_again(matrix):
    matrix[3:, 13] = np.nan
    cases = cases_of(matrix)
    scores = [score for records in cases.values() for score in records]
    found, means = intervals(cases), summarize(scores, "corrected")
    assert list(found) == ["classes", "organs", "tumor", "all"]
    assert list(found["classes"]) == list(NAMES[1:])
    for part in ("organs", "tumor", "all"):
        low, high = found[part]["dsc"]
        assert low < means[part]["dsc"] < high
    assert found["tumor"] == found["classes"]["tumor"]
    assert intervals(cases) == found


def test_deviations_are_those_of_cases_and_of_their_means(matrix):
    matrix[5:, 13] = np.nan
    matrix[1:, 12] = np.nan
    found = deviations(cases_of(matrix))
    assert found["classes"]["spleen"]["dsc"] == pytest.approx(np.std(matrix[:, 2], ddof=1))
    assert found["tumor"]["nsd"] == pytest.approx(np.std(matrix[:5, 13] / 2, ddof=1))
    assert math.isnan(found["classes"]["left_kidney"]["dsc"])
    organs = np.nanmean(matrix[:, :13], axis=1)
    assert found["organs"]["dsc"] == pytest.approx(np.std(organs, ddof=1))
    assert found["all"]["dsc"] == pytest.approx(np.std(np.nanmean(matrix, axis=1), ddof=1))


def test_a_case_has_the_mean_of_what_it_has(matrix):
    matrix[0, 13] = matrix[1, :13] = np.nan
    found = case_means(cases_of(matrix[:2]))
    assert found["case_000"]["organs"]["dsc"] == pytest.approx(matrix[0, :13].mean())
    assert found["case_000"]["all"] == pytest.approx(found["case_000"]["organs"])
    assert math.isnan(found["case_000"]["tumor"]["nsd"])
    assert math.isnan(found["case_001"]["organs"]["dsc"])
    assert found["case_001"]["all"]["nsd"] == pytest.approx(matrix[1, 13] / 2)


def test_one_case_and_none_have_no_interval(matrix):
    for cases in (cases_of(matrix[:1]), {}):
        found = intervals(cases)
        assert all(math.isnan(bound) for bound in (*found["all"]["dsc"], *found["tumor"]["nsd"]))
    matrix[1:, 4] = np.nan
    found = intervals(cases_of(matrix))
    assert math.isnan(found["classes"]["aorta"]["dsc"][0])
    assert not math.isnan(found["organs"]["dsc"][0])


def test_wilcoxon_of_five_pairs_is_the_share_of_sign_patterns_worked_out():
    differences = np.asarray([0.1, -0.2, 0.3, 0.4, 0.5])
    p, effect = signed_ranks(differences)
    # of the 32 ways to sign the ranks 1..5, those whose sum is as far from the middle, 7.5, as 13
    sums = [sum(np.arange(1, 6)[list(kept)]) for n in range(6) for kept in patterns(n)]
    assert p == pytest.approx(np.mean([abs(total - 7.5) >= 5.5 for total in sums]))
    assert effect == pytest.approx((1 + 3 + 4 + 5 - 2) / 15)


def patterns(n):
    return itertools.combinations(range(5), n)


def test_equal_pairs_are_left_out_and_ties_share_their_ranks():
    differences = np.asarray([0.0, 0.1, 0.1, -0.1, 0.2, 0.3, 0.0])
    p, effect = signed_ranks(differences)
    assert effect == pytest.approx((2 + 2 - 2 + 4 + 5) / 15)
    assert 0 < p < 1
    assert signed_ranks(np.zeros(4)) == (1.0, 0.0)
    assert all(math.isnan(value) for value in signed_ranks(np.zeros(0)))
    # 0.7 - 0.6 and 0.4 - 0.3 are one rank, whatever floats make of them
    assert signed_ranks(np.asarray([0.7 - 0.6, -(0.4 - 0.3)]))[1] == 0


def test_many_pairs_have_the_p_of_scipy(matrix):
    differences = matrix[:, 0] - matrix[:, 1]
    assert signed_ranks(differences)[0] == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_holm_corrects_as_on_paper_and_passes_over_what_is_unknown():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9]) == pytest.approx([1, math.nan, 1], nan_ok=True)


def test_a_model_that_is_better_in_every_case_has_effect_one(matrix):
    better = matrix.copy()
    better[:, 0] += 0.05
    better[:, 13] -= 0.01
    result = compare(cases_of(better), cases_of(matrix))
    assert result["cases"] == 40
    liver, spleen = (result["classes"][name]["dsc"] for name in ("liver", "spleen"))
    assert liver["difference"] == pytest.approx(0.05)
    assert (liver["low"], liver["high"]) == pytest.approx((0.05, 0.05))
    assert liver["effect"] == 1
    assert liver["p"] < 1e-6
    # only two of fourteen classes differ, and Holm multiplies the smallest p by fourteen
    assert liver["p_holm"] == pytest.approx(14 * liver["p"])
    assert (spleen["difference"], spleen["effect"], spleen["p"]) == (0, 0, 1)
    assert result["tumor"]["dsc"]["effect"] == -1
    assert result["organs"]["dsc"]["difference"] == pytest.approx(0.05 / 13)
    assert result["all"]["nsd"]["difference"] == pytest.approx(0.04 / 14 / 2)


def test_only_cases_and_scores_that_both_have_are_paired(matrix):
    ours, theirs = cases_of(matrix), cases_of(matrix + 0.01)
    del ours["case_000"], theirs["case_001"]
    theirs["case_002"][4] = ClassScore(5, math.nan, math.nan)
    result = compare(ours, theirs)
    assert result["cases"] == 38
    assert result["classes"]["liver"]["dsc"]["cases"] == 38
    assert result["classes"]["aorta"]["dsc"]["cases"] == 37
    nothing = compare(ours, {})
    assert nothing["cases"] == 0
    assert math.isnan(nothing["all"]["dsc"]["p"])


def test_the_interval_of_a_difference_lies_about_it():
    found = paired(np.random.default_rng(1).normal(0.02, 0.05, 60))
    assert found["low"] < found["difference"] < found["high"]
    half = 1.96 * 0.05 / math.sqrt(60)
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.25)
