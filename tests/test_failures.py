"""What the system refuses becomes a message and a status; what is a bug stays one."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from flarekd import config
from flarekd.cohort import read_cohort
from flarekd.errors import LESS_MEMORY, MAKE_ROOM, InputError
from flarekd.failures import Verbs
from flarekd.parallel import map_cases

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
def nowhere():
    Path("/dev/null/model").write_bytes(b"x")


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


def test_a_path_that_leads_nowhere_is_told_with_its_name():
    done = CliRunner().invoke(app, ["nowhere"])
    assert done.exit_code == 3
    assert "/dev/null/model: Not a directory · mend that" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOENT, "x/a.nii: No such file or directory · check the path"),
        (errno.EACCES, "x/a.nii: Permission denied · check its permissions"),
        (errno.ENOSPC, f"x/a.nii: No space left on device · {MAKE_ROOM}"),
        (errno.EBUSY, "x/a.nii: Device or resource busy · mend that and run the same command"),
    ],
)
def test_what_the_system_refuses_costs_a_case_with_file_reason_and_mend(number, told):
    def refused(_):
        raise OSError(number, os.strerror(number), "x/a.nii")

    (outcome,) = map_cases(refused, ["a"])
    assert outcome.error.startswith(told)
    assert "Errno" not in outcome.error


def test_a_cohort_that_cannot_be_read_is_told_without_numbers(tmp_path):
    with pytest.raises(InputError, match=r"^cannot read cohort '\S+': Is a directory · make it"):
        read_cohort(tmp_path)
    with pytest.raises(InputError, match=r"^cannot read configuration '\S+': No such file or dir"):
        config.load(tmp_path / "none.yaml")
