"""What the tests of this folder share."""

import pytest
from tests.training.runs import Run


@pytest.fixture
def session(tmp_path):
    return Run(tmp_path)
