"""A folder is held by one process at a time, and by none once that is gone."""

import errno
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from flarekd.errors import InputError, UsageError
from flarekd.lock import NAME, abandon, alone, alone_on_file, locked
from flarekd.segmenting import Options
from flarekd.stages.bench import bench
from flarekd.stages.evaluate import evaluate
from flarekd.stages.export import export
from flarekd.stages.fuse import fuse_labels
from flarekd.stages.group_data import Folders, group_data
from flarekd.stages.import_nnunet import import_nnunet
from flarekd.stages.infer import infer
from flarekd.stages.phantom import make_phantoms
from flarekd.stages.pseudo_tumor import pseudo_tumor
from flarekd.stages.rank import rank
from flarekd.stages.review import review

fcntl = pytest.importorskip("fcntl")

HOLD = """
import sys
from pathlib import Path
from flarekd.lock import locked
with locked(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def unheard(_text):
    raise AssertionError(_text)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "out"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_which_is_the_first(tmp_path, other):
    said = f"process {other.pid} on .* is writing to"
    with pytest.raises(UsageError, match=said) as caught, locked(tmp_path / "out", unheard):
        pass
    assert re.search(re.escape(str(tmp_path / "out")), caught.value.what)
    assert "wait until it is done" in caught.value.mend
    assert caught.value.exit_code == 2


def test_a_folder_is_free_when_its_process_was_killed(tmp_path, other):
    other.kill()
    other.wait()
    assert (tmp_path / "out" / NAME).exists()
    with locked(tmp_path / "out", unheard):
        assert (tmp_path / "out" / NAME).read_text(encoding="utf-8").startswith(f"{os.getpid()} ")
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_is_free_when_its_process_has_ended(tmp_path, other):
    other.communicate("")
    with locked(tmp_path / "out", unheard):
        pass


def test_nothing_is_left_behind_but_what_was_written(tmp_path):
    with locked(tmp_path / "a" / "b", unheard):
        (tmp_path / "a" / "result").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "result"]


def test_a_process_may_take_a_folder_again_that_it_holds(tmp_path):
    with locked(tmp_path / "out", unheard):
        with locked(tmp_path / "out" / ".." / "out", unheard):
            pass
        assert (tmp_path / "out" / NAME).exists()


def test_the_folder_is_the_argument_out_wherever_it_stands(tmp_path):
    seen = []

    @alone(unheard, lambda out: out.parent)
    def write(first, out, *, more=0):
        seen.append((first, more, (tmp_path / NAME).exists()))

    write(1, tmp_path / "cohort.csv")
    write(out=tmp_path / "cohort.csv", first=2, more=3)
    assert seen == [(1, 0, True), (2, 3, True)]


def test_a_disk_that_knows_no_locks_is_told_of_and_written_to(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = []
    with locked(tmp_path / "out", told.append):
        assert not list((tmp_path / "out").iterdir())
    assert len(told) == 1
    assert "cannot be locked (No locks available): start no second run in it" in told[0]


def test_a_file_is_no_folder_to_write_to(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="is no folder"), locked(tmp_path / "out", unheard):
        pass


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="/proc is Linux's")
def test_where_no_folder_can_be_made_it_is_said():
    told = "'/proc/out' cannot be made · choose another --out"
    with pytest.raises(InputError, match=told), locked(Path("/proc/out"), unheard):
        pass


def test_a_process_that_is_ended_by_force_leaves_no_lock(tmp_path):
    with locked(tmp_path / "out", unheard):
        abandon()
        assert not list((tmp_path / "out").iterdir())


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_is_left_alone(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("precious", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).symlink_to(target)
    with pytest.raises(UsageError, match="is a link"), locked(tmp_path / "out", unheard):
        pass
    assert target.read_text(encoding="utf-8") == "precious"


@contextmanager
def held(path):
    """As another process would: a lock belongs to an open file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write("7 elsewhere")
        file.flush()
        yield


def test_who_writes_one_file_is_alone_on_it_and_not_in_its_folder(tmp_path):
    done = []

    @alone_on_file(unheard)
    def write(out):
        done.append(out.name)

    with held(tmp_path / f"{NAME}-a.onnx"), held(tmp_path / NAME):
        write(tmp_path / "b.onnx")
        with pytest.raises(UsageError, match="process 7 on elsewhere is writing to"):
            write(tmp_path / "a.onnx")
    assert done == ["b.onnx"]


def scan(folder):
    path = folder / "a_0000.nii.gz"
    path.touch()
    return path


def cohort(folder):
    path = folder / "cohort.csv"
    path.write_text("case,image\na,a_0000.nii.gz\n", encoding="utf-8")
    return path


VERBS = {
    "bench": (lambda out: bench([sys.executable, "-c", "pass"], out), f"{NAME}-bench"),
    "export": (
        lambda out: export(out, out / "a.onnx", form=None, int8=False, calibrate=None),
        f"{NAME}-a.onnx",
    ),
    "import-nnunet": (
        lambda out: import_nnunet(out, None, out / "a.st", labels=None, orientation=None),
        f"{NAME}-a.st",
    ),
    "group-data": (lambda out: group_data(Folders(out), out / "cohort.csv"), NAME),
    "pseudo-tumor": (lambda out: pseudo_tumor(cohort(out), out, out, "cpu"), NAME),
    "fuse": (lambda out: fuse_labels(out, out, out, "paper"), NAME),
    "infer": (lambda out: infer([scan(out)], out, out, Options("cpu")), NAME),
    "evaluate": (lambda out: evaluate(out, out, out, "flare23"), NAME),
    "review": (lambda out: review(out, out, out), NAME),
    "rank": (lambda out: rank([], out), NAME),
    "phantom": (lambda out: make_phantoms(out, 1, "quick", 0, 1), NAME),
}


@pytest.mark.parametrize("verb", VERBS)
def test_two_runs_of_a_verb_never_write_the_same_output(tmp_path, verb):
    run, lock = VERBS[verb]
    with held(tmp_path / lock), pytest.raises(UsageError, match="7 on elsewhere is writing to"):
        run(tmp_path)


def test_a_command_that_writes_into_the_folder_of_its_bench_is_measured(tmp_path):
    with held(tmp_path / NAME):
        assert bench([sys.executable, "-c", "pass"], tmp_path) == 0


def test_who_holds_a_folder_deletes_what_killed_runs_left_there(tmp_path, other):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = tmp_path / "mine"
    kept = [
        folder / f".tmp-{os.getpid()}-a.nii.gz",
        folder / f".tmp-{other.pid}-a.nii.gz",
        folder / f".tmp-{gone.pid}-folder" / "a",
        folder / f".tmp-notes-{gone.pid}-a",
        folder / ".tmp-20231104-notes.txt",
        folder / "below" / f".tmp-{gone.pid}-a.nii.gz",
        folder / f"tmp-{gone.pid}-a",
    ]
    left = [folder / f".tmp-{gone.pid}-{name}" for name in ("a.nii.gz", "checkpoint.safetensors")]
    for path in (*kept, *left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with locked(folder, unheard, f"{NAME}-file"):  # others may write beside it
        assert all(path.exists() for path in left)
    told = []
    with locked(folder, told.append):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)
    assert [text.partition(": deleted")[0] for text in told] == list(map(str, left))
