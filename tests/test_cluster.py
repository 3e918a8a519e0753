"""Cases on a real Dask cluster of two local workers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flarekd.cluster import _result
from flarekd.errors import InputError
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.parallel import map_cases
from flarekd.stages.check import check
from flarekd.stages.evaluate import evaluate
from flarekd.stages.phantom import make_phantoms

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # what Dask warns of in its own code

GRID = Geometry((8, 8, 8), (1.0, 1.0, 1.0))


def whereabouts(item):
    if item == "broken":
        raise InputError("it is broken", "mend it")
    if item == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def bug(item):
    raise KeyError(item)


def test_cases_run_in_the_workers_and_a_bad_one_is_named(scheduler):
    items = [*range(20), "broken"]
    found = {o.item: (o.result, o.error) for o in map_cases(whereabouts, items, 1, scheduler)}
    assert len(found) == 21
    assert found.pop("broken") == (None, "it is broken \u00b7 mend it")
    workers = {result for result, _ in found.values()}
    assert 1 <= len(workers) <= 2
    assert os.getpid() not in workers


def test_a_bug_on_a_worker_is_raised_here(scheduler):
    with pytest.raises(KeyError, match="7"):
        list(map_cases(bug, [7], 1, scheduler))


def test_a_case_that_kills_its_workers_is_given_up_and_the_rest_is_done(scheduler):
    found = {o.item: o for o in map_cases(whereabouts, [1, "poison", 2], 1, scheduler)}
    assert found["poison"].error.startswith("its process was killed")
    assert found[1].error is found[2].error is None


def folder(_item):
    return Path.cwd()


def test_relative_paths_are_meant_from_where_the_verb_was_called(scheduler, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert {o.result for o in map_cases(folder, [1, 2, 3], 1, scheduler)} == {tmp_path}
    monkeypatch.setattr("flarekd.cluster.Path.cwd", lambda: Path("/elsewhere"))
    with pytest.raises(InputError, match=r"workers do not see the folder '/elsewhere': .*tcp"):
        list(map_cases(folder, [1], 1, scheduler))


def test_scores_of_workers_are_those_of_this_process(scheduler, tmp_path):
    random = np.random.default_rng(0)
    for folder in ("drawn", "found"):
        for case in "ab":
            labels = random.integers(0, 3, (8, 8, 8)).astype(np.uint8)
            write_labels(tmp_path / folder / f"{case}.nii.gz", LabelMap(labels, GRID))
    scores = []
    for address in (None, scheduler):
        out = tmp_path / f"scores-{address is None}"
        evaluate(tmp_path / "found", tmp_path / "drawn", out, "flare23", scheduler=address)
        scores.append((out / "scores.csv").read_bytes())
    assert scores[0] == scores[1]


def test_a_scheduler_that_does_not_answer_is_told_by_other_verbs_too(monkeypatch, tmp_path):
    monkeypatch.setattr("flarekd.cluster.WAIT_S", 0.3)
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        make_phantoms(tmp_path / "c", 4, "quick", 0, 1, scheduler="tcp://127.0.0.1:9")
    write_volume(tmp_path / "a.nii.gz", Volume(np.zeros((8, 8, 8), np.int16), GRID))
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        check([tmp_path / "a.nii.gz"], scheduler="tcp://127.0.0.1:9")
    write_labels(tmp_path / "l" / "a.nii.gz", LabelMap(np.ones((8, 8, 8), np.uint8), GRID))
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        evaluate(
            tmp_path / "l", tmp_path / "l", tmp_path / "s", "flare23", scheduler="tcp://127.0.0.1:9"
        )


def test_workers_of_another_version_are_refused(scheduler, monkeypatch):
    monkeypatch.setattr("flarekd.cluster.__version__", "9.9")
    with pytest.raises(InputError, match=r"another flarekd than this one \(9\.9\): .*: \d"):
        list(map_cases(whereabouts, [1], 1, scheduler))


def test_where_no_scheduler_answers_is_said_with_how_to_start_one(monkeypatch):
    monkeypatch.setattr("flarekd.cluster.WAIT_S", 0.3)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        list(map_cases(whereabouts, [1], 1, "tcp://127.0.0.1:9"))


def test_a_cluster_whose_last_worker_is_gone_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("flarekd.cluster.LOOK_S", 0.3)
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root), *sys.path])
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as empty:
        address = empty.scheduler_address
        # one that nobody starts anew, as where a job's time is up
        command = ["-m", "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1"]
        worker = subprocess.Popen(
            [sys.executable, *command, "--no-dashboard"],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with distributed.Client(address) as client:
                client.wait_for_workers(1, timeout=60)
            monkeypatch.setattr("flarekd.cluster.WAIT_S", 3)
            with pytest.raises(InputError, match="has lost its last worker"):
                list(map_cases(whereabouts, [1, "poison"], 1, address))
            assert worker.wait(10) == -signal.SIGKILL
        finally:
            worker.kill()


@pytest.mark.parametrize("is_deserted", [True, False])
def test_a_result_that_went_with_its_worker_is_waited_for_while_there_are_others(is_deserted):
    class Future:
        def __init__(self):
            self.asked = 0

        def result(self, timeout):
            self.asked += 1
            if self.asked < 3:
                raise distributed.TimeoutError(timeout)
            return "found"

    class Client:
        def nthreads(self):
            return {} if is_deserted else {"tcp://worker": 1}

    if is_deserted:
        with pytest.raises(InputError, match="has lost its last worker"):
            _result(Future(), Client(), "tcp://here")
    else:
        assert _result(Future(), Client(), "tcp://here") == "found"
