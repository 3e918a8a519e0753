"""Training curves: the numbers drawn and the picture."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from flarekd.report.curves import draw_curves, series, smooth


def log(steps: int = 60):
    for step in range(steps):
        yield {"iteration": step, "loss": math.exp(-step / 20), "lr": 0.01 * (1 - step / steps)}
        if step % 20 == 0:
            yield {"iteration": step, "dsc": {"liver": 0.5, "tumor": None, "ivc": 0.1}}


def test_a_series_holds_what_was_logged_and_passes_over_the_rest():
    records = [{"iteration": 1, "loss": 2.0}, {"note": "resumed"}, {"iteration": 2, "lr": 1.0}]
    records += [{"iteration": 3, "loss": math.nan}, {"iteration": 4, "loss": 1}]
    iterations, values = series(records, "loss")
    np.testing.assert_array_equal(iterations, [1, 4])
    np.testing.assert_array_equal(values, [2, 1])
    assert len(series([], "loss")[0]) == 0


@pytest.mark.parametrize(
    "dsc", [{"liver": 0.5, "tumor": None, "ivc": 0.1}, [0.5, math.nan, 0.1], 0.3]
)
def test_pseudo_dsc_is_the_mean_of_the_classes_somebody_saw(dsc):
    assert series([{"iteration": 7, "dsc": dsc}], "dsc")[1] == pytest.approx([0.3])


def test_smoothing_keeps_a_constant_and_starts_without_bias():
    np.testing.assert_allclose(smooth(np.full(9, 3.0), 5), 3.0)
    np.testing.assert_allclose(smooth(np.array([2.0, 4.0]), 2), [2.0, (0.5 * 2 + 4) / 1.5])
    np.testing.assert_array_equal(smooth(np.array([2.0, 4.0]), 0.1), [2.0, 4.0])


def test_the_picture_gains_a_panel_with_the_first_validation(tmp_path):
    records = list(log())
    draw_curves(records, tmp_path / "with.png")
    draw_curves([record for record in records if "loss" in record], tmp_path / "without.png")
    tall, short = imread(tmp_path / "with.png"), imread(tmp_path / "without.png")
    assert tall.shape[0] > 1.4 * short.shape[0]
    assert tall[..., :3].std() > 0.05


@pytest.mark.parametrize("records", [[], [{"iteration": 0, "loss": 1.0, "lr": 0.1}]])
def test_a_log_that_has_hardly_begun_is_drawn_too(tmp_path, records):
    draw_curves(records, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").shape[1] > 500


def test_importing_the_room_does_not_import_matplotlib():
    code = (
        "import sys, flarekd.report.curves, flarekd.report.overlay, flarekd.stages.evaluate;"
        "sys.exit(any(m in sys.modules for m in ('matplotlib', 'torch', 'SimpleITK')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
