"""Each kind of bad input has one outcome, the same by the reader and by `check`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.imaging.bad_dicom import DICOM
from tests.imaging.bad_inputs import FILES, GRIDS, LABELS, VALUES, giant, organs

from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.checks import of_pair
from flarekd.imaging.files import read_geometry, read_labels, read_stored, read_volume
from flarekd.imaging.orientation import to_stored
from flarekd.stages.check import check

pytestmark = pytest.mark.usefixtures("one_processor")
EVERY = [*FILES, *VALUES, *GRIDS, *LABELS, *DICOM]
DOCS = Path(__file__).parents[2] / "docs" / "inputs.md"


def by_name(bad):
    return bad.name


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def found(capsys):
    """The findings on stdout: (severity, text)."""
    lines = capsys.readouterr().out.splitlines()[1:]
    return [tuple(line.split(maxsplit=1)) for line in lines]


# check reads the large one below: once is enough
@pytest.mark.parametrize("bad", [bad for bad in EVERY if bad.make is not giant], ids=by_name)
def test_the_reader_of_every_verb_refuses_mends_or_reads(tmp_path, bad):
    path = bad.make(tmp_path)
    read = read_volume if bad.kind == "scan" else read_labels
    outcome = bad.reads or bad.outcome
    if bad.kind == "pair":
        findings = of_pair(
            read_geometry(tmp_path / "images" / "a_0000.nii.gz"), read_geometry(path)
        )
        assert [finding.severity for finding in findings] == ["refused"] * (outcome == "refused")
        assert all(re.search(bad.said, str(finding)) for finding in findings)
        return
    if outcome == "refused":
        with pytest.raises(InputError, match=bad.said) as error:
            read(path)
        assert error.value.what.startswith(str(path))
        assert error.value.mend
        return
    volume = read(path)
    expected = [] if outcome == "fine" else [outcome]
    assert [note.severity for note in volume.notes if re.search(bad.said, str(note))] == expected
    assert len(volume.notes) == len(expected)
    if bad.holds is not None:
        np.testing.assert_array_equal(to_stored(volume.array, volume.geometry), bad.holds())


@pytest.mark.parametrize("bad", EVERY, ids=by_name)
def test_check_says_what_it_is_and_mends_a_copy_where_that_is_safe(tmp_path, capsys, bad):
    path = bad.make(tmp_path / "in")
    before = files_of(tmp_path / "in")
    given = [tmp_path / "in" / "images", path] if bad.kind == "pair" else [path]
    given = [path.parent if bad.kind != "scan" else path for path in given]
    out = tmp_path / "out"
    if bad.outcome == "refused" and not bad.repaired:
        with pytest.raises(CasesFailedError):
            check(given, fix=out)
    else:
        check(given, fix=out)
    findings = found(capsys)
    if bad.outcome == "fine":
        assert findings == []
    assert [severity for severity, text in findings if bad.said and re.search(bad.said, text)] == (
        [] if bad.outcome == "fine" else [bad.outcome]
    )
    assert files_of(tmp_path / "in") == before
    changes = json.loads((out / "changes.json").read_text(encoding="utf-8"))
    copies = sorted(path for path in out.rglob("*") if path.is_file() and "json" not in path.suffix)
    assert len(copies) == len(changes) == bad.repaired
    if bad.repaired:
        assert copies == [out / changes[0]["output"]]
        assert changes[0]["changes"]
        # what was mended is fine afterwards
        scans = [tmp_path / "in" / "images"] if bad.kind == "pair" else []
        capsys.readouterr()
        check([*scans, copies[0].parent])
        assert not [text for severity, text in found(capsys) if severity != "doubtful"]


def test_the_table_in_the_docs_says_what_is_tested():
    text = DOCS.read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([^|]+) \| (refused|doubtful|mended|fine) \| (\w*) \|", text, re.MULTILINE
    )
    assert [(name, outcome, bool(copy)) for name, outcome, copy in rows] == [
        (bad.name, bad.outcome, bad.repaired) for bad in EVERY
    ]


def test_padding_becomes_air_and_nothing_else_changes(tmp_path):
    bad = next(one for one in VALUES if one.name == "NaN or infinity at the border only")
    path = bad.make(tmp_path)
    check([path], fix=tmp_path / "out")
    before, after = read_stored(path), read_stored(tmp_path / "out" / "a.nii.gz")
    holes = np.isnan(before.array)
    assert holes.sum() == 216
    assert (after.array[holes] == -1024).all()
    np.testing.assert_array_equal(after.array[~holes], before.array[~holes])
    assert before.geometry.mismatch(after.geometry) is None


def test_a_label_map_that_slipped_lies_on_its_scan_afterwards(tmp_path):
    bad = next(one for one in LABELS if one.name == "label map's origin off by 0.3 mm")
    path = bad.make(tmp_path / "in")
    check([tmp_path / "in"], fix=tmp_path / "out")
    scan = read_geometry(tmp_path / "in" / "images" / "a_0000.nii.gz")
    labels = read_labels(tmp_path / "out" / "in" / "labels" / "a.nii.gz")
    assert scan.mismatch(labels.geometry) is None
    np.testing.assert_array_equal(labels.array, read_labels(path).array)
    assert set(np.unique(labels.array)) == set(np.unique(organs()))
