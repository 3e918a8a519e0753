from flarekd.training.log import read_log


def test_lines_that_are_no_records_are_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"epoch": 1}\n[1]\n3\n{"epoch"\n' + b"[" * 100_000 + b'\n\xff\n{"dsc": NaN}')
    first, last = read_log(path)
    assert first == {"epoch": 1}
    assert last["dsc"] != last["dsc"]


def test_without_a_log_there_are_no_records(tmp_path):
    assert read_log(tmp_path / "log.jsonl") == []
