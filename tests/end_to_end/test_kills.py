"""Killed thirty times a verb, at moments spread over its work: nothing torn, and the same result.

Minutes, so it runs with ``pytest -m slow``; ``test_faults.py`` has a few kills of whole processes.
"""

import json
import random
import shutil
import time

import pytest
from safetensors.torch import load_file
from tests.end_to_end import warm
from tests.end_to_end.command import set_all

from flarekd.cohort import read_cohort
from flarekd.imaging.files import read_labels
from flarekd.lock import NAME

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KILLS = 30
WHOLE = {
    ".nii.gz": read_labels,
    ".safetensors": load_file,
    "cohort.csv": read_cohort,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
}
"""How a visible file of a kind is read through."""

TIMED = ("report.json", "done.jsonl", "log.jsonl", "report.html", ".png", ".facts.jsonl")
"""Files that hold the time it took, or a picture of it."""


@pytest.fixture(scope="module")
def verbs(demo):
    out, _ = demo
    cohort, csv = out / "cohort", out / "cohort.csv"
    tiny = ["--config", "configs/quick.yaml", *set_all("teacher.checkpoint_minutes=0")]
    return {
        "group-data": ["--images", cohort / "imagesTr", "--labels", cohort / "labelsTr"],
        "train-teacher": ["--cohort", csv, *tiny, "--set", "teacher.epochs=2"],
        "pseudo-tumor": ["--cohort", csv, "--model", out / "teacher" / "model.safetensors"],
        "fuse": ["--cohort", csv, "--tumor", out / "tumor", "--provenance"],
        "infer": [cohort / "imagesTr", "--model", out / "student" / "model.safetensors"],
        "evaluate": ["--predictions", out / "predictions", "--references", cohort / "labelsVal"],
    }


def target(name, folder):
    return folder / "cohort.csv" if name == "group-data" else folder / "out"


def run(name, words, folder, kill_after_s=None):
    """Run the verb in `folder`, killed after some seconds or not; seconds taken."""
    folder.mkdir(exist_ok=True)
    extra = ["--resume"] if (folder / "out" / "checkpoint.safetensors").exists() else []
    began = time.monotonic()
    arguments = [name, *words, *extra, "--out", target(name, folder)]
    said = folder.with_suffix(".said")
    process = warm.start(arguments, said, said)
    process.join(kill_after_s)
    if process.is_alive():
        process.kill()
    else:
        assert process.exitcode == 0, said.read_text(encoding="utf-8")
    process.join()
    return time.monotonic() - began


def results(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".tmp-") and path.name != NAME
    }


@pytest.mark.parametrize(
    "name", ["group-data", "train-teacher", "pseudo-tumor", "fuse", "infer", "evaluate"]
)
def test_killed_at_any_moment_leaves_whole_files_and_the_same_result(verbs, tmp_path, name):
    words = verbs[name]
    whole = tmp_path / "whole"
    run(name, words, tmp_path / "first")  # what a first run makes once is made
    lasts_s = run(name, words, whole)
    wanted = results(whole)
    assert wanted
    moments = random.Random(0)
    stopped = seen = 0
    for number in range(KILLS):
        cut = tmp_path / f"cut-{number}"
        # even parts of its time, so that no phase is missed
        after_s = lasts_s * (number + moments.random()) / KILLS
        stopped += run(name, words, cut, after_s) < lasts_s
        for path in results(cut):
            for ending, read in WHOLE.items():
                if path.endswith(ending):
                    read(cut / path)
                    seen += 1
        run(name, words, cut)
        found = results(cut)
        assert found.keys() == wanted.keys()
        for path, content in wanted.items():
            if not path.endswith(TIMED):
                assert found[path] == content, path
        shutil.rmtree(cut)
    assert stopped > KILLS / 2
    assert seen
