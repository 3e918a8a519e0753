import gzip
import os
from pathlib import Path

import pytest

from flarekd.errors import InputError, NoRoomError
from flarekd.ledger import Ledger, refuse_foreign, stamp


def test_a_case_is_done_only_with_the_same_key_and_its_output(tmp_path):
    output = tmp_path / "a.nii.gz"
    output.write_bytes(b"x")
    ledger = Ledger(tmp_path / "done.jsonl")
    assert not ledger.is_done("a", "k", output)
    ledger.add("a", "k", seconds=1.5)
    again = Ledger(tmp_path / "done.jsonl")
    assert again.is_done("a", "k", output)
    assert again.records["a"]["seconds"] == 1.5
    assert not again.is_done("a", "other", output)
    output.unlink()
    assert not again.is_done("a", "k", output)


def test_a_line_torn_by_a_kill_costs_that_case_alone(tmp_path):
    path = tmp_path / "done.jsonl"
    ledger = Ledger(path)
    ledger.add("a", "1")
    ledger.add("b", "2")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        torn = Ledger(path)
        torn.add("c", "3")
        records = Ledger(path).records
        assert records["c"]["key"] == "3"
        assert set(records) <= {"a", "b", "c"}


def test_the_last_record_of_a_case_counts(tmp_path):
    ledger = Ledger(tmp_path / "done.jsonl")
    ledger.add("a", "old")
    ledger.add("a", "new")
    assert Ledger(tmp_path / "done.jsonl").is_done("a", "new")


def test_a_stamp_changes_with_a_files_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    first = stamp(path, "settings")
    assert stamp(path, "settings") == first
    assert stamp(path, "other settings") != first
    os.utime(path, (1, 1))
    assert stamp(path, "settings") != first


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_case_that_could_not_be_noted_is_not_done(tmp_path):
    ledger = Ledger(tmp_path / "none.jsonl")
    ledger.path = Path("/dev/full")
    with pytest.raises(NoRoomError, match=r"/dev/full: cannot be written: No space left"):
        ledger.add("a", "k")
    assert not ledger.is_done("a", "k")


def test_a_folder_is_as_old_as_its_files(tmp_path):
    (tmp_path / "series").mkdir()
    files = [tmp_path / "series" / name for name in ("IM1", "IM2")]
    for file in files:
        file.write_bytes(b"abc")
    (tmp_path / "series" / "nowhere").symlink_to("gone")  # no file, so nothing to read
    before = stamp(tmp_path / "series")
    folder = (tmp_path / "series").stat()
    files[1].write_bytes(b"abcd")  # in place: the folder's own time tells nothing
    assert (tmp_path / "series").stat().st_mtime_ns == folder.st_mtime_ns
    assert stamp(tmp_path / "series") != before


def test_nothing_is_written_through_a_link_nor_read_as_a_traceback(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_bytes(b"\xff\xfe precious")
    (tmp_path / "done.jsonl").symlink_to(target)
    ledger = Ledger(tmp_path / "done.jsonl")
    with pytest.raises(OSError, match="symbolic link"):
        ledger.add("a", "key")
    assert target.read_bytes() == b"\xff\xfe precious"


def test_a_line_of_endless_brackets_costs_that_line_alone(tmp_path):
    path = tmp_path / "done.jsonl"
    path.write_text("[" * 100_000 + '\n{"case": "a", "key": "k"}\n', encoding="utf-8")
    assert set(Ledger(path).records) == {"a"}


def test_what_no_run_recorded_is_refused_and_what_a_kill_left_is_not(tmp_path):
    path = tmp_path / "done.jsonl"
    drawn = {name: tmp_path / f"{name}.nii.gz" for name in "abcdef"}
    for file in drawn.values():
        file.write_bytes(b"drawn by hand")
    shared = [tmp_path / "statistics.csv"]
    said = r"recorded 5 files .*: .*b.nii.gz, .*c.nii.gz, .*d.nii.gz and 2 more · write to another"
    Ledger(path).begin("a")  # killed before it was done
    with pytest.raises(InputError, match=said):
        refuse_foreign(path, {case: [file] for case, file in drawn.items()}, shared)
    refuse_foreign(path, {"a": [drawn["a"]], "g": [tmp_path / "g.nii.gz"]}, shared)


def test_a_table_of_all_cases_belongs_to_whoever_has_a_ledger_there(tmp_path):
    path, table = tmp_path / "done.jsonl", tmp_path / "statistics.csv"
    table.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"1 file .*statistics\.csv"):
        refuse_foreign(path, {}, [table])
    Ledger(path).claim()
    refuse_foreign(path, {}, [table])


def test_a_case_that_is_begun_anew_is_not_done(tmp_path):
    ledger = Ledger(tmp_path / "done.jsonl")
    ledger.add("a", "k")
    ledger.begin("a")
    assert not Ledger(tmp_path / "done.jsonl").is_done("a", "k")


def packed(path, content):
    path.write_bytes(gzip.compress(content, mtime=0))
    return path


def test_what_a_person_changed_since_it_was_written_is_refused_and_what_was_copied_is_not(tmp_path):
    ledger = Ledger(tmp_path / "done.jsonl")
    files = {case: packed(tmp_path / f"{case}.nii.gz", b"labels") for case in "abcd"}
    for case, path in files.items():
        ledger.add(case, "k", path, tmp_path / "probability" / path.name, seconds=1)
    known = Ledger(tmp_path / "done.jsonl")
    assert known.facts("a") == {"case": "a", "seconds": 1}
    everything = {case: [path, tmp_path / "none.nii.gz"] for case, path in files.items()}
    known.refuse_changed(everything)
    os.utime(files["b"], (1, 1))  # copied, or touched
    known.refuse_changed(everything)
    packed(files["c"], b"labelz")  # as many bytes
    files["d"].unlink()
    said = r"^1 file would be replaced that somebody changed since .*c\.nii\.gz · move them away"
    with pytest.raises(InputError, match=said):
        known.refuse_changed(everything)
    known.refuse_changed({case: everything[case] for case in ("a", "b", "d")})


@pytest.mark.parametrize("name", ["a.nii", "a.mha"])
def test_a_file_that_is_not_packed_is_known_by_its_time(tmp_path, name):
    path, ledger = tmp_path / name, Ledger(tmp_path / "done.jsonl")
    path.write_bytes(bytes(20))
    ledger.add("a", "", path)
    ledger.refuse_changed({"a": [path]})
    path.write_bytes(bytes([1, *bytes(19)]))
    os.utime(path, (5, 5))
    with pytest.raises(InputError, match="somebody changed"):
        ledger.refuse_changed({"a": [path]})


def test_what_comes_to_lie_where_a_case_failed_is_a_persons(tmp_path):
    path, ledger = tmp_path / "a.nii.gz", Ledger(tmp_path / "done.jsonl")
    ledger.begin("a")
    ledger.give_up("a", path)
    ledger.refuse_changed({"a": [path]})
    packed(path, b"drawn by hand")
    with pytest.raises(InputError, match=r"a\.nii\.gz"):
        Ledger(ledger.path).refuse_changed({"a": [path]})


@pytest.mark.parametrize("written", ["", ', "written": 5', ', "written": {"b": 1}'])
def test_a_ledger_that_does_not_say_what_was_written_goes_on_working(tmp_path, written):
    path, ledger = packed(tmp_path / "a.nii.gz", b"x"), tmp_path / "done.jsonl"
    ledger.write_text(f'{{"case": "a", "key": "k"{written}}}\n', encoding="utf-8")
    known = Ledger(ledger)
    assert known.is_done("a", "k", path)
    if "{" not in written:
        known.refuse_changed({"a": [path]})


def test_what_a_run_that_was_killed_left_is_replaced(tmp_path):
    path, ledger = tmp_path / "a.nii.gz", Ledger(tmp_path / "done.jsonl")
    ledger.add("a", "k", packed(path, b"first"))
    ledger.begin("a")
    packed(path, b"second")
    Ledger(ledger.path).refuse_changed({"a": [path]})
