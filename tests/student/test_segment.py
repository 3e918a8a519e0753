"""How a student looks at a scan."""

from __future__ import annotations

import pytest
import torch
from tests.student.pointwise import PATCH, Threshold, body

from flarekd.errors import UsageError
from flarekd.imaging.volume import Geometry
from flarekd.inference.predictor import Predictor
from flarekd.modelfile import ModelCard
from flarekd.student.segment import Prepared, Student, WindowSettings, windows_together


def test_gpus_are_given_as_many_voxels_as_a_window_of_the_published_student():
    cuda = torch.device("cuda")
    assert windows_together((32, 128, 192), cuda) == 1
    assert windows_together((64, 128, 192), cuda) == 1
    assert windows_together((16, 32, 40), cuda) == 38
    assert windows_together((16, 32, 40), torch.device("cpu")) == 1


@pytest.mark.parametrize(("place", "windows_run"), [(5, 1), (3, 9)])
def test_the_papers_rule_for_tubes_goes_by_the_names_of_the_card(place, windows_run):
    names = ["background", *(f"organ {index}" for index in range(1, 8))]
    names[place] = "aorta"
    card = ModelCard(
        role="student",
        network={"classes": 8, "channels": (4, 4), "strides": ((2, 2, 2),)},
        labels=tuple(names),
        label_ids=tuple(range(8)),
        spacing=(3.0, 1.0, 1.0),
        patch=PATCH,
        intensity=(-1000.0, 1000.0, 0.0, 400.0),
    )
    volume = body((8, 32, 32))
    volume[0:8, 10:22, 10:22] = 5  # more than 1000 of 786,432
    ready = Predictor(Threshold(), card, torch.device("cpu"), "0")
    scan = Prepared(volume, Geometry((32, 32, 8), (1.0, 1.0, 3.0)), None)
    found = Student(ready, "paper", 0.5, "linear").segment(scan)
    assert found.windows_run == windows_run
    assert (found.labels.array == 5).sum() == 8 * 12 * 12


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"windows": "most"}, "windows is 'most' · use one of full, efficient, body, paper"),
        ({"method": "cubic"}, "method is 'cubic' · use one of linear, nearest"),
        ({"step": 0}, "step is 0 · use a number from 0.05 to 1"),
        ({"step": 1.1}, "step is 1.1 · use"),
        ({"step": float("nan")}, "step is nan · use"),
        ({"step": "0.5"}, "step is '0.5' · use"),
    ],
)
def test_a_setting_that_is_none_is_told(setting, message):
    with pytest.raises(UsageError) as caught:
        WindowSettings(**setting)
    assert message in str(caught.value)
