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
    print(os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, ["PASSIVE", "1000"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None"]),
        ({"GOMP_SPINCOUNT": "7"}, ["PASSIVE", "7"]),
    ],
)
def test_openmp_is_told_to_sleep_soon_unless_somebody_has_told_it_otherwise(before, after):
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {k: v for k, v in os.environ.items() if k not in ours} | before
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-2:] == after
