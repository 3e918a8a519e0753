from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekd.imaging.atomic import replacing, update_text, write_json, write_text


def test_the_temporary_name_keeps_the_full_suffix_and_is_a_dot_file_beside_the_target(tmp_path):
    target = tmp_path / "new" / "case.nii.gz"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".tmp-")
        assert temporary.name.endswith("-case.nii.gz")
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def write_half(target, error):
    with replacing(target) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "case.txt"
    target.write_text("old")
    with pytest.raises(error):
        write_half(target, error)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_body_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    target = tmp_path / "case.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(target):
        pass
    assert target.read_text() == "old"


@settings(deadline=None)  # a busy machine is no failure
@given(old=st.binary(max_size=50), new=st.binary(max_size=50), fails=st.booleans())
def test_a_file_is_always_the_old_or_the_new_one(old, new, fails):
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "file.bin"
        target.write_bytes(old)
        try:
            with replacing(target) as temporary:
                temporary.write_bytes(new)
                if fails:
                    raise RuntimeError
        except RuntimeError:
            assert fails
        assert target.read_bytes() == (old if fails else new)
        assert [path.name for path in Path(folder).iterdir()] == ["file.bin"]


def test_kill_9_between_write_and_rename_leaves_the_old_file(tmp_path):
    target = tmp_path / "case.txt"
    target.write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from flarekd.imaging.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    source = str(Path(sys.modules["flarekd"].__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r})\n{code}", str(target)],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    left = [path.name for path in tmp_path.iterdir() if path != target]
    assert len(left) == 1
    assert left[0].startswith(".tmp-")


def test_text_and_json_are_written_as_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "512×512")
    assert (tmp_path / "a.txt").read_bytes() == "512×512".encode()
    write_json(tmp_path / "a.json", {"θ": [1, 0.5]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"θ": [1, 0.5]}


def test_json_with_nan_is_refused_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_a_file_that_holds_the_text_already_is_left_alone(tmp_path):
    path = tmp_path / "a.csv"
    update_text(path, "µ,1\n")
    before = path.stat()
    update_text(path, "µ,1\n")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    update_text(path, "µ,2\n")
    assert path.read_text(encoding="utf-8") == "µ,2\n"


@pytest.mark.parametrize("leads_to", ["victim.txt", "nothing.txt"])
def test_a_link_at_the_temporary_name_is_not_written_through(tmp_path, leads_to):
    victim = tmp_path / "victim.txt"
    victim.write_text("theirs", encoding="utf-8")
    planted = tmp_path / f".tmp-{os.getpid()}-case.txt"
    planted.symlink_to(tmp_path / leads_to)
    write_text(tmp_path / "case.txt", "ours")
    assert (tmp_path / "case.txt").read_text(encoding="utf-8") == "ours"
    assert not (tmp_path / "case.txt").is_symlink()
    assert victim.read_text(encoding="utf-8") == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.txt", "victim.txt"]


def test_a_folder_at_the_temporary_name_is_an_error_and_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "case.txt", "old")
    (tmp_path / f".tmp-{os.getpid()}-case.txt").mkdir()
    with pytest.raises(OSError, match=r"\.tmp-"):
        write_text(tmp_path / "case.txt", "new")
    assert (tmp_path / "case.txt").read_text(encoding="utf-8") == "old"


def test_an_empty_file_may_be_written(tmp_path):
    write_text(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").read_bytes() == b""
