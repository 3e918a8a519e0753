"""Whether the tests notice a mistake in the arithmetic: mutmut on a copy of the tree.

    pip install mutmut==3.8.1
    python -m benchmarks.mutants --out /tmp/mutants [--sample 60 --seed 0] [--modules fusion ...]

mutmut passes over functions with a decorator. In the copy a decorator becomes an assignment after
the function, which does the same. Where a module has more mutants than `--sample`, that many of
them are drawn at random.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

MODULES: dict[str, tuple[str, ...]] = {
    "fusion": ("tests/test_fusion.py",),
    "grouping": ("tests/test_grouping.py",),
    "metrics/lesions": ("tests/metrics/test_lesions.py",),
    "metrics/overlap": ("tests/metrics/test_surface.py",),
    "metrics/protocols": ("tests/metrics/test_protocols.py",),
    "metrics/statistics": ("tests/metrics/test_statistics.py",),
    "metrics/summary": ("tests/report/test_score_page.py", "tests/stages/test_evaluate.py"),
    "metrics/surface": ("tests/metrics/test_surface.py",),
    "metrics/surfels": (
        "tests/metrics/test_surface.py::test_every_neighbour_code_has_the_published_area",
    ),
    "student/paper_windows": ("tests/student/test_paper_windows.py",),
    "student/visits": ("tests/student/test_windows.py", "tests/inference/test_head.py"),
    "student/windows": ("tests/student/test_windows.py",),
    "teacher/windows": ("tests/teacher/test_windows.py",),
    "inference/accumulate": (
        "tests/inference/test_accumulate.py",
        "tests/inference/test_windows.py",
    ),
    "inference/head": ("tests/inference/test_head.py",),
    "inference/slabs": ("tests/inference/test_slabs.py",),
    "inference/windows": ("tests/inference/test_windows.py",),
}
"""Modules of flarekd that are mutated, and the tests that are to notice."""

COPIED = ("src", "tests", "configs", "benchmarks", "docs", "docker", "pyproject.toml", "README.md")

CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/flarekd/{module}.py"]
pytest_add_cli_args_test_selection = {tests}
also_copy = ["configs", "benchmarks", "docs", "docker", "README.md"]
process_isolation = "forkserver"
use_git_change_detection = false
"""

PROFILE = """
from hypothesis import Phase

plain = {"phases": (Phase.explicit, Phase.generate)}  # the first example that fails is enough
settings.register_profile("mutants", settings.get_profile("flarekd"), **plain)
settings.load_profile("mutants")
"""


def plain(source: str) -> str:
    """Functions with a decorator as functions without, and an assignment after each."""
    lines = source.splitlines()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):
        if not node.decorator_list or ast.unparse(node.decorator_list[0]) == "staticmethod":
            continue
        indent, wrapped = " " * node.col_offset, node.name
        for decorator in reversed(node.decorator_list):
            wrapped = f"{ast.unparse(decorator)}({wrapped})"
        lines[node.end_lineno : node.end_lineno] = ["", f"{indent}{node.name} = {wrapped}", ""]
        del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "\n".join(lines) + "\n"


def prepare(module: str, folder: Path) -> None:
    """Copy the tree, the module with plain functions, and tell mutmut what to do."""
    here = Path(__file__).parents[1]
    folder.mkdir(parents=True)
    for name in COPIED:
        copy = shutil.copytree if (here / name).is_dir() else shutil.copy2
        copy(here / name, folder / name)
    path = folder / "src" / "flarekd" / f"{module}.py"
    path.write_text(plain(path.read_text(encoding="utf-8")), encoding="utf-8")
    path = folder / "tests" / "conftest.py"
    path.write_text(path.read_text(encoding="utf-8") + PROFILE, encoding="utf-8")
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(CONFIG.format(module=module, tests=json.dumps(MODULES[module])))


def mutmut(folder: Path, *words: str) -> str:
    """What a command of mutmut prints."""
    command = [sys.executable, "-m", "mutmut", *words]
    done = subprocess.run(
        command, cwd=folder, check=False, capture_output=True, text=True, encoding="utf-8"
    )
    (folder / "mutmut.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    return done.stdout


def fates(module: str, folder: Path) -> dict[str, str]:
    """What became of every mutant of a module, by its name."""
    lines = mutmut(folder, "results", "--all", "true").splitlines()
    pairs = (line.split(": ") for line in lines if ": " in line)
    start = f"flarekd.{module.replace('/', '.')}."
    return {name.strip(): fate for name, fate in pairs if name.strip().startswith(start)}


def measure(module: str, out: Path, sample: int, seed: int) -> None:
    """Mutate a module, and say how many mutants the tests did not notice, and which."""
    folder = out / module.replace("/", "-")
    if not folder.exists():
        prepare(module, folder)
    if not (folder / "mutants").exists():
        mutmut(folder, "run", "--max-children", "1", "no such mutant")  # makes them, and runs none
    names = sorted(fates(module, folder))
    drawn = names
    if len(names) > sample:
        drawn = sorted(random.Random(f"{seed} {module}").sample(names, sample))
    known = fates(module, folder)
    left = [name for name in drawn if known[name] == "not checked"]
    if left:  # else it goes on where it was stopped
        mutmut(folder, "run", "--max-children", "1", *left)
    found = fates(module, folder)
    counts = Counter(found[name] for name in drawn)
    print(f"{module}: {len(names)} mutants, {len(drawn)} run, {dict(counts)}", flush=True)
    for name in drawn:
        if found[name] not in ("killed", "timeout"):
            lines = mutmut(folder, "show", name).splitlines()
            changed = [
                line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")
            ]
            print(f"  {found[name]} {name}", *(f"    {line}" for line in changed), sep="\n")


def main() -> None:
    """Mutate the modules asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=60, help="mutants of a module, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=list(MODULES))
    given = parser.parse_args()
    for module in given.modules:
        measure(module, given.out, given.sample, given.seed)


if __name__ == "__main__":
    main()
