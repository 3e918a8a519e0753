"""A disk that fills up while a verb writes to it: a clear end, whole files, and the same after."""

import os
import shutil
import subprocess

import pytest
from tests.end_to_end import whole
from tests.end_to_end.command import flarekd, set_all

BALLAST = "ballast"
SMALL = 16 * 2**20
LONG = ("infer", "evaluate")


@pytest.fixture
def small(tmp_path):
    """A disk of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("may not mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder, leave):
    """Take all room but `leave` bytes."""
    disk = os.statvfs(folder)
    (folder / BALLAST).write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - leave)))


def size_of(results):
    """Bytes on a disk that gives out pages."""
    return sum(-(-len(content) // 4096) * 4096 for content in results.values())


def tried(verb, small, leave):
    """Run a verb while there is room for so many bytes, too few; it says so and leaves no mess."""
    fill(small, leave)
    done = flarekd(*verb, check=False)
    assert done.returncode == 3, done.stderr
    assert f"error: {small}" in done.stderr
    assert "No space left on device · make room on that disk and run" in done.stderr
    assert "Traceback" not in done.stderr
    assert not whole.litter(small)
    whole.read_through(small)
    (small / BALLAST).unlink()


def words_of(name, demo, folder):
    """A verb and its arguments but for ``--out``; long ones do one case."""
    if name not in LONG:
        return [name, *whole.verbs(demo)[name]]
    case = min((demo / "cohort" / "labelsVal").glob("*.nii.gz")).name
    if name == "infer":
        scan = demo / "cohort" / "imagesVal" / case.replace(".nii", "_0000.nii")
        return ["infer", scan, "--model", demo / "student" / "model.safetensors"]
    for source in ("predictions", "cohort/labelsVal"):
        (folder / source).mkdir(parents=True)
        shutil.copyfile(demo / source / case, folder / source / case)
    references = folder / "cohort" / "labelsVal"
    return ["evaluate", "--predictions", folder / "predictions", "--references", references]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("group-data", 0),
        ("group-data", 0.5),
        ("group-data", 0.9),
        ("fuse", 0),
        ("fuse", 0.5),
        ("fuse", 0.9),
        ("infer", 0.5),
        ("evaluate", 0.5),
        *(pytest.param(name, share, marks=SLOW) for name in LONG for share in (0, 0.2, 0.9)),
    ],
)
def test_a_full_disk_is_told_and_what_is_there_is_whole(demo, small, tmp_path, name, share):
    words = words_of(name, demo[0], tmp_path)
    flarekd(*words, "--out", whole.target(name, tmp_path / "whole"))
    wanted = whole.results(tmp_path / "whole")
    verb = [*words, "--out", whole.target(name, small)]
    tried(verb, small, int(size_of(wanted) * share))
    flarekd(*verb)
    whole.assert_same(whole.results(small), wanted)


@pytest.mark.parametrize("share", [0.6, *(pytest.param(s, marks=SLOW) for s in (0, 0.2, 0.9))])
def test_a_training_on_a_full_disk_goes_on_once_there_is_room(demo, small, tmp_path, share):
    """The store has room, and a share of what comes after it."""
    words = ["train-teacher", "--cohort", demo[0] / "cohort.csv", "--config", "configs/quick.yaml"]
    words += set_all("teacher.epochs=3", "teacher.checkpoint_minutes=0")
    flarekd(*words, "--out", tmp_path / "whole")
    wanted = whole.results(tmp_path / "whole")
    store = size_of({name: part for name, part in wanted.items() if name.startswith("store/")})
    run = small / "run"
    verb = [*words, "--out", run]
    tried(verb, small, store + int((size_of(wanted) - store) * share))
    resumes = (run / "checkpoint.safetensors").exists()
    assert resumes == (share > 0.5)
    flarekd(*verb, *(["--resume"] if resumes else []))
    whole.assert_same(whole.results(run), wanted)


def test_a_store_that_fills_the_disk_ends_the_training(demo, small):
    """Not a training of the cases that happened to fit."""
    verb = ["train-teacher", "--cohort", demo[0] / "cohort.csv", "--config", "configs/quick.yaml"]
    verb += [*set_all(), "--out", small / "run"]
    fill(small, 0)
    done = flarekd(*verb, check=False)
    assert done.returncode == 3, done.stderr
    assert "make room" in done.stderr
    assert not whole.litter(small)
