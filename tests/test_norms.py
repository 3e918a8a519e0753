import math

import pytest

from flarekd.extents import Extent
from flarekd.norms import FAR, Facts, ends_mm, learn, usual

LIVER, SPLEEN, TUMOR = 1, 3, 14


def organ(ml, low=100.0, high=200.0, cut_off=()):
    return Extent(int(ml), float(ml), low, high, (low + high) / 2, tuple(cut_off))


def drawn(number, **organs):
    return Facts(f"case_{number}", 400.0, organs.pop("drawn"), organs.pop("pseudo", None))


def test_the_typical_volume_is_the_median_and_its_ends_lie_far_deviations_off():
    volumes = [800, 900, 960, 1000, 1000, 1000, 1100, 1200, 1400, 1600, 400]
    cases = [drawn(n, drawn={LIVER: organ(ml)}) for n, ml in enumerate(volumes)]
    found = learn(cases).volumes[LIVER]
    assert (found.cases, found.median_ml) == (11, 1000.0)
    # |ln(v / 1000)| in order: 0 0 0 .041 .095 [.105] .182 .223 .336 .470 .916
    spread = 1.4826 * math.log(1000 / 900)
    assert found.low_ml == pytest.approx(1000 * math.exp(-FAR * spread), abs=1e-3)
    assert found.high_ml == pytest.approx(1000 * math.exp(FAR * spread), abs=1e-3)


def test_what_the_scan_cuts_off_says_nothing_of_what_is_typical():
    cases = [drawn(n, drawn={LIVER: organ(1000)}) for n in range(10)]
    cut = [drawn(n, drawn={LIVER: organ(10, cut_off=("head",))}) for n in range(90)]
    found = learn([*cases, *cut]).volumes[LIVER]
    assert (found.cases, found.median_ml) == (10, 1000.0)


def test_pseudo_labels_count_where_few_are_drawn():
    few = [drawn(n, drawn={LIVER: organ(1000)}) for n in range(9)]
    guess = drawn(9, drawn=None, pseudo={LIVER: organ(1000)})
    assert LIVER not in learn(few).volumes
    assert learn([*few, guess]).volumes[LIVER].cases == 10


def test_how_far_the_ends_of_organs_lie_apart_is_the_median():
    cases = [
        drawn(n, drawn={LIVER: organ(1, 100, 200), SPLEEN: organ(1, 120 + far, 200 + far)})
        for n, far in enumerate([-10, 0, 0, 10, 20])
    ]
    found = learn(cases).offsets
    lower, upper = found[LOWER_LIVER, (SPLEEN, "lower")], found[LOWER_LIVER, (SPLEEN, "upper")]
    assert (lower.cases, lower.mm, upper.mm) == (5, 20.0, 100.0)
    assert lower.spread_mm == pytest.approx(1.4826 * 10)
    assert found[(SPLEEN, "lower"), LOWER_LIVER].mm == -20.0
    assert (
        LOWER_LIVER,
        (LIVER, "upper"),
    ) not in found  # its own end says nothing of an absent organ
    assert learn(cases[:4]).offsets == {}


LOWER_LIVER = (LIVER, "lower")


def test_an_organ_that_the_scan_cuts_has_its_other_end():
    case = drawn(
        0,
        drawn={
            LIVER: organ(1, 0, 20, cut_off=("feet", "left")),
            SPLEEN: organ(1, 30, 40),
            TUMOR: organ(1),
        },
        pseudo={LIVER: organ(1, 5, 40), 4: organ(1, 60, 400, cut_off=("head",))},
    )
    assert ends_mm(case) == {
        (LIVER, "lower"): 5,  # where the label file has none
        (LIVER, "upper"): 20,
        (SPLEEN, "lower"): 30,
        (SPLEEN, "upper"): 40,
        (4, "lower"): 60,
    }


def test_what_is_usual_is_the_median_and_a_deviation_that_is_never_too_small():
    found = usual([*range(1, 10), 50.0], 0.5)
    assert (found.cases, found.median) == (10, 5.5)
    # deviations in order: .5 .5 1.5 1.5 2.5 | 2.5 3.5 3.5 4.5 44.5
    assert found.spread == pytest.approx(1.4826 * 2.5)
    assert found.deviation(5.5 - 1.4826 * 5) == pytest.approx(-2)
    assert usual([1.0] * 10, 0.5).spread == 0.5
    assert usual([1.0] * 9, 0.5) is None


def test_a_mixture_is_as_wide_as_its_percentiles_10_and_90():
    # eight scans with and two without contrast medium, which is none the odder
    values = [100.0] * 8 + [0.0] * 2
    assert usual(values, 0.5).spread == 0.5
    assert usual(values, 0.5, of_mixture=True).spread == pytest.approx(100 / 2.563)
    wide = usual([*range(1, 10), 10.0], 0.5, of_mixture=True)
    assert wide.spread == pytest.approx(1.4826 * 2.5)
