"""Killed thirty times a verb, at moments spread over its work: nothing torn, and the same result.

Minutes, so it runs with ``pytest -m slow``; ``test_faults.py`` has a few kills of whole processes.
"""

import random
import shutil
import time

import pytest
from tests.end_to_end import warm, whole
from tests.end_to_end.command import set_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KILLS = 30


@pytest.fixture(scope="module")
def verbs(demo):
    csv = demo[0] / "cohort.csv"
    tiny = ["--config", "configs/quick.yaml", *set_all("teacher.checkpoint_minutes=0")]
    return {
        **whole.verbs(demo[0]),
        "train-teacher": ["--cohort", csv, *tiny, "--set", "teacher.epochs=2"],
    }


def run(name, words, folder, kill_after_s=None):
    """Run the verb in `folder`, killed after some seconds or not; seconds taken."""
    folder.mkdir(exist_ok=True)
    extra = ["--resume"] if (folder / "out" / "checkpoint.safetensors").exists() else []
    began = time.monotonic()
    arguments = [name, *words, *extra, "--out", whole.target(name, folder)]
    said = folder.with_suffix(".said")
    process = warm.start(arguments, said, said)
    process.join(kill_after_s)
    if process.is_alive():
        process.kill()
    else:
        assert process.exitcode == 0, said.read_text(encoding="utf-8")
    process.join()
    return time.monotonic() - began


@pytest.mark.parametrize(
    "name", ["group-data", "train-teacher", "pseudo-tumor", "fuse", "infer", "evaluate"]
)
def test_killed_at_any_moment_leaves_whole_files_and_the_same_result(verbs, tmp_path, name):
    words = verbs[name]
    run(name, words, tmp_path / "first")  # what a first run makes once is made
    lasts_s = run(name, words, tmp_path / "whole")
    wanted = whole.results(tmp_path / "whole")
    assert wanted
    moments = random.Random(0)
    stopped = seen = 0
    for number in range(KILLS):
        cut = tmp_path / f"cut-{number}"
        # even parts of its time, so that no phase is missed
        after_s = lasts_s * (number + moments.random()) / KILLS
        stopped += run(name, words, cut, after_s) < lasts_s
        seen += whole.read_through(cut)
        run(name, words, cut)
        whole.assert_same(whole.results(cut), wanted)
        shutil.rmtree(cut)
    assert stopped > KILLS / 2
    assert seen
