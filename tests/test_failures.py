"""What the system refuses becomes a message and a status; what is a bug stays one."""

from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from flarekd.errors import LESS_MEMORY, MAKE_ROOM
from flarekd.failures import Verbs

app = typer.Typer(cls=Verbs)


@app.command()
def tensor():
    torch.empty(10**15)


@app.command()
def array():
    np.empty(10**15)


@app.command()
def full():
    with Path("/dev/full").open("wb") as file:
        file.write(b"x")


@app.command()
def bug():
    message = "a bug"
    raise RuntimeError(message)


@pytest.mark.parametrize("verb", ["tensor", "array"])
def test_memory_that_is_short_is_told_with_what_takes_less(verb):
    done = CliRunner().invoke(app, [verb])
    assert done.exit_code == 3
    assert "allocate" in done.stderr
    assert LESS_MEMORY in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_told_whoever_writes():
    done = CliRunner().invoke(app, ["full"])
    assert done.exit_code == 3
    assert f"No space left on device · {MAKE_ROOM}" in done.stderr


def test_a_bug_is_raised():
    assert isinstance(CliRunner().invoke(app, ["bug"]).exception, RuntimeError)
