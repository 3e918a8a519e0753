import subprocess
import sys

import pytest
from tests.end_to_end.command import flarekd

VERBS = ["demo", "run", "phantom", "check", "group-data", "train-teacher", "pseudo-tumor", "fuse"]
VERBS += ["review", "pseudo-organs", "train-student", "infer", "evaluate", "bench"]


def new_python(code):
    """What a process that begins anew says of this code."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    done = flarekd(verb, "--help")
    assert "Usage:" in done.stdout
    assert done.stderr == ""


def test_help_lists_the_verbs_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom flarekd.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'SimpleITK', 'matplotlib', 'scipy', 'numpy', 'yaml'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
    )
    done = new_python(code)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert verb in done.stdout


def test_ctrl_c_while_the_command_line_is_loaded_leaves_no_traceback():
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from flarekd.__main__ import main\n"
        "main()\n"
    )
    done = new_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(("words", "status"), [(["--version"], 0), (["fly"], 2)])
def test_what_is_done_ends_at_once_without_taking_python_apart(words, status):
    code = (
        "import atexit, sys\n"
        "class Large:\n"
        "    def __del__(self):\n"
        "        print('taken apart')\n"
        "sys.large = Large()\n"
        "atexit.register(print, 'tidied up')\n"
        f"sys.argv = ['flarekd', *{words!r}]\n"
        "from flarekd.__main__ import main\n"
        "main()\n"
    )
    done = new_python(code)
    assert done.returncode == status
    assert done.stdout == ("0.1.0\n" if status == 0 else "") + "tidied up\n"
    assert "No such command" in done.stderr or status == 0


def test_the_version_is_told():
    assert flarekd("--version").stdout.strip() == "0.1.0"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["infer"], 2, "Missing argument"),
        (["infer", "x.nii.gz", "--model", "m", "--out", "o", "--colour"], 2, "No such option"),
        (["fly"], 2, "No such command"),
        (["infer", "nowhere.nii.gz", "--model", "m", "--out", "o"], 3, "no such file or folder"),
        (["fuse", "--cohort", "none.csv", "--tumor", "t", "--out", "o"], 3, "cannot read cohort"),
        (["group-data", "--images", "nowhere", "--out", "c.csv"], 3, "nowhere"),
        (["demo", "--set", "student.epoch=1"], 3, "did you mean 'epochs'"),
        (["run", "--config", "none.yaml"], 3, "cannot read configuration"),
        (["evaluate", "--predictions", "a", "--references", "b", "--out", "c"], 3, "error:"),
    ],
)
def test_a_users_mistake_is_told_without_a_traceback(
    tmp_path, monkeypatch, arguments, status, message
):
    monkeypatch.chdir(tmp_path)
    done = flarekd(*arguments, check=False)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_cuda_asked_for_where_there_is_none_is_an_error(demo, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    out, _ = demo
    scans = out / "cohort" / "imagesVal"
    done = flarekd(
        *[
            "infer",
            scans,
            "--model",
            out / "student" / "model.safetensors",
            "--out",
            tmp_path / "o",
        ],
        *["--device", "cuda"],
        check=False,
    )
    assert done.returncode == 2
    assert "device 'cuda' asked for, 0 CUDA devices found" in done.stderr


def test_a_bad_scan_is_named_and_the_others_are_segmented(demo, tmp_path):
    out, _ = demo
    good = next((out / "cohort" / "imagesVal").glob("*.nii.gz"))
    (tmp_path / "bad.nii.gz").write_bytes(good.read_bytes()[:2000])
    done = flarekd(
        *["infer", good, tmp_path / "bad.nii.gz", "--out", tmp_path / "o"],
        *["--model", out / "student" / "model.safetensors"],
        check=False,
    )
    assert done.returncode == 4
    assert "bad" in done.stderr
    assert len(list((tmp_path / "o").glob("*.nii.gz"))) == 1


def test_a_teacher_is_not_taken_for_a_student(demo, tmp_path):
    out, _ = demo
    done = flarekd(
        *["infer", out / "cohort" / "imagesVal", "--out", tmp_path / "o"],
        *["--model", out / "teacher" / "model.safetensors"],
        check=False,
    )
    assert done.returncode == 3
    assert "is a teacher, a student is needed" in done.stderr
