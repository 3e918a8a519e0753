"""`fusion_quality` on numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flarekd.cohort import Case, format_cohort
from flarekd.imaging.files import write_labels
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.stages.fusion_quality import fusion_quality

COS, SIN = np.cos(0.28), np.sin(0.28)
GEOMETRY = Geometry(
    (28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
)


def tumor(path, start, stop):
    """A label map with liver all along a row and tumour from `start` to `stop` of it."""
    array = np.zeros(GEOMETRY.shape_zyx, np.uint8)
    array[4, 10] = 1
    array[4, 10, start:stop] = 14
    write_labels(path, LabelMap(array, GEOMETRY))
    return path


@pytest.fixture
def cohort(tmp_path):
    """A tumour case, two whose organs hide tumours, one unlabelled, one for validation."""
    given = {"tumor_1": {14}, "masked_1": {1, 2, 3, 4}, "masked_2": {1, 2, 3, 4, 13}}
    cases = [
        Case(
            name, tmp_path / "x.nii.gz", annotated=frozenset(ids), label=tmp_path / f"{name}.nii.gz"
        )
        for name, ids in given.items()
    ]
    cases.append(Case("plain_1", tmp_path / "x.nii.gz"))
    cases.append(Case("held_1", tmp_path / "x.nii.gz", split="val"))
    for case in cases:
        tumor(tmp_path / "truth" / f"{case.case}.nii.gz", 0, 4)
    tumor(tmp_path / "truth" / "masked_2.nii.gz", 0, 0)
    (tmp_path / "cohort.csv").write_text(format_cohort(cases, tmp_path))
    return tmp_path


def fused(folder, name, **spans):
    for case, span in spans.items():
        tumor(folder / name / f"{case}.nii.gz", *span)
    return folder / name


def test_means_are_those_of_paper_and_pencil(cohort, capsys):
    folders = {
        # DSC 1; 2·2/(4+4) = 0.5; nothing in both = 1; 2·4/(4+8) = 2/3
        "paper": fused(
            cohort, "paper", tumor_1=(0, 4), masked_1=(2, 6), masked_2=(0, 0), plain_1=(0, 8)
        ),
        # DSC 1; nothing found = 0; found where there is none = 0; 2·3/(4+3) = 6/7
        "simple": fused(
            cohort, "simple", tumor_1=(0, 4), masked_1=(0, 0), masked_2=(5, 6), plain_1=(1, 4)
        ),
    }
    out = cohort / "fusion.json"
    scores = fusion_quality(cohort / "cohort.csv", folders, cohort / "truth", out)
    assert scores["paper"] == pytest.approx(
        {
            "all": (1 + 0.5 + 1 + 2 / 3) / 4,
            "with_tumor": (1 + 0.5 + 2 / 3) / 3,
            "masked": 0.75,
            "unlabelled": 2 / 3,
        }
    )
    assert scores["simple"] == pytest.approx(
        {
            "all": (1 + 0 + 0 + 6 / 7) / 4,
            "with_tumor": (1 + 0 + 6 / 7) / 3,
            "masked": 0.0,
            "unlabelled": 6 / 7,
        }
    )
    assert json.loads(out.read_text(encoding="utf-8")) == scores
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert ["paper", "79.17", "72.22", "75.00", "66.67"] in cells
    assert ["simple", "46.43", "61.90", "0.00", "85.71"] in cells


def test_organs_do_not_count(cohort):
    folder = fused(cohort, "paper", tumor_1=(0, 4))
    path = tumor(folder / "tumor_1.nii.gz", 0, 4)
    array = np.zeros(GEOMETRY.shape_zyx, np.uint8)
    array[4, 10, 0:4] = 14
    array[8:, :, :] = 3
    write_labels(path, LabelMap(array, GEOMETRY))
    out = cohort / "fusion.json"
    scores = fusion_quality(cohort / "cohort.csv", {"paper": folder}, cohort / "truth", out)
    assert scores["paper"]["all"] == 1.0
