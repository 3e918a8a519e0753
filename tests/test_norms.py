import math

import pytest

from flarekd.extents import Extent
from flarekd.norms import FAR, Facts, centres_mm, learn

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


def test_how_far_organs_lie_apart_is_the_median_over_whole_ones():
    cases = [
        drawn(n, drawn={LIVER: organ(1, 100, 200), SPLEEN: organ(1, 120 + far, 200 + far)})
        for n, far in enumerate([-10, 0, 0, 10, 20])
    ]
    found = learn(cases)
    offset = found.offsets[LIVER, SPLEEN]  # centres 10 mm and `far` above the liver's
    assert (offset.cases, offset.mm) == (5, 10.0)
    assert offset.spread_mm == pytest.approx(1.4826 * 10)
    assert found.offsets[SPLEEN, LIVER].mm == -10.0
    assert found.heights_mm == {LIVER: 100.0, SPLEEN: 80.0}
    assert learn(cases[:4]).offsets == {}


def test_centres_are_those_of_the_label_file_before_the_pseudo_label():
    case = drawn(
        0,
        drawn={LIVER: organ(1, 0, 20), TUMOR: organ(1)},
        pseudo={LIVER: organ(1, 0, 40), SPLEEN: organ(1, 30, 40), 4: organ(1, cut_off=("feet",))},
    )
    assert centres_mm(case) == {LIVER: 10.0, SPLEEN: 35.0}
