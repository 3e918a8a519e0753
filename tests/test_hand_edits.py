import json
from dataclasses import replace
from pathlib import Path

import pytest

from flarekd.cohort import Case, format_cohort
from flarekd.errors import InputError
from flarekd.hand_edits import edited, hand_edits, tell_edits


def case(name, annotated=(), split="train"):
    label = Path(f"/labels/{name}.nii.gz")
    ids = frozenset(annotated)
    return Case(name, Path(f"/scans/{name}.nii.gz"), split, annotated=ids, label=label)


@pytest.fixture
def written(tmp_path):
    """Two labelled cases and an unlabelled one, as group-data writes them."""
    cases = [{"case": "a", "annotated": [1, 3]}, {"case": "b", "annotated": [14]}, {"case": "c"}]
    (tmp_path / "grouping.json").write_text(json.dumps({"cases": cases}), encoding="utf-8")

    def table(*rows):
        text = format_cohort(rows, tmp_path)
        (tmp_path / "cohort.csv").write_text(text, encoding="utf-8")
        return hand_edits(tmp_path / "cohort.csv", tmp_path / "grouping.json")

    return table


def test_what_is_as_it_was_written_is_no_edit(written):
    assert written(case("a", [1, 3]), case("b", [14]), case("c")) == {}


def test_changed_cells_are_found_and_put_into_what_is_written_anew(written):
    edits = written(case("a", [1]), case("b", [14], "val"), case("c", [2]))
    assert edits == {
        "a": {"annotated": frozenset({1})},
        "b": {"split": "val"},
        "c": {"annotated": frozenset({2})},
    }
    assert edited(case("a", [1, 3, 4]), edits).annotated == {1}
    assert edited(case("b", [14]), edits).split == "val"
    assert edited(case("d", [5]), edits) == case("d", [5])
    without = replace(case("a"), label=None)  # its label file is gone, and nobody vouches
    assert edited(without, edits) == without
    assert tell_edits(edits).startswith(
        "kept what a person changed in cohort.csv: annotated and split of 3 cases, such as a"
    )


def test_a_case_that_was_not_written_has_no_edit_but_its_split(written):
    assert written(case("new", [7])) == {}
    assert written(case("new", [7], "val")) == {"new": {"split": "val"}}


def test_without_a_table_or_without_what_was_written_nothing_is_taken_for_an_edit(tmp_path):
    assert hand_edits(tmp_path / "cohort.csv", tmp_path / "grouping.json") == {}
    text = format_cohort([case("a", [1])], tmp_path)
    (tmp_path / "cohort.csv").write_text(text, encoding="utf-8")
    for content in (None, "{", "[]", '{"cases": [1]}'):
        if content is not None:
            (tmp_path / "grouping.json").write_text(content, encoding="utf-8")
        assert hand_edits(tmp_path / "cohort.csv", tmp_path / "grouping.json") == {}


def test_a_table_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "cohort.csv").write_text("case\n", encoding="utf-8")
    with pytest.raises(InputError):
        hand_edits(tmp_path / "cohort.csv", tmp_path / "grouping.json")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"cases": [[1]]}', '{"cases": [{"case": []}]}', '{"cases": 3}', "[1]"]
)
def test_evidence_that_cannot_be_read_is_no_evidence(written, tmp_path, text):
    written(case("a", [1]))
    (tmp_path / "grouping.json").write_text(text, encoding="utf-8")
    assert hand_edits(tmp_path / "cohort.csv", tmp_path / "grouping.json") == {}
