"""Every command of the README and of the pages for newcomers runs as it stands there, on toy data.

Trainings get toy sizes beside what the page says. What ``torchrun`` starts is forked here, two
ranks of it (``test_ranks.py`` has the real one); of what is installed the extras must exist.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.end_to_end.command import flarekd, set_all
from tests.imaging.bad_dicom import series
from tests.stages.test_import_nnunet import save_v2, student_v2
from tests.training.test_ranks import forked, unused_port
from torch.distributed.run import get_args_parser

from flarekd.cohort import read_cohort
from flarekd.imaging.files import list_scans, read_labels, write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume

ROOT = Path(__file__).parents[2]
PAGES = "docs/start"
pytestmark = pytest.mark.timeout(900)  # one test is a whole page

DASK = Path(sys.executable).with_name("dask")
ON_PATH = {"PATH": os.pathsep.join([str(DASK.parent), os.environ["PATH"]])}
TRAININGS = ("train-teacher", "train-student", "run")


def blocks(page, language):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(page):
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def whole(words):
    """The words of a verb; `…` stands for the options that the README gives it."""
    if "…" not in words:
        return words
    at = words.index("…")
    verb, given = words[at - 1], words[at + 1 :]
    full = next(line for line in commands("README.md") if line[:2] == ["flarekd", verb])
    pairs = zip(full[2::2], full[3::2], strict=True)
    return [*words[:at], *(word for pair in pairs if pair[0] not in given for word in pair), *given]


def toy(words):
    """The words of a verb, with the sizes of a toy where it trains."""
    if words[0] not in TRAININGS:
        return words
    quick = ["--config", ROOT / "configs" / "quick.yaml"] if words[0].startswith("train") else []
    return [*words, *quick, *set_all()]


def follow(page, folder, replaced=(), before=()):
    """Run the commands of a page in a folder, one after the other.

    Args:
        page: From the repository's root.
        folder: With the data that the page speaks of.
        replaced: Words in place of others.
        before: What to do before a verb.
    """
    background = []
    try:
        for words in commands(page):
            program, *rest = [dict(replaced).get(word, word) for word in whole(words)]
            if program == "flarekd" and rest[0] == "demo":
                continue  # the fixture has run it
            if program == "flarekd":
                dict(before).get(rest[0], lambda: None)()
                flarekd(*toy(rest), folder=folder, environment=ON_PATH)
            elif program == "torchrun":
                launch = get_args_parser().parse_args(rest)
                assert launch.module
                if launch.node_rank == 0:  # the other machine's command is the same
                    verb = launch.training_script_args
                    forked(folder, *toy(verb), folder=folder)
            elif program == "dask":
                assert rest.pop() == "&"
                background.append(subprocess.Popen([DASK, *rest], stderr=subprocess.DEVNULL))
            else:
                believe(program, rest, folder)
    finally:
        for process in background:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def believe(program, words, folder):
    """What a command of another program needs must be there; it is not run."""
    if program == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif program == "itksnap":
        assert all((folder / name).exists() for name in words[1::2])
    else:
        assert program == "pip"
        (extra,) = re.findall(r"\.\[(\w+)\]", " ".join(words))
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def link(target, sources, count):
    target.mkdir(parents=True)
    for path in sorted(sources.glob("*.nii.gz"))[:count]:
        (target / path.name).symlink_to(path)


def small_scan(path, seed=0):
    noise = np.random.default_rng(seed).normal(0, 30, (12, 24, 28))
    z, y, x = np.indices(noise.shape)
    image = 300 * np.sin(x / 4) * np.cos(y / 5 + z / 6) + noise
    write_volume(path, Volume(image.astype(np.int16), Geometry((28, 24, 12), (0.75, 1.25, 3.0))))


def write_settings(page, folder, name):
    """The YAML files of a page, for a trial as it says itself."""
    for block in blocks(page, "yaml"):
        target = name if block.startswith("base: flare23") else "groups.yaml"
        if named := re.match("# (.*yaml)\n", block):
            target = named[1]
        (folder / target).write_text(re.sub("^base: flare23", "base: quick", block))


def test_the_page_for_flare_data(demo, tmp_path):
    cohort = demo[0] / "cohort"
    link(tmp_path / "imagesTr2200", cohort / "imagesTr", 3)
    link(tmp_path / "labelsTr2200", cohort / "labelsTr", 3)
    link(tmp_path / "unlabeledTr1800", cohort / "imagesUnlabeled", 1)
    link(tmp_path / "organPseudo", cohort / "organPseudo", 99)
    link(tmp_path / "validation", cohort / "imagesVal", 1)
    link(tmp_path / "labelsVal", cohort / "labelsVal", 1)
    write_settings("docs/start/flare.md", tmp_path, "flare.yaml")
    follow("docs/start/flare.md", tmp_path)
    assert len(list_scans(tmp_path / "fused")) == 4
    assert (tmp_path / "run" / "student" / "model.safetensors").exists()
    assert (tmp_path / "scores" / "report.html").exists()
    assert (tmp_path / "review" / "review.html").exists()


def as_published(data):
    """A case of KiTS23 and one of TotalSegmentator, by the tree on the page."""
    kits, total = data / "kits23" / "dataset" / "case_00000", data / "totalsegmentator" / "s0001"
    for place, path in enumerate((kits / "imaging.nii.gz", total / "ct.nii.gz")):
        small_scan(path, place)
    drawn = np.zeros((12, 24, 28), np.uint8)
    drawn[4:6, 4:8, 2:5] = 1
    geometry = Geometry((28, 24, 12), (0.75, 1.25, 3.0))
    write_labels(kits / "segmentation.nii.gz", LabelMap(drawn, geometry))
    for row, name in enumerate(("liver", "spleen", "brain", "rib_left_1")):
        mask = LabelMap(np.roll(drawn, 4 * row, 2), geometry)
        write_labels(total / "segmentations" / f"{name}.nii.gz", mask)


def test_the_page_for_ones_own_data(demo, tmp_path):
    # two cases as KiTS has them, two with ids of their own: what the page's groups.yaml says
    cohort = demo[0] / "cohort"
    (tmp_path / "scans").mkdir()
    ids = {"kits": {2: 1, 13: 1, 14: 2}, "ours": {3: 1, 14: 2}}
    scans = list(list_scans(cohort / "imagesTr").items())[:4]
    for (case, path), kind in zip(scans, ("kits", "ours") * 2, strict=True):
        (tmp_path / "scans" / f"{kind}_{case}_0000.nii.gz").symlink_to(path)
        truth = read_labels(cohort / "truth" / f"{case}.nii.gz")
        theirs = np.zeros(256, np.uint8)
        theirs[list(ids[kind])] = list(ids[kind].values())
        drawn = LabelMap(theirs[truth.array], truth.geometry)
        write_labels(tmp_path / "labels" / f"{kind}_{case}.nii.gz", drawn)
    as_published(tmp_path / "data")
    write_settings("docs/start/own-data.md", tmp_path, "mine.yaml")
    follow("docs/start/own-data.md", tmp_path)
    public = {case.case: case for case in read_cohort(tmp_path / "public" / "cohort.csv")}
    assert {name: len(case.annotated) for name, case in public.items()} == {
        "case_00000": 3,
        "s0001": 2,
    }
    assert len(list_scans(tmp_path / "segmentations")) == 4
    assert (tmp_path / "run" / "organs").is_dir()
    assert (tmp_path / "review" / "review.html").exists()


def test_the_page_for_who_only_wants_to_segment(tmp_path):
    save_v2(tmp_path, student_v2())
    small_scan(tmp_path / "scan.nii.gz")
    small_scan(tmp_path / "scans" / "a.nii.gz", 1)
    series(tmp_path)
    (tmp_path / "a").rename(tmp_path / "series")
    follow("docs/start/segment.md", tmp_path)
    found = {path.name for path in (tmp_path / "segmentations").iterdir()}
    assert {"scan.nii.gz", "a.nii.gz", "a.png", "statistics.csv"} <= found
    assert (tmp_path / "dicom" / "series.seg.dcm").exists()
    (example,) = blocks("docs/start/segment.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == "(12, 24, 28) (0.75, 1.25, 3.0)\n"


@pytest.mark.filterwarnings("ignore")  # what Dask warns of in its own code
def test_the_page_for_many_gpus_and_machines(demo, tmp_path):
    if not DASK.exists():
        pytest.skip("no dask")
    out, _ = demo
    link(tmp_path / "scans", out / "cohort" / "imagesTr", 2)
    link(tmp_path / "labels", out / "cohort" / "labelsTr", 2)
    shutil.copy(out / "student" / "model.safetensors", tmp_path / "model.safetensors")
    shutil.copytree(out / "fused", tmp_path / "fused")
    table = (out / "cohort.csv").read_text(encoding="utf-8")
    (tmp_path / "cohort.csv").write_text(re.sub(r"\bcohort/", f"{out}/cohort/", table))
    shutil.copy(out / "grouping.json", tmp_path / "grouping.json")  # of group-data, then
    port = unused_port()
    other = {"tcp://127.0.0.1:8786": f"tcp://127.0.0.1:{port}", "8786": port}
    follow("docs/start/many.md", tmp_path, other)
    for path in list_scans(tmp_path / "segmentations").values():
        assert read_labels(path).array.max() <= 14
    assert (tmp_path / "student" / "model.safetensors").exists()


def test_the_readme(demo, tmp_path):
    out, _ = demo
    cohort = out / "cohort"
    for name in ("imagesTr", "labelsTr", "imagesUnlabeled"):
        link(tmp_path / name, cohort / name, 2)
    link(tmp_path / "organPseudo", cohort / "organPseudo", 99)
    case = next(iter(list_scans(cohort / "imagesVal")))
    (tmp_path / "scan.nii.gz").symlink_to(cohort / "imagesVal" / f"{case}_0000.nii.gz")
    for name, ending in (("imagesVal", "_0000"), ("labelsVal", "")):
        (tmp_path / name).mkdir()
        source = cohort / name / f"{case}{ending}.nii.gz"
        (tmp_path / name / f"scan{ending}.nii.gz").symlink_to(source)
    save_v2(tmp_path, student_v2())
    write_settings("README.md", tmp_path, "mine.yaml")
    fewer = {"48": "4", "8": "4", "5": "1"}

    def reuse():
        """The second cohort is the first at this size: the command finds it made."""
        if (tmp_path / "phantoms").exists():
            shutil.copytree(tmp_path / "phantoms", tmp_path / "cohort")

    before = {
        "phantom": reuse,
        "rank": lambda: shutil.copytree(tmp_path / "scores", tmp_path / "other-scores"),
    }
    follow("README.md", tmp_path, fewer, before)
    (example,) = blocks("README.md", "python")
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
    made = ["scores/report.html", "ranks", "student.onnx", "repaired"]
    made += ["flarekd-bench/bench.json", "run/scores/report.html"]
    for name in made:
        assert (tmp_path / name).exists(), name


def test_every_page_is_followed_by_a_test():
    here = Path(__file__).read_text(encoding="utf-8")
    for page in (ROOT / PAGES).glob("*.md"):
        assert f'follow("{PAGES}/{page.name}"' in here, page.name
