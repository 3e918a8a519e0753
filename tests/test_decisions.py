import pytest

from flarekd.decisions import read_decisions, read_unused, tell_strangers, tell_unused
from flarekd.errors import InputError


def write(tmp_path, text):
    path = tmp_path / "review.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_spreadsheets_file_is_read_and_what_has_no_decision_is_left_out(tmp_path):
    text = "\ufeffcase;suspicion;decision\na;8.1;Keep\nb;2;drop\nc;;fix\nd;1;\n"
    path = write(tmp_path, text)
    assert read_decisions(path) == {"a": "keep", "b": "drop", "c": "fix"}
    assert read_unused(path) == {"b": "drop", "c": "fix"}
    assert read_unused(None) == {}


def test_another_decision_is_refused_and_every_such_case_named(tmp_path):
    path = write(tmp_path, "case,decision\na,gone\nb,drop\nc,later\n")
    with pytest.raises(InputError, match=r"no decision: a: 'gone'; c: 'later' · write one of keep"):
        read_decisions(path)


def test_a_table_without_decisions_is_refused(tmp_path):
    with pytest.raises(InputError, match="no column 'decision'"):
        read_decisions(write(tmp_path, "case,group\na,1\n"))


def test_a_list_without_a_decision_leaves_out_nothing_and_is_told(tmp_path):
    for text in ("case,decision,suspicion\n", "case,decision\na,\n"):
        told = []
        assert read_unused(write(tmp_path, text), told.append) == {}
        assert told == [
            f"{tmp_path / 'review.csv'} decides nothing: no case in it has a decision, "
            "so all are used"
        ]
    told = []
    read_unused(write(tmp_path, "case,decision\na,keep\n"), told.append)
    assert told == []


def test_two_decisions_on_one_case_are_refused_and_the_same_one_twice_is_not(tmp_path):
    text = "case,decision\na,keep\nb,drop\na,keep\nb,fix\na,\nc,drop\nc,keep\n"
    told = r"line 5: b: decision 'fix', above 'drop'; line 8: c: decision 'keep', above 'drop'"
    with pytest.raises(InputError, match=told):
        read_decisions(write(tmp_path, text))
    assert read_decisions(write(tmp_path, "case,decision\na,drop\na,drop\n")) == {"a": "drop"}


def test_cases_to_be_mended_are_named():
    told = tell_unused({"a": "drop", "c": "fix", "b": "fix"})
    assert told == "the review leaves out 3 cases; to be mended: b, c"


def test_decisions_on_cases_that_are_not_there_are_told_by_name():
    unused = {"1": "drop", "2": "fix", "0003": "drop"}
    told = tell_strangers(unused, {"0001", "0002", "0003"})
    assert told.startswith("the review leaves out 2 cases not to be found here: '1', '2' ·")
    assert tell_strangers({"0003": "drop"}, {"0003"}) == ""
    many = {f"case_{number}": "drop" for number in range(9)}
    assert "'case_4' and 4 more" in tell_strangers(many, {"a"})
