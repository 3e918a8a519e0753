"""`pseudo_organs` on files: whom it labels, with what, and that fusion takes what it writes."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch

from flarekd.cohort import Case, format_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import read_labels, read_volume, write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import NAMES
from flarekd.modelfile import ModelCard, save_model
from flarekd.segmenting import Options
from flarekd.stages.fuse import fuse_labels
from flarekd.stages.pseudo_organs import pseudo_organs
from flarekd.student.api import segment
from flarekd.student.network import StudentUNet

COS, SIN = np.cos(0.28), np.sin(0.28)
GEOMETRY = Geometry(
    (28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
)
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
ALL = set(range(1, 14))

pytestmark = pytest.mark.usefixtures("one_processor")


FINGERPRINT = {
    "spacing_mm": {"p5": (2.0, 1.1, 0.7), "median": (3.0, 1.25, 0.75), "p95": (5.0, 1.4, 0.8)},
    "extent_mm": {"p5": (30, 25, 18), "median": (36, 30, 21), "p95": (45, 35, 25)},
    "intensity": {"mean": 60.0, "sd": 20.0},
}


def model(path, names=NAMES[:14], seed=0, fingerprint=FINGERPRINT, spacing=(4.0, 1.5, 1.5)):
    """A network with random weights: its labels are nonsense, and depend on every voxel."""
    torch.manual_seed(seed)
    arguments = {"classes": len(names), "channels": (4, 4, 8, 8), "strides": STRIDES}
    card = ModelCard(
        role="student",
        network=arguments,
        labels=names,
        label_ids=tuple(range(len(names))),
        spacing=spacing,
        patch=(8, 16, 16),
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 0.5, "windows": "full"},
        fingerprint=fingerprint,
    )
    save_model(path, StudentUNet(**arguments).state_dict(), card)
    return path


class Cohort:
    """A cohort.csv in the making and the network's work on it."""

    def __init__(self, path):
        self.path, self.cases, self.out = path, [], path / "organs"
        self.model = model(path / "organs.safetensors")

    def add(self, name, ids=None, split="train"):
        noise = np.random.default_rng(len(self.cases)).normal(50, 100, GEOMETRY.shape_zyx)
        image = self.path / "images" / f"{name}_0000.nii.gz"
        write_volume(image, Volume(noise.astype(np.int16), GEOMETRY))
        label = None
        if ids is not None:
            label = self.path / "labels" / f"{name}.nii.gz"
            write_labels(label, LabelMap(np.zeros(GEOMETRY.shape_zyx, np.uint8), GEOMETRY))
        vouched = frozenset(ids or ())
        self.cases.append(Case(name, image, split, annotated=vouched, label=label))

    @property
    def table(self):
        path = self.path / "cohort.csv"
        path.write_text(format_cohort(self.cases, self.path))
        return path

    def run(self, scheduler=None, **more):
        how = Options("cpu", "torch", scheduler=scheduler)
        pseudo_organs(self.table, self.model, self.out, how, **more)

    def figures(self):
        text = (self.out / "quality.csv").read_text(encoding="utf-8")
        return {row["case"]: row for row in csv.DictReader(io.StringIO(text))}

    def report(self):
        return json.loads((self.out / "report.json").read_text(encoding="utf-8"))

    def written(self):
        return {path.name[:-7]: path.stat().st_mtime_ns for path in self.out.glob("*.nii.gz")}


@pytest.fixture
def cohort(tmp_path):
    return Cohort(tmp_path)


def test_training_cases_without_all_organs_are_labelled(cohort):
    cohort.add("tumor", {14})
    cohort.add("some", {1, 2, 3, 4, 13, 14})
    cohort.add("organs", ALL)
    cohort.add("everything", ALL | {14})
    cohort.add("plain")
    cohort.add("held", split="val")
    cohort.run()
    assert set(cohort.written()) == {"tumor", "some", "plain"}
    assert [record["case"] for record in cohort.report()["cases"]] == ["tumor", "some", "plain"]
    assert set(cohort.report()["cases"][0]["volume_ml"]) == set(NAMES[1:14])


def test_the_pseudo_label_is_what_the_network_says_on_the_scans_own_grid(cohort):
    cohort.add("plain")
    cohort.run()
    image = cohort.cases[0].image
    expected = segment(image, cohort.model, device="cpu", runtime="torch")
    found = read_labels(cohort.out / "plain.nii.gz")
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.array.dtype == np.uint8
    assert len(np.unique(found.array)) > 3
    assert found.array.max() <= 13
    assert found.geometry.mismatch(read_volume(image).geometry) is None


def test_a_second_run_labels_what_is_missing_and_another_model_all(cohort):
    cohort.add("a")
    cohort.add("b")
    cohort.run()
    before = cohort.written()
    (cohort.out / "b.nii.gz").unlink()
    cohort.run()
    after = cohort.written()
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]
    cohort.model = model(cohort.path / "other.safetensors", seed=1)
    cohort.run()
    assert all(cohort.written()[name] != after[name] for name in after)


def test_a_case_that_fails_is_named_and_the_others_are_written(cohort):
    for name in ("a", "torn", "gone"):
        cohort.add(name)
    torn, gone = (case.image for case in cohort.cases[1:])
    torn.write_bytes(torn.read_bytes()[:-300])
    gone.unlink()
    with pytest.raises(CasesFailedError, match="2 of 3 scans failed: gone, torn") as caught:
        cohort.run()
    assert caught.value.exit_code == 4
    assert set(cohort.written()) == {"a"}
    assert set(cohort.report()["failed"]) == {"torn", "gone"}
    assert cohort.report()["failed"]["gone"].startswith(
        f"{gone}: No such file or directory · check the path"
    )


@pytest.mark.parametrize(
    ("names", "told"), [(NAMES, "labels tumor, organ"), (("background", "spleen"), "labels spleen")]
)
def test_a_model_of_anything_but_our_organs_is_refused_before_anything_is_written(
    cohort, names, told
):
    """A student labels tumours too, and spleen as 1 would be taken for liver."""
    cohort.add("a")
    cohort.model = model(cohort.path / "other.safetensors", names)
    with pytest.raises(InputError, match=rf"{told}.* · train one with .*--task organs"):
        cohort.run()
    assert not cohort.out.exists()


def test_a_pseudo_label_never_replaces_a_file_of_the_cohort(cohort):
    cohort.add("a", {1})
    cohort.out = cohort.path / "labels"
    before = (cohort.out / "a.nii.gz").read_bytes()
    with pytest.raises(InputError, match=r"would replace .*a\.nii\.gz.* · choose another --out"):
        cohort.run()
    assert (cohort.out / "a.nii.gz").read_bytes() == before


def test_fusion_fills_the_organs_that_a_person_did_not_annotate(cohort):
    cohort.add("some", {1, 14})
    cohort.run()
    organs = read_labels(cohort.out / "some.nii.gz").array
    fuse_labels(
        cohort.table, cohort.path / "tumor", cohort.path / "fused", "paper", organs=cohort.out
    )
    fused = read_labels(cohort.path / "fused" / "some.nii.gz").array
    np.testing.assert_array_equal(fused, np.where(organs == 1, 0, organs))
    assert fused.any()


def test_figures_say_how_far_a_case_is_from_those_of_the_training(cohort):
    cohort.add("plain")
    cohort.add("far", {1})
    far = Geometry((28, 24, 12), (0.75, 1.25, 12.0))
    write_volume(cohort.cases[1].image, Volume(np.zeros(far.shape_zyx, np.int16), far))
    cohort.run(quality=True)
    rows = cohort.figures()
    assert list(rows) == ["plain", "far"]
    labels = read_labels(cohort.out / "plain.nii.gz").array
    scan = read_volume(cohort.cases[0].image).array
    mean = scan[labels > 0].mean()
    assert float(rows["plain"]["mean_hu"]) == pytest.approx(mean, abs=1e-3)
    assert int(rows["plain"]["organs"]) == len(np.unique(labels)) - 1
    assert float(rows["plain"]["intensity_distance"]) == pytest.approx(
        abs(mean - 60) / 20, abs=1e-3
    )
    expected = np.log(12 / 3) / (np.log(5 / 2) / 3.29)
    assert float(rows["far"]["spacing_distance"]) == pytest.approx(expected, abs=1e-3)
    assert float(rows["far"]["distance"]) >= float(rows["far"]["spacing_distance"])


def test_figures_are_measured_once_and_never_outlive_their_labels(cohort):
    cohort.add("a")
    cohort.add("b")
    cohort.run(quality=True)
    before = (cohort.out / "quality.jsonl").read_bytes(), cohort.figures(), cohort.written()
    cohort.run(quality=True)
    assert before == (
        (cohort.out / "quality.jsonl").read_bytes(),
        cohort.figures(),
        cohort.written(),
    )
    cohort.model = model(cohort.path / "other.safetensors", seed=1)
    cohort.run()
    assert not (cohort.out / "quality.csv").exists()
    cohort.run(quality=True)
    assert cohort.figures()["a"]["mean_hu"] != before[1]["a"]["mean_hu"]


def test_a_case_that_fails_has_no_figures_and_the_others_have(cohort):
    cohort.add("a")
    cohort.add("gone")
    cohort.cases[1].image.unlink()
    with pytest.raises(CasesFailedError, match="1 of 2 scans failed: gone"):
        cohort.run(quality=True)
    assert list(cohort.figures()) == ["a"]


def test_a_model_that_does_not_know_its_cohort_gives_no_distances(cohort, capsys):
    cohort.model = model(cohort.path / "unknown.safetensors", fingerprint={})
    cohort.add("a")
    cohort.run(quality=True)
    assert cohort.figures()["a"]["distance"] == ""
    assert "does not say what it was trained on" in capsys.readouterr().err


def test_a_pseudo_label_that_a_person_corrected_is_kept_and_never_replaced(cohort):
    cohort.add("a")
    cohort.add("b")
    cohort.run()
    drawn = LabelMap(np.full(GEOMETRY.shape_zyx, 5, np.uint8), GEOMETRY)
    write_labels(cohort.out / "b.nii.gz", drawn)
    before = cohort.written()
    cohort.run()
    assert cohort.written() == before
    cohort.model = model(cohort.path / "other.safetensors", seed=1)
    with pytest.raises(InputError, match=r"1 file would be replaced .*b\.nii\.gz · move them"):
        cohort.run()
    assert cohort.written() == before
    (cohort.out / "b.nii.gz").rename(cohort.path / "mine.nii.gz")
    cohort.run()
    assert cohort.written().keys() == before.keys()
    assert cohort.written()["a"] != before["a"]
    assert "written" not in cohort.report()["cases"][0]


def test_figures_stay_where_no_label_is_made_anew_and_it_is_told_where_they_go(cohort, capsys):
    cohort.add("a")
    cohort.run(quality=True)
    before = cohort.figures()
    cohort.run()
    assert cohort.figures() == before
    cohort.add("b")
    capsys.readouterr()
    cohort.run()
    assert not (cohort.out / "quality.csv").exists()
    told = " ".join(capsys.readouterr().err.split())
    assert "quality.csv: removed, labels are made anew that it is of · --quality writes it" in told


def test_a_persons_table_of_figures_is_never_replaced(cohort):
    cohort.add("a")
    cohort.out.mkdir()
    (cohort.out / "quality.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"recorded 1 file .*quality\.csv"):
        cohort.run(quality=True)
    assert (cohort.out / "quality.csv").read_text(encoding="utf-8") == "mine"


def test_a_scan_that_has_gone_since_it_was_labelled_costs_its_figures_alone(cohort):
    cohort.add("a")
    cohort.add("gone")
    cohort.run(quality=True)
    cohort.cases[1].image.unlink()
    with pytest.raises(CasesFailedError, match=r"gone: \S*gone_0000\.nii\.gz: no such file"):
        cohort.run(quality=True)
    assert list(cohort.figures()) == ["a"]
