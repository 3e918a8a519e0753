"""Charts as numbers: what is worked out on paper, and that peaks survive thinning."""

from __future__ import annotations

import numpy as np
import pytest

from flarekd.report.charts import Curve, box, line_chart, thinned, ticks


def test_a_box_holds_the_quartiles_and_ends_at_the_farthest_value_within_reach():
    found = box([0.1, 0.5, 0.6, 0.7, 0.8, 1.0])
    # quartiles 0.525 and 0.775: reach 0.375, so that 0.1 lies beyond 0.15
    assert (found.q1, found.median, found.q3) == pytest.approx((0.525, 0.65, 0.775))
    assert (found.low, found.high) == (0.5, 1.0)
    assert found.outliers == (0,)


def test_one_value_is_a_box_of_itself_and_no_value_is_none():
    found = box([0.4])
    assert (found.low, found.median, found.high, found.outliers) == (0.4, 0.4, 0.4, ())
    assert box([]) is None


def test_no_whisker_runs_back_into_its_box():
    # the upper quartile, 2.5, lies between 0 and the outlier
    found = box([0.0, 0.0, 0.0, 10.0])
    assert (found.q3, found.high, found.outliers) == (2.5, 2.5, (3,))


def test_lines_lie_where_their_axes_say():
    chart = line_chart("loss", "iteration", [Curve([0, 50, 100], [0.0, 1.0, 4.0])], (0.0, 2.0))
    # y runs downward, and what lies beyond the range is drawn at its border
    assert chart.lines[0].points == "0.0,170.0 200.0,85.0 400.0,0.0"
    assert chart.x_ticks[1] == (80.0, "20")
    assert [text for _, text in chart.y_ticks] == ["0.0", "0.5", "1.0", "1.5", "2.0"]


@pytest.mark.parametrize(("x", "y"), [([3], [7.0]), ([1, 2, 3], [0.0, 0.0, 0.0])])
def test_a_single_point_and_a_flat_line_lie_inside(x, y):
    (line,) = line_chart("t", "x", [Curve(x, y)]).lines
    for point in line.points.split():
        across, down = map(float, point.split(","))
        assert 0 <= across <= 400
        assert down == 85


@pytest.mark.parametrize("low_high", [(0, 1), (-0.52, 2.33), (0, 18734.5), (0, 0.003), (5, 5.1)])
def test_ticks_are_few_inside_and_evenly_apart(low_high):
    low, high = low_high
    values = [value for value, _ in ticks(low, high)]
    assert 2 <= len(values) <= 7
    assert low <= values[0]
    assert values[-1] <= high
    assert np.diff(values) == pytest.approx(values[1] - values[0])
    assert len({text for _, text in ticks(low, high)}) == len(values)


def test_a_long_line_keeps_its_ends_its_peak_and_its_trough():
    y = np.zeros(10_001)
    y[4567], y[7654] = 9, -9
    points = thinned(range(10_001), y)
    assert len(points) <= 302
    assert points[0] == (0, 0)
    assert points[-1] == (10_000, 0)
    assert {(4567, 9), (7654, -9)} <= set(points)
    assert points == sorted(points)
