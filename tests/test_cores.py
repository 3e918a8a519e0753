"""Threads that wait sleep: what the command line says before torch is there to hear it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from flarekd.cli import main

sys.argv = ["flarekd", "--version"]
assert "torch" not in sys.modules, "too late"
try:
    main()
except SystemExit:
    print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_is_told_to_sleep_unless_somebody_has_told_it_otherwise(before, after):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if before:
        environment["OMP_WAIT_POLICY"] = before
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == after
