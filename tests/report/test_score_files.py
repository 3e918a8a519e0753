"""scores.csv: what is written comes back, and what is no such table is refused."""

from __future__ import annotations

import math

import pytest

from flarekd.errors import InputError
from flarekd.labels import LABELS
from flarekd.metrics import ClassScore
from flarekd.report.score_files import protocol_of, read_scores, without_nan, write_scores


def test_scores_come_back_as_they_were_written(tmp_path):
    scores = {
        case: [ClassScore(label.id, 1 / label.id, math.nan, 2.5, 10.0, 12.5) for label in LABELS]
        for case in ("b", "a, with a comma")
    }
    write_scores(tmp_path, scores)
    again = read_scores(tmp_path / "scores.csv")
    assert list(again) == ["b", "a, with a comma"]
    assert [score.dsc for score in again["b"]] == [1 / label.id for label in LABELS]
    assert all(math.isnan(score.nsd) for score in again["b"])
    assert again["b"][0].volume_bias == 0.25


def test_scores_of_dsc_and_nsd_only_can_be_read(tmp_path):
    path = tmp_path / "scores.csv"
    rows = "".join(f"a,{label.id},{label.name},0.5,0.25\n" for label in reversed(LABELS))
    path.write_text("case,label,name,dsc,nsd\n" + rows)
    (found,) = read_scores(path).values()
    assert [score.label for score in found] == list(range(1, 15))
    assert (found[3].dsc, found[3].nsd) == (0.5, 0.25)
    assert math.isnan(found[3].hd95_mm)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,label,dsc\na,1,0.5\n", "no column 'nsd'"),
        ("case,label,dsc,nsd\n", "holds no case"),
        ("case,label,dsc,nsd\na,1,high,0.5\n", "line 2: could not convert"),
        ("case,label,dsc,nsd\na,15,0.5,0.5\n", "line 2: label 15 is not among"),
        ("case,label,dsc,nsd\na,1\n", "line 2: "),
        ("case,label,dsc,nsd\na,1,90.5,0.5\n", "line 2: a score of 90.5 is no fraction"),
        ("case,label,dsc,nsd\na,1,0.5,0.5\na,1,0.6,0.5\n", "line 3: a has a score of liver"),
        ("case,label,dsc,nsd\na,1,0.5,0.5\n", "a has no score of right_kidney"),
    ],
)
def test_what_is_no_table_of_scores_is_told_by_line(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_scores(path)


def test_the_protocol_is_that_of_the_summary_beside(tmp_path):
    assert protocol_of(tmp_path / "scores.csv") is None
    (tmp_path / "scores.json").write_text('{"protocol": "corrected"}')
    assert protocol_of(tmp_path / "scores.csv") == "corrected"


def test_nan_becomes_none_at_any_depth():
    value = {"a": math.nan, "b": {"c": (math.nan, 1)}, "d": ["x", None, 0.5]}
    assert without_nan(value) == {"a": None, "b": {"c": [None, 1]}, "d": ["x", None, 0.5]}
