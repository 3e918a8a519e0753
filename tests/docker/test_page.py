"""docs/container.md followed to the letter, with a stand-in for Docker's engine."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docker import engine
from tests.docker.test_predict import save_quick_student, save_scan

ROOT = Path(__file__).parents[2]


def program(path, words):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n', encoding="utf-8")
    path.chmod(0o755)


def test_the_page_for_the_challenge_container(tmp_path):
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    for name in ("student", "inputs", "outputs"):
        (tmp_path / name).mkdir()
    save_quick_student(tmp_path / "student" / "model.safetensors")
    save_scan(tmp_path / "inputs" / "FLARETs_0001_0000.nii.gz", seed=1)
    program(tmp_path / "bin" / "docker", engine.__file__)
    program(tmp_path / "bin" / "flarekd", "-m flarekd")
    page = (ROOT / "docs" / "container.md").read_text(encoding="utf-8")
    commands = "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    assert commands.count("docker ") == 4
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-ec", commands],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["FLARETs_0001.nii.gz"]
    assert (tmp_path / "flarekd-bench" / "bench.json").exists()
    assert gzip.decompress((tmp_path / "team.tar.gz").read_bytes()) == b"team:latest\n"
