"""A demo at toy size, taken down the whole road once by the real command line."""

import pytest
from tests.end_to_end.command import demo_arguments, flarekd


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    done = flarekd(*demo_arguments(out))
    return out, done
