"""What a store will cost, told from headers."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from flarekd.imaging.files import write_volume
from flarekd.imaging.volume import Geometry, Volume
from flarekd.training import forecast as module
from flarekd.training.forecast import forecast, stored_grid


def scan(path, size=(20, 30, 10)):
    geometry = Geometry(size, (0.8, 0.8, 5.0))
    write_volume(path, Volume(np.zeros(geometry.shape_zyx, np.int16), geometry))
    return path


def test_the_stored_grid_is_the_networks_or_the_scans_own():
    shape, own = (120, 512, 500), (2.5, 0.75, 0.75)
    assert stored_grid(shape, own, (4.0, 1.2, 1.2)) == ((4.0, 1.2, 1.2), (75, 320, 312))
    assert stored_grid(shape, own, (0.0, 1.5, 1.5)) == ((2.5, 1.5, 1.5), (120, 256, 250))


def test_a_forecast_counts_the_voxels_read_and_stored(tmp_path):
    images = [scan(tmp_path / "a.nii.gz"), scan(tmp_path / "b.nii.gz", (40, 30, 10))]
    found = forecast(images, (0.0, 1.6, 1.6))
    read, stored = 3 * 6000, 3 * 1500
    assert found.cases == 2
    assert found.stored_bytes == pytest.approx(module.STORED_BYTES * stored)
    assert found.seconds == pytest.approx(module.READ_S * read + module.STORED_S * stored)


def test_only_headers_are_read_and_a_sample_of_many(tmp_path, monkeypatch):
    path = scan(tmp_path / "a.nii.gz")
    # voxels that are not there: only the header can be read
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:352]))
    looked_at = []
    real = module.read_geometry
    monkeypatch.setattr(module, "read_geometry", lambda one: looked_at.append(one) or real(one))
    found = forecast([path] * 1001, (0.0, 0.0, 0.0))
    assert len(looked_at) <= module.MOST_HEADERS
    assert found.stored_bytes == pytest.approx(1001 * 6000 * module.STORED_BYTES)


def test_a_header_that_cannot_be_read_counts_like_the_others(tmp_path):
    path = scan(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(b"nothing")
    found = forecast([path, tmp_path / "b.nii.gz"], (0.0, 0.0, 0.0))
    assert found.stored_bytes == pytest.approx(2 * 6000 * module.STORED_BYTES)
    assert forecast([tmp_path / "b.nii.gz"], (0.0, 0.0, 0.0)).seconds == 0


def test_no_more_processes_are_promised_than_there_are_cases():
    said = module.Forecast(1, 5e6, 90).describe(2e9, 8)
    assert said == "training store: 1 case, about 5.0 MB of 2.0 GB free, about 2 min with 1 process"
