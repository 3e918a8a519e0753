"""What a fault must leave behind: whole files, nothing else, and the same result once more."""

import json

from safetensors.torch import load_file

from flarekd.cohort import read_cohort
from flarekd.imaging.files import read_labels
from flarekd.lock import NAME

READERS = {
    ".nii.gz": read_labels,
    ".safetensors": load_file,
    "cohort.csv": read_cohort,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
}
"""How a visible file of a kind is read through."""

TIMED = ("report.json", "done.jsonl", "log.jsonl", "report.html", ".png", ".facts.jsonl")
"""Files that hold the time it took, or a picture of it."""


def verbs(demo):
    """By name: the arguments of each verb, but for ``--out``, on the demo's files."""
    cohort, csv = demo / "cohort", demo / "cohort.csv"
    return {
        "group-data": ["--images", cohort / "imagesTr", "--labels", cohort / "labelsTr"],
        "pseudo-tumor": ["--cohort", csv, "--model", demo / "teacher" / "model.safetensors"],
        "fuse": ["--cohort", csv, "--tumor", demo / "tumor", "--provenance"],
        "infer": [cohort / "imagesTr", "--model", demo / "student" / "model.safetensors"],
        "evaluate": ["--predictions", demo / "predictions", "--references", cohort / "labelsVal"],
    }


def target(name, folder):
    """What ``--out`` of a verb is that writes into `folder`."""
    return folder / "cohort.csv" if name == "group-data" else folder / "out"


def results(folder):
    """The visible files below a folder, by their names in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_litter(path)
    }


def is_litter(path):
    return path.name.startswith(".tmp-") or path.name == NAME


def litter(folder):
    """Files that no run may leave behind that ends by itself."""
    return [path for path in folder.rglob("*") if is_litter(path)]


def read_through(folder):
    """Read every visible file of a known kind; how many there were."""
    seen = 0
    for path in results(folder):
        for ending, read in READERS.items():
            if path.endswith(ending):
                read(folder / path)
                seen += 1
    return seen


def assert_same(found, wanted):
    """That two folders' results are the same bytes, but for times and pictures of them."""
    assert found.keys() == wanted.keys()
    for path, content in wanted.items():
        if not path.endswith(TIMED):
            assert found[path] == content, path
