"""Commands of pages for reference that need no more than the demo has run as they stand there."""

import json
import shutil

import pytest
from tests.end_to_end.command import flarekd
from tests.end_to_end.test_pages import follow
from tests.nnunet.networks import UNetV1
from tests.stages.test_import_nnunet import (
    CHANNELS,
    KERNELS,
    STRIDES,
    save_v1,
    save_v2,
    shaken,
    student_v2,
)

from flarekd.imaging.files import list_scans
from flarekd.modelfile import read_card

pytestmark = pytest.mark.timeout(900)  # one test is a whole page


@pytest.fixture
def road(demo, tmp_path):
    """What lies where the pages expect it: cohort, models, labels, FLARE's folders."""
    out, _ = demo
    for name in ("cohort", "phantoms"):
        (tmp_path / name).symlink_to(out / "cohort")
    for name in ("cohort.csv", "grouping.json"):
        shutil.copy(out / name, tmp_path)
    for name in ("tumor", "fused", "student"):
        shutil.copytree(out / name, tmp_path / name)
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).symlink_to(out / "cohort" / name)
    return tmp_path


def test_the_page_of_evaluate(demo, tmp_path):
    out, _ = demo
    case, path = next(iter(list_scans(out / "predictions").items()))
    for folder, source in (("ours-out", path.parent), ("labelsVal", out / "cohort" / "labelsVal")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "FLARE23_0001.nii.gz").symlink_to(source / f"{case}.nii.gz")
    other = {"rank": lambda: shutil.copytree(tmp_path / "ours", tmp_path / "theirs")}
    follow("docs/evaluate.md", tmp_path, {"docker": "true"}, other)
    ranks = json.loads((tmp_path / "ranks" / "ranks.json").read_text(encoding="utf-8"))
    assert ranks["cases_by_metric"]["seconds"] == 1
    assert {one["place"] for one in ranks["models"].values()} == {1}


def test_the_page_of_review(road):
    case = next(iter(list_scans(road / "fused")))
    (road / "review.csv").write_text(f"case,decision\n{case},drop\n", encoding="utf-8")
    follow("docs/review.md", road)
    assert (road / "review" / "review.html").exists()
    assert case not in list_scans(road / "fused")


@pytest.mark.slow
def test_the_pages_of_pseudo_labels_and_of_fusion(demo, road):
    out, _ = demo
    shutil.copytree(out / "teacher", road / "teacher")
    shutil.copy(out / "teacher" / "model.safetensors", road / "other.safetensors")
    for name in ("round1", "round2"):
        shutil.copytree(out / "tumor", road / name)
    (road / "organs").symlink_to(out / "cohort" / "organPseudo")
    before = {"pseudo-organs": (road / "organs").unlink}
    follow("docs/pseudo-labels.md", road, before=before)
    cohort = ("--cohort", "cohort.csv", "--quality")
    for verb, model, folder in (
        ("pseudo-organs", "organ-teacher", "organs"),
        ("pseudo-tumor", "teacher", "tumor"),
    ):
        named = ("--model", f"{model}/model.safetensors", "--out", folder)
        flarekd(verb, *cohort, *named, folder=road)
    case = next(iter(list_scans(road / "fused")))
    (road / "review.csv").write_text(f"case,decision\n{case},drop\n", encoding="utf-8")
    follow("docs/fusion.md", road)
    assert case not in list_scans(road / "fused")


def test_the_page_of_bad_input(road):
    follow("docs/inputs.md", road)


def test_the_page_of_nnunets_weights(tmp_path):
    save_v2(tmp_path, student_v2())
    save_v1(tmp_path, shaken(UNetV1(4, CHANNELS, STRIDES, KERNELS)))
    follow("docs/import-nnunet.md", tmp_path)
    assert read_card(tmp_path / "model.safetensors").labels[1:] == (
        "liver",
        "right_kidney",
        "spleen",
    )


def test_the_page_of_the_phantom(tmp_path):
    follow("docs/phantom.md", tmp_path, {"full": "quick"})


@pytest.mark.slow
def test_the_page_of_bench(road):
    scan = next(iter(list_scans(road / "cohort" / "imagesVal").values()))
    (road / "scan.nii.gz").symlink_to(scan)
    (road / "ct_abdomen_slab_3mm").mkdir()
    (road / "ct_abdomen_slab_3mm" / "image.nii.gz").symlink_to(scan)
    follow("docs/bench.md", road, {"5": "1"})
    assert (road / "flarekd-bench" / "bench.json").exists()
