"""How a student looks at a scan."""

from __future__ import annotations

import pytest
import torch

from flarekd.errors import UsageError
from flarekd.student.segment import WindowSettings, windows_together


def test_gpus_are_given_as_many_voxels_as_a_window_of_the_published_student():
    cuda = torch.device("cuda")
    assert windows_together((32, 128, 192), cuda) == 1
    assert windows_together((64, 128, 192), cuda) == 1
    assert windows_together((16, 32, 40), cuda) == 38
    assert windows_together((16, 32, 40), torch.device("cpu")) == 1


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
