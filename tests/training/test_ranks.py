"""Several processes train as one: two gloo processes on the CPU.

The real torchrun starts those of a verb and those on two machines; where it is not itself in
question, its ranks are forked from a process that has imported everything.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.end_to_end import warm
from tests.end_to_end.command import flarekd
from tests.training import one_step
from tests.training.one_step import PARTLY
from torch.nn.parallel import DistributedDataParallel

from flarekd.cohort import Case, format_cohort
from flarekd.imaging import store
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.modelfile import read_card, read_weights
from flarekd.training.log import read_log
from flarekd.training.ranks import ALONE, joined

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def together(*arguments):
    """Run a verb in two ranks that torchrun starts; what they said."""
    meeting = ["--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    done = subprocess.run(
        [*TORCHRUN, *meeting, "-m", "flarekd", *map(str, arguments)],
        capture_output=True, encoding="utf-8", timeout=240, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def forked(notes, *arguments, statuses=(0, 0), **options):
    """Run a verb, or the `main` of another program, in two ranks; what they said.

    Args:
        notes: Folder for what they say.
        arguments: Of the verb.
        statuses: What each must end with.
        options: As `warm.start` takes them.
    """
    told = {
        "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": unused_port(),
    }  # fmt: skip
    said = notes / "said"
    said.unlink(missing_ok=True)
    ranks = [
        warm.start(arguments, said, said, **options, environment={**told, **of_rank})
        for of_rank in ({"RANK": rank, "LOCAL_RANK": rank} for rank in "01")
    ]
    for rank in ranks:
        rank.join(240)
        rank.kill()
        rank.join()
    text = said.read_text(encoding="utf-8")
    assert [rank.exitcode for rank in ranks] == list(statuses), text[-3000:]
    return text


def unused_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def stored(folder, is_partly=False):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(3):
        labels = np.zeros((10, 24, 28), np.uint8)
        labels[3:7, 6:14, 8:18] = 1
        labels[4:6, 7:12, 10:16] = 2
        image = (rng.normal(0, 20, labels.shape) + 90 * labels).astype(np.int16)
        if is_partly:
            labels[~np.isin(labels, PARTLY[f"case{index}"])] = 0
        path = folder / f"case{index}.b2nd"
        grid = {"spacing_zyx": (5.0, 2.0, 2.0), "chunk_zyx": (8, 16, 16)}
        store.write_case(path, image, labels, key="k", **grid)


def test_alone_nothing_is_exchanged():
    with joined(torch.device("cpu")) as (ranks, device):
        assert (ranks, device) == (ALONE, torch.device("cpu"))
    numbers = torch.arange(3.0, requires_grad=True)
    assert ALONE.total(numbers) is numbers
    assert ALONE.total_with_gradient(numbers) is numbers
    assert ALONE.share("it") == "it"
    assert ALONE.is_first
    network = torch.nn.Linear(2, 2)
    assert ALONE.wrap(network, torch.device("cpu"), has_idle=False) is network


@pytest.mark.parametrize("labels", [[], ["partly"]], ids=["complete", "partly"])
def test_two_ranks_with_batch_b_find_the_gradients_of_one_with_2b(tmp_path, labels):
    stored(tmp_path / "store", is_partly=bool(labels))
    ours, theirs = (tmp_path / f"{name}.safetensors" for name in ("two", "one"))
    forked(tmp_path, tmp_path / "store", ours, 2, *labels, main=one_step.main)
    flarekd(tmp_path / "store", theirs, 4, *labels, main=one_step.main)
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(float(value.abs().max()) for value in one.values()) > 1e-3
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)


def _leave_with_a_wrapped_network():
    import torch._dynamo  # as trainings do; without it torch itself holds the group to the end

    with joined(torch.device("cpu")):
        network = DistributedDataParallel(torch.nn.Linear(2, 2))
        network(torch.ones(1, 2)).sum().backward()
    del network
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert "pt_gloo_runloop\n" in names, names


@pytest.mark.skipif(sys.platform != "linux", reason="threads are read in /proc")
def test_a_wrapped_network_that_outlives_its_group_does_not_end_it(tmp_path):
    """It would wait for the thread of the group, and that for Python's lock: for ever, at times."""
    forked(tmp_path, main=_leave_with_a_wrapped_network)


@pytest.fixture
def cohort(tmp_path):
    """A cohort.csv of six cases with fused labels."""
    cosine, sine = np.cos(0.28), np.sin(0.28)
    geometry = Geometry(
        (28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0),
        (cosine, sine, 0, sine, -cosine, 0, 0, 0, 1),
    )  # fmt: skip
    cases = []
    for index in range(6):
        labels = np.zeros(geometry.shape_zyx, np.uint8)
        labels[2:9, 5:17, 6:20] = 1
        labels[4:8, 8:14, 10:17] = 14
        noise = np.random.default_rng(index).normal(0, 20, labels.shape)
        image = tmp_path / "images" / f"case_{index}_0000.nii.gz"
        write_volume(image, Volume((noise + 9 * labels).astype(np.int16), geometry))
        write_labels(tmp_path / "fused" / f"case_{index}.nii.gz", LabelMap(labels, geometry))
        cases.append(Case(f"case_{index}", image, "train"))
    (tmp_path / "cohort.csv").write_text(format_cohort(cases, tmp_path))
    return tmp_path


def verb(cohort, out, *settings):
    chosen = [
        "epochs=2", "iterations=2", "patch=[8, 16, 16]", "oversize=[8, 16, 16]",
        "channels=[2, 2, 4, 4]", "spacing=[3.0, 1.25, 0.75]", "validation=2", "fold=0",
        "volumes_every=2", "checkpoint_minutes=0",
        "optimizer.name=sgd", "optimizer.lr=0.01", "precision=fp32", *settings,
    ]  # fmt: skip
    arguments = ["train-student", "--cohort", cohort / "cohort.csv", "--labels", cohort / "fused"]
    arguments += ["--out", cohort / out, "--device", "cpu", "--config", ROOT / "configs/quick.yaml"]
    return [*arguments, *(part for each in chosen for part in ("--set", f"student.{each}"))]


def test_the_verb_under_torchrun_trains_as_one_process_with_the_whole_batch(cohort):
    said = together(*verb(cohort, "two", "batch=1"))
    flarekd(*verb(cohort, "one", "batch=2"))
    assert said.count("6 cases to train on") == 1  # the first rank alone speaks
    two, one = (read_weights(cohort / name / "model.safetensors") for name in ("two", "one"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
    records = [read_log(cohort / name / "log.jsonl") for name in ("two", "one")]
    for ours, theirs in zip(*records, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        assert ours["dsc"] == pytest.approx(theirs["dsc"], abs=1e-3)
        # the same validation batches, half of them in each rank, made of batch 1 instead of 2
        assert len(ours["validation_dsc"]) == len(theirs["validation_dsc"]) == 14
    assert records[0][-1]["volumes_dsc"] == pytest.approx(records[1][-1]["volumes_dsc"], abs=5e-3)
    assert (cohort / "two" / "model-best.safetensors").exists()


def test_a_run_of_two_ranks_is_resumed_by_two_and_refused_to_one(cohort):
    two = verb(cohort, "two", "batch=1")
    forked(cohort, *two)
    whole = {k: v.clone() for k, v in read_weights(cohort / "two" / "model.safetensors").items()}
    (cohort / "two" / "model.safetensors").unlink()
    (cohort / "two" / "checkpoint-previous.safetensors").replace(
        cohort / "two" / "checkpoint.safetensors"
    )
    alone = flarekd(*two, "--resume", check=False)
    assert alone.returncode == 3
    assert "comes from other settings or other data" in alone.stderr
    assert "continuing at iteration 2 of 4" in forked(cohort, *two, "--resume")
    weights = read_weights(cohort / "two" / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())
    assert read_card(cohort / "two" / "model.safetensors").training["iterations"] == 4


def test_two_machines_meet_at_an_address(cohort):
    """Two launches, one rank each, as on two machines."""
    port = unused_port()
    launches = [
        subprocess.Popen(
            [*TORCHRUN, "--nnodes", "2", "--node_rank", rank, "--nproc_per_node", "1",
             "--master_addr", "127.0.0.1", "--master_port", port,
             "-m", "flarekd", *map(str, verb(cohort, "two", "batch=1"))],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", cwd=ROOT,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    told = [launch.communicate(timeout=200)[0] for launch in launches]
    assert [launch.returncode for launch in launches] == [0, 0], told
    lines = (cohort / "two" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
